"""Denoising: from noise to clean latents, plainly or along an edit direction."""

from __future__ import annotations

from graphflow.node import Context, Field, Node, Ports
from graphflow.ports import EditDirection, Latents, Model, TextCondPort


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
