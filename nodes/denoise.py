"""Denoising: from noise to clean latents, plainly, along an edit direction, or keeping to a source picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from graphflow.node import Context, Field, Node, Ports
from graphflow.ports import EditDirection, Embedding, Features, Latents, Model, TextCondPort

if TYPE_CHECKING:
    import torch


class DenoiseDDIM(Node, kind="denoise.ddim"):
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

    def run(self, x: In, ctx: Context) -> Out:
        import torch

        from graphflow.nodes.lib.ddim import ddim_sample

        latents = ddim_sample(
            x.model,
            x.noise.to(ctx.device, torch.float32),
            x.cond.embeds.to(ctx.device),
            self.num_inference_steps,
            guidance_scale=self.guidance_scale,
            negative_BLD=None if x.negative is None else x.negative.embeds.to(ctx.device),
            direction_LD=None if x.direction is None else x.direction.to(ctx.device),
            steps=lambda timesteps: ctx.steps(timesteps, total=len(timesteps), label="sampling"),
            on_step=ctx.preview,
        )
        return self.Out(latents=latents)


class DenoisePix2PixZero(Node, kind="denoise.pix2pix_zero"):
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

    def run(self, x: In, ctx: Context) -> Out:
        import torch

        from graphflow.nodes.lib.pix2pix_zero import pix2pix_zero_sample

        latents = pix2pix_zero_sample(
            x.model,
            x.noise.to(ctx.device, torch.float32),
            x.cond.embeds.to(ctx.device),
            x.direction.to(ctx.device),
            self.num_inference_steps,
            guidance_scale=self.guidance_scale,
            cross_attention_guidance=self.cross_attention_guidance,
            negative_BLD=None if x.negative is None else x.negative.embeds.to(ctx.device),
            steps=lambda timesteps: ctx.steps(timesteps, total=len(timesteps), label="editing"),
            on_step=ctx.preview,
        )
        return self.Out(latents=latents)


class DenoiseInjected(Node, kind="denoise.injected"):
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

    def run(self, x: In, ctx: Context) -> Out:
        return self.Out(latents=_injected(self, x, ctx, None))


class DenoiseReEdit(Node, kind="denoise.reedit"):
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

    def run(self, x: In, ctx: Context) -> Out:
        from graphflow.nodes.lib.ip_adapter import ImagePrompt

        if self.prompts == "image" and x.negative is None:
            raise ValueError("prompts=image needs the port negative, whose text stands beside the image")
        prompt = ImagePrompt(x.ip_adapter, x.image_prompt.to(ctx.device), self.image_scale)
        return self.Out(latents=_injected(self, x, ctx, None if self.prompts == "text" else prompt))


def _injected(node: Any, x: Any, ctx: Context, image: Any) -> torch.Tensor:
    from graphflow.nodes.lib.injection import Injection
    from graphflow.nodes.lib.plug_and_play import Prompts, injected_sample

    def embeds(name: str) -> Any:
        cond = getattr(x, name, None)
        return None if cond is None else cond.embeds.to(ctx.device)

    notes = x.features.notes
    prompts = Prompts(
        embeds("negative" if getattr(node, "prompts", "both") == "image" else "cond"),
        embeds("negative"),
        node.guidance_scale,
        embeds("unconditional"),
        getattr(node, "negative_prompt_alpha", 0.0),
        getattr(node, "negative_prompt_schedule", "constant"),
        image,
    )
    return injected_sample(
        x.model,
        x.features,
        Injection(notes["injection"]),
        prompts,
        notes["num_inference_steps"],
        source_BLD=x.features.shared["cond"].to(ctx.device) if notes["storage"] == "lockstep" else None,
        steps=lambda timesteps: ctx.steps(timesteps, total=len(timesteps), label="editing"),
        on_step=ctx.preview,
    )
