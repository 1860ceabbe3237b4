"""Text conditioning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphflow.node import BatchNode, Context, Node, Ports
from graphflow.ports import EditDirection, Model, Text, TextCond, TextCondPort


class Encode(BatchNode, kind="text.encode"):
    """Encode a prompt; the empty prompt gives the unconditional embedding."""

    class In(Ports):
        text: Text
        model: Model["text_encoder"]

    class Out(Ports):
        cond: TextCondPort

    def run_many(self, xs: Sequence[In], ctx: Context) -> list[Out]:
        model, texts = xs[0].model, [x.text for x in xs]
        _warn_of_cut(model, texts, ctx)
        embeds, pooled = model.conditioning(texts)  # every text is padded to the encoder's whole context
        pooleds = [None] * len(xs) if pooled is None else pooled.split(1)
        return [self.Out(cond=TextCond(*both)) for both in zip(embeds.split(1), pooleds, strict=True)]


class Direction(Node, kind="text.direction"):
    """The edit direction: mean embedding of the captions after the edit minus that of those before (pix2pix-zero)."""

    class In(Ports):
        before: list[Text]
        after: list[Text]
        model: Model["text_encoder"]

    class Out(Ports):
        direction: EditDirection

    def run(self, x: In, ctx: Context) -> Out:
        from graphflow.nodes.lib.text_encoder import edit_direction

        for name, texts in (("before", x.before), ("after", x.after)):
            if not texts:
                raise ValueError(f"'{name}' has no captions, expected at least one")
        _warn_of_cut(x.model, [*x.before, *x.after], ctx)
        return self.Out(direction=edit_direction(x.model, x.before, x.after))


def _warn_of_cut(model: Any, texts: list[str], ctx: Context) -> None:
    for end in model.cut_off(texts):
        ctx.log("warning: the text encoder reads %d tokens; it does not see the end '%s'", model.max_tokens, end)
