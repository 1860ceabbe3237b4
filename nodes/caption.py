"""Describing a picture."""

from __future__ import annotations

from collections.abc import Sequence

from graphflow.node import BatchNode, Context, Field, Ports
from graphflow.ports import Image, Model, Text


class Caption(BatchNode, kind="caption"):
    """Describe a picture in one sentence."""

    max_new_tokens: int = Field(30, ge=1, le=512, description="longest caption, in tokens")
    num_beams: int = Field(3, ge=1, le=32, description="beams of the search; 1 takes the likeliest token each time")
    prompt: str = Field("", description="how the caption begins, such as 'a photo of'; empty leaves it to the model")

    class In(Ports):
        image: Image
        model: Model["captioner"]

    class Out(Ports):
        text: Text

    def run_many(self, xs: Sequence[In], ctx: Context) -> list[Out]:
        images = [x.image for x in xs]
        texts = xs[0].model.captions(images, self.prompt, self.max_new_tokens, self.num_beams)
        for text in texts:
            ctx.log("caption: %s", text)
        return [self.Out(text=text) for text in texts]
