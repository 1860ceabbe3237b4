"""Denoising: from noise to clean latents, plainly, along an edit direction, or keeping to a source picture."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Literal

from graphflow.node import BatchNode, Context, Field, Ports
from graphflow.ports import EditDirection, Embedding, Features, Latents, Model, TextCondPort

if TYPE_CHECKING:
    import torch


class DenoiseDDIM(BatchNode, kind="denoise.ddim"):
    """Deterministic DDIM sampling with classifier-free guidance."""

    num_inference_steps: int = Field(50, ge=1, le=1000, description="sampling steps; the same as in the inversion")
    guidance_scale: float = Field(
        7.5, ge=0, description="classifier-free guidance; 1 is none, other values need the port negative"
    )

    class In(Ports):
        noise: Latents
        cond: TextCondPort
        negative: TextCondPort | None = None
        direction: EditDirection | None = None
        model: Model["denoiser"]

    class Out(Ports):
        latents: Latents

    def missing_port(self, fed: Collection[str]) -> str:
        return lacks_negative(self.guidance_scale, fed)

    def run_many(self, xs: Sequence[In], ctx: Context) -> list[Out]:
        from graphflow.nodes.lib.batches import given, in_groups

        return in_groups(xs, given, lambda alike: self._sample(alike, ctx))

    def _sample(self, xs: Sequence[In], ctx: Context) -> list[Out]:
        from graphflow.nodes.lib.ddim import ddim_sample

        noise, counts, cond, negative = _stacked(xs, ctx)
        latents = ddim_sample(
            xs[0].model,
            noise,
            cond,
            self.num_inference_steps,
            guidance_scale=self.guidance_scale,
            negative_BLD=negative,
            direction_BLD=_directions(xs, counts, ctx),
            steps=lambda timesteps: ctx.steps(timesteps, total=len(timesteps), label="sampling"),
            on_step=ctx.preview,
        )
        return [self.Out(latents=part) for part in latents.split(counts)]


class DenoisePix2PixZero(BatchNode, kind="denoise.pix2pix_zero"):
    """pix2pix-zero: sampling along an edit direction while cross-attention keeps to the source's maps."""

    num_inference_steps: int = Field(50, ge=1, le=1000, description="sampling steps; the same as in the inversion")
    guidance_scale: float = Field(5.0, ge=0, description="classifier-free guidance; 1 is none")
    cross_attention_guidance: float = Field(
        0.15, ge=0, description="step size towards the source's cross-attention maps; higher keeps more of its layout"
    )

    class In(Ports):
        noise: Latents
        cond: TextCondPort
        negative: TextCondPort | None = None
        direction: EditDirection
        model: Model["denoiser"]

    class Out(Ports):
        latents: Latents

    def run_many(self, xs: Sequence[In], ctx: Context) -> list[Out]:
        from graphflow.nodes.lib.batches import given, in_groups

        return in_groups(xs, given, lambda alike: self._edit(alike, ctx))

    def _edit(self, xs: Sequence[In], ctx: Context) -> list[Out]:
        from graphflow.nodes.lib.pix2pix_zero import pix2pix_zero_sample

        noise, counts, cond, negative = _stacked(xs, ctx)
        latents = pix2pix_zero_sample(
            xs[0].model,
            noise,
            cond,
            _directions(xs, counts, ctx),
            self.num_inference_steps,
            guidance_scale=self.guidance_scale,
            cross_attention_guidance=self.cross_attention_guidance,
            negative_BLD=negative,
            steps=lambda timesteps: ctx.steps(timesteps, total=len(timesteps), label="editing"),
            on_step=ctx.preview,
        )
        return [self.Out(latents=part) for part in latents.split(counts)]


class DenoiseInjected(BatchNode, kind="denoise.injected"):
    """Plug-and-Play: sampling from a picture's own noise while the first steps keep to its features."""

    guidance_scale: float = Field(
        7.5, ge=0, description="classifier-free guidance; 1 is none, other values need the port negative"
    )
    negative_prompt_alpha: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the port unconditional in the negative side at the first step; 0 as pnp-diffusers, 1 "
        "(real pictures) or 0.75 (generated ones) as the original code",
    )
    negative_prompt_schedule: Literal["constant", "linear", "exp"] = Field(
        "constant", description="how that share goes on: constant, linearly to 0, exponentially to 0"
    )

    class In(Ports):
        features: Features
        cond: TextCondPort
        negative: TextCondPort | None = None
        unconditional: TextCondPort | None = None
        model: Model["denoiser"]

    class Out(Ports):
        latents: Latents

    def missing_port(self, fed: Collection[str]) -> str:
        return lacks_negative(self.guidance_scale, fed)

    def run_many(self, xs: Sequence[In], ctx: Context) -> list[Out]:
        from graphflow.nodes.lib.batches import in_groups

        run = lambda alike: _injected(self, alike, ctx, None)  # noqa: E731
        return [self.Out(latents=latents) for latents in in_groups(xs, _kept_alike, run)]


