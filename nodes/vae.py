"""Pictures to latents and back."""

from __future__ import annotations

from typing import Literal

from graphflow.node import Context, Field, Node, Ports
from graphflow.ports import Image, Latents, Model


class Encode(Node, kind="vae.encode"):
    """Encode a picture into scaled latents."""

    posterior: Literal["mode", "sample"] = Field(
        "mode", description="mode is what most editing methods take; sample draws with the seed (pix2pix-zero)"
    )
    seed: int = Field(0, ge=0, description="seed of the posterior's sample; without effect on the mode")

    class In(Ports):
        image: Image
        model: Model["vae"]

    class Out(Ports):
        latents: Latents

    def run(self, x: In, ctx: Context) -> Out:
        from graphflow.nodes.lib.vae import to_pixels

        generator = ctx.rng(self.seed) if self.posterior == "sample" else None
        return self.Out(latents=x.model.encode(to_pixels([x.image]), generator))


class Decode(Node, kind="vae.decode"):
    """Decode latents into a picture."""

    class In(Ports):
        latents: Latents
        model: Model["vae"]

    class Out(Ports):
        image: Image

    def run(self, x: In, ctx: Context) -> Out:
        from graphflow.nodes.lib.vae import to_images

        if len(x.latents) != 1:
            raise ValueError(f"got {len(x.latents)} latents, expected one; decode a batch with a map")
        return self.Out(image=to_images(x.model.decode(x.latents.to(ctx.device)))[0])
