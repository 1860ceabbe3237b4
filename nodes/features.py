"""Features: what a denoiser computes along the trajectory of a picture, for an edit to keep to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from graphflow.node import Context, Field, Node, Ports
from graphflow.ports import Features, Model, TextCondPort, TrajectoryPort
from graphflow.series import SeriesWriter


class Capture(Node, kind="features.capture"):
    """Capture what a denoiser computes of an inverted picture: the features and self-attention of Plug-and-Play."""

    num_inference_steps: int = Field(50, ge=1, le=999, description="sampling steps of the edit")
    attention_threshold: float = Field(
        0.5, ge=0, le=1, description="in this part of the steps the edit takes the picture's queries and keys"
    )
    feature_threshold: float = Field(
        0.8, ge=0, le=1, description="in this part of the steps the edit takes the picture's resnet features"
    )
    thresholds: Literal["half_open", "inclusive"] = Field(
        "half_open",
        description="half_open: as pnp-diffusers and ReEdit; inclusive: a step more, as the original code",
    )
    attention: list[str] = Field(
        [],
        description="self-attention layers, as up.1.attn.1.self; none named: the paper's, layers 4 to 11 of 12",
    )
    features: list[str] = Field(
        [], description="resnets, as up.1.res.1, before their shortcut; none named: the paper's, layer 4 of 12"
    )
    storage: Literal["stored", "lockstep"] = Field(
        "stored",
        description="stored: capture now, for many edits of one picture; lockstep: capture nothing, the edit runs the "
        "picture beside itself",
    )

    class In(Ports):
        trajectory: TrajectoryPort
        cond: TextCondPort
        model: Model["denoiser"]

    class Out(Ports):
        features: Features

    def run(self, x: In, ctx: Context) -> Out:
        import torch

        from graphflow.nodes.lib.plug_and_play import (
            LATENTS,
            capture_features,
            plug_and_play_injection,
            source_latents,
        )
        from graphflow.nodes.lib.taps import Taps

        injection = plug_and_play_injection(
            Taps(x.model.unet),
            self.num_inference_steps,
            attention_threshold=self.attention_threshold,
            feature_threshold=self.feature_threshold,
            inclusive=self.thresholds == "inclusive",
            attention=self.attention,
            features=self.features,
        )
        timesteps = x.model.timesteps(self.num_inference_steps).tolist()
        levels = source_latents(x.trajectory.timesteps, x.trajectory.latents, timesteps)
        latents = {t: z.to(ctx.device, torch.float32) for t, z in levels.items()}
        writer = SeriesWriter(ctx.folder())
        if self.storage == "lockstep":
            for timestep in timesteps[: max(1, injection.last)]:
                writer.add(timestep, {LATENTS: latents[timestep]})
        else:

            def steps(wanted: list[int]) -> Any:
                return ctx.steps(wanted, total=len(wanted), label="capturing")

            capture_features(x.model, latents, x.cond.embeds.to(ctx.device), injection, writer.add, steps)
        notes: Mapping[str, Any] = {
            "num_inference_steps": self.num_inference_steps,
            "injection": dict(injection.steps),
            "storage": self.storage,
        }
        return self.Out(features=writer.finish(notes, {"cond": x.cond.embeds}))
