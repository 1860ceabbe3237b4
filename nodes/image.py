"""Pictures: fitting them to a model."""

from __future__ import annotations

from typing import Literal

from graphflow.node import Context, Field, Node, Ports
from graphflow.ports import Image, Model


class Prepare(Node, kind="image.prepare"):
    """Fit a picture to the square that the VAE was trained on."""

    fit: Literal["crop", "stretch", "pad"] = Field(
        "crop",
        description="crop cuts the longer sides off evenly, stretch changes the proportions, pad adds white margins",
    )

    class In(Ports):
        image: Image
        model: Model["vae"]

    class Out(Ports):
        image: Image

    def run(self, x: In, ctx: Context) -> Out:
        from graphflow.nodes.lib.fit import fit_square

        return self.Out(image=fit_square(x.image.convert("RGB"), x.model.native_size, self.fit))
