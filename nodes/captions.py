"""Captions of edits."""

from __future__ import annotations

from graphflow.node import Context, Field, Node, Ports, Seed
from graphflow.ports import Model, Text


class BeforeAfter(Node, kind="captions.before_after", version=2):
    """Let a language model describe a picture before and after an edit (Pix2Pix-OnTheFly, section 3.2)."""

    num_captions: int = Field(3, ge=1, le=10, description="captions on each side")
    num_shots: int = Field(3, ge=0, le=12, description="worked examples in the prompt, drawn with the seed")
    max_retries: int = Field(
        10, ge=0, le=100, description="further attempts when captions are missing; then those of all attempts count"
    )
    seed: Seed = Field(
        0,
        description="of the sampling and of the choice of examples; 0: a model of pairs begins with its likeliest",
    )
    temperature: float = Field(0.8, ge=0, le=5, description="of the sampling; 0 always takes the likeliest token")
    top_p: float = Field(0.95, gt=0, le=1, description="sample from the likeliest tokens of this total probability")

    class In(Ports):
        caption: Text
        instruction: Text
        model: Model["llm"]

    class Out(Ports):
        before: list[Text]
        after: list[Text]
        target: Text  # the first caption after the edit

    def run(self, x: In, ctx: Context) -> Out:
        from graphflow.nodes.lib.edit_captions import Request, write_captions

        request = Request(
            x.caption, x.instruction, self.num_captions, self.num_shots, self.seed, self.temperature, self.top_p
        )
        captions = write_captions(x.model, request, ctx.steps(range(1 + self.max_retries), label="asking"))
        if not captions.enough(self.num_captions):
            counts = len(captions.before), len(captions.after), self.num_captions
            ctx.log("warning: the language model gave %d captions before and %d after; %d were wanted", *counts)
        return self.Out(before=captions.before, after=captions.after, target=captions.after[0])