class DenoiseReEdit(BatchNode, kind="denoise.reedit"):
    """ReEdit: sampling under a text and an image prompt while the first steps keep to a picture's features."""

    guidance_scale: float = Field(
        7.5, ge=0, description="classifier-free guidance; 1 is none, other values need the port negative"
    )
    image_scale: float = Field(1.0, ge=0, description="weight of the image prompt beside the text")
    prompts: Literal["both", "text", "image"] = Field(
        "both",
        description="both as in the paper; text or image alone, where image takes the port negative for the text",
    )

    class In(Ports):
        features: Features
        cond: TextCondPort
        negative: TextCondPort | None = None
        image_prompt: Embedding
        ip_adapter: Model["ip_adapter"]
        model: Model["denoiser"]

    class Out(Ports):
        latents: Latents

    def missing_port(self, fed: Collection[str]) -> str:
        if self.prompts == "image" and "negative" not in fed:
            return "prompts=image needs the port negative, whose text stands beside the image"
        return lacks_negative(self.guidance_scale, fed)

    def run_many(self, xs: Sequence[In], ctx: Context) -> list[Out]:
        from graphflow.nodes.lib.batches import in_groups

        if self.prompts == "image" and any(x.negative is None for x in xs):
            raise ValueError(self.missing_port(()))
        image_scale = None if self.prompts == "text" else self.image_scale
        run = lambda alike: _injected(self, alike, ctx, image_scale)  # noqa: E731
        return [self.Out(latents=latents) for latents in in_groups(xs, _kept_alike, run)]


def lacks_negative(guidance_scale: float, fed: Collection[str]) -> str:
    """What `Node.missing_port` says of classifier-free guidance without a negative prompt."""
    if guidance_scale == 1 or "negative" in fed:
        return ""
    return (
        f"guidance_scale={guidance_scale:g} needs the port negative, such as 'in: {{negative: NODE.cond}}'; 1 is none"
    )


def _stacked(xs: Sequence[Any], ctx: Context) -> tuple[torch.Tensor, list[int], Any, Any]:
    """Noise in float32 of all elements, how many rows each has, and what conditions them."""
    import torch

    from graphflow.nodes.lib.batches import stacked

    counts = [len(x.noise) for x in xs]
    noise = torch.cat([x.noise for x in xs]).to(ctx.device, torch.float32)
    cond = stacked([x.cond.embeds for x in xs], counts, ctx.device)
    return noise, counts, cond, stacked([_embeds(x, "negative") for x in xs], counts, ctx.device)


def _directions(xs: Sequence[Any], counts: Sequence[int], ctx: Context) -> Any:
    from graphflow.nodes.lib.batches import stacked

    return stacked([None if x.direction is None else x.direction[None] for x in xs], counts, ctx.device)


def _embeds(x: Any, name: str) -> torch.Tensor | None:
    cond = getattr(x, name, None)
    return None if cond is None else cond.embeds


def _kept_alike(x: Any) -> Any:
    """What elements have in common whose edits run side by side: where and when they keep to their sources."""
    from graphflow.codecs import canonical_json
    from graphflow.nodes.lib.batches import given

    return canonical_json(x.features.notes), given(x)


def _injected(node: Any, xs: Sequence[Any], ctx: Context, image_scale: float | None) -> list[torch.Tensor]:
    from graphflow.nodes.lib.batches import stacked
    from graphflow.nodes.lib.injection import Injection
    from graphflow.nodes.lib.ip_adapter import ImagePrompt
    from graphflow.nodes.lib.plug_and_play import Prompts, injected_sample
    from graphflow.nodes.lib.sources import Together

    notes, source = xs[0].features.notes, Together([x.features for x in xs])

    def embeds(name: str) -> Any:
        return stacked([_embeds(x, name) for x in xs], source.counts, ctx.device)

    image = None
    if image_scale is not None:
        pictures = stacked([x.image_prompt for x in xs], source.counts, ctx.device)
        image = ImagePrompt(xs[0].ip_adapter, pictures, image_scale)
    prompts = Prompts(
        embeds("negative" if getattr(node, "prompts", "both") == "image" else "cond"),
        embeds("negative"),
        node.guidance_scale,
        embeds("unconditional"),
        getattr(node, "negative_prompt_alpha", 0.0),
        getattr(node, "negative_prompt_schedule", "constant"),
        image,
    )
    conds = [x.features.shared["cond"] for x in xs] if notes["storage"] == "lockstep" else None
    latents = injected_sample(
        xs[0].model,
        source,
        Injection(notes["injection"]),
        prompts,
        notes["num_inference_steps"],
        source_BLD=None if conds is None else stacked(conds, source.counts, ctx.device),
        steps=lambda timesteps: ctx.steps(timesteps, total=len(timesteps), label="editing"),
        on_step=ctx.preview,
    )
    return list(latents.split(source.counts))
