"""Inversion: from clean latents to the noise that a denoiser would have made them from."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from graphflow.node import BatchNode, Context, Field, Ports, Seed
from graphflow.nodes.denoise import lacks_negative
from graphflow.ports import Latents, Model, TextCondPort, Trajectory, TrajectoryPort


class InvertDDIM(BatchNode, kind="invert.ddim"):
    """DDIM inversion, optionally with the noise regularisation of pix2pix-zero."""

    num_inference_steps: int = Field(50, ge=1, le=1000, description="sampling steps; sample with the same number")
    guidance_scale: float = Field(
        1.0, ge=0, description="classifier-free guidance; 1 is none, other values need the port negative"
    )
    convention: Literal["diffusers", "pix2pix_zero"] = Field(
        "diffusers", description="diffusers: as DDIMInverseScheduler; pix2pix_zero: as its authors, two calls fewer"
    )
    regularise: bool = Field(False, description="push the predicted noise of every step towards uncorrelated N(0, 1)")
    lambda_ac: float = Field(20.0, ge=0, description="regularisation: weight of the auto-correlation loss")
    lambda_kl: float = Field(20.0, ge=0, description="regularisation: weight of the divergence from N(0, 1)")
    num_reg_steps: int = Field(5, ge=1, description="regularisation: rounds at every step")
    num_ac_rolls: int = Field(5, ge=1, description="regularisation: auto-correlation updates in a round")
    seed: Seed = Field(0, description="regularisation: seed of the random shifts")

    class In(Ports):
        latents: Latents
        cond: TextCondPort
        negative: TextCondPort | None = None
        model: Model["denoiser"]

    class Out(Ports):
        noise: Latents
        trajectory: TrajectoryPort

    def missing_port(self, fed: Collection[str]) -> str:
        return lacks_negative(self.guidance_scale, fed)

    def run_many(self, xs: Sequence[In], ctx: Context) -> list[Out]:
        from graphflow.nodes.lib.batches import given, in_groups

        return in_groups(xs, given, lambda alike: self._invert(alike, ctx))

    def _invert(self, xs: Sequence[In], ctx: Context) -> list[Out]:
        import torch

        from graphflow.nodes.lib.batches import stacked
        from graphflow.nodes.lib.ddim import ddim_inversion
        from graphflow.nodes.lib.pix2pix_zero import regularise_noise

        generator = ctx.rng(self.seed)  # each picture gets the shifts that it would get alone
        counts = [len(x.latents) for x in xs]
        negatives = [None if x.negative is None else x.negative.embeds for x in xs]

        def regularise(eta_BChw: torch.Tensor) -> torch.Tensor:
            return regularise_noise(
                eta_BChw,
                generator,
                lambda_ac=self.lambda_ac,
                lambda_kl=self.lambda_kl,
                num_reg_steps=self.num_reg_steps,
                num_ac_rolls=self.num_ac_rolls,
            )

        # Latents stay in float32 between steps whatever the model computes in: rounding would add up over an inversion.
        timesteps, trajectory = ddim_inversion(
            xs[0].model,
            torch.cat([x.latents for x in xs]).to(ctx.device, torch.float32),
            stacked([x.cond.embeds for x in xs], counts, ctx.device),
            self.num_inference_steps,
            convention=self.convention,
            guidance_scale=self.guidance_scale,
            negative_BLD=stacked(negatives, counts, ctx.device),
            regularise=regularise if self.regularise else None,
            steps=lambda timesteps: ctx.steps(timesteps, total=len(timesteps), label="inversion"),
            on_step=ctx.preview,
        )
        parts = [part.contiguous() for part in trajectory.split(counts, dim=1)]
        return [self.Out(noise=part[-1], trajectory=Trajectory(timesteps, part)) for part in parts]
