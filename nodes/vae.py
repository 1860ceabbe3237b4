"""Pictures to latents and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from graphflow.node import BatchNode, Context, Field, Ports, Seed
from graphflow.ports import Image, Latents, Model


class Encode(BatchNode, kind="vae.encode"):
    """Encode a picture into scaled latents."""

    posterior: Literal["mode", "sample"] = Field(
        "mode", description="mode is what most editing methods take; sample draws with the seed (pix2pix-zero)"
    )
    seed: Seed = Field(0, description="seed of the posterior's sample; without effect on the mode")

    class In(Ports):
        image: Image
        model: Model["vae"]

    class Out(Ports):
        latents: Latents

    def run_many(self, xs: Sequence[In], ctx: Context) -> list[Out]:
        from graphflow.nodes.lib.batches import in_groups

        return in_groups(xs, lambda x: x.image.size, lambda alike: self._encode(alike, ctx))

    def _encode(self, xs: Sequence[In], ctx: Context) -> list[Out]:
        from graphflow.nodes.lib.vae import to_pixels

        # Each picture draws what it would draw alone.
        generators = [ctx.rng(self.seed) for _ in xs] if self.posterior == "sample" else None
        latents = xs[0].model.encode(to_pixels([x.image for x in xs]), generators)
        return [self.Out(latents=part) for part in latents.split(1)]


class Decode(BatchNode, kind="vae.decode"):
    """Decode latents into a picture."""

    class In(Ports):
        latents: Latents
        model: Model["vae"]

    class Out(Ports):
        image: Image

    def run_many(self, xs: Sequence[In], ctx: Context) -> list[Out]:
        from graphflow.nodes.lib.batches import in_groups

        for x in xs:
            if len(x.latents) != 1:
                raise ValueError(f"got {len(x.latents)} latents, expected one; decode a batch with a map")
        return in_groups(xs, lambda x: x.latents.shape, lambda alike: self._decode(alike, ctx))

    def _decode(self, xs: Sequence[In], ctx: Context) -> list[Out]:
        import torch

        from graphflow.nodes.lib.vae import to_images

        pixels = xs[0].model.decode(torch.cat([x.latents for x in xs]).to(ctx.device))
        return [self.Out(image=image) for image in to_images(pixels)]
