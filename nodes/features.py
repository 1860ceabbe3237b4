"""Features: what a denoiser computes along the trajectory of a picture, for an edit to keep to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from graphflow.node import BatchNode, Context, Field, Node, Ports
from graphflow.ports import Features, Model, TextCondPort, TrajectoryPort
from graphflow.series import SeriesWriter

if TYPE_CHECKING:
    from graphflow.nodes.lib.injection import Injection


class Capture(BatchNode, kind="features.capture"):
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
    storage: Literal["auto", "stored", "lockstep"] = Field(
        "auto",
        description="stored: capture now, for many edits of one picture; lockstep: capture nothing, the edit runs the "
        "picture beside itself; auto: whichever costs less, as the plan shows",
    )

    class In(Ports):
        trajectory: TrajectoryPort
        cond: TextCondPort
        model: Model["denoiser"]

    class Out(Ports):
        features: Features

    def decide(self, models: Mapping[str, Mapping[str, Any]], device: str, dtype: str) -> tuple[Node, str]:
        if self.storage != "auto":
            return self, ""
        from graphflow.nodes.lib.injection import cheaper_to_store, unet_costs

        config = models.get("model") or {}
        if config.get("_class_name") != "UNet2DConditionModel":
            return self.model_copy(update={"storage": "lockstep"}), "lock-step: the denoiser's size is not known"
        try:
            injection = self._injection(unet_costs(config).places)
        except ValueError:  # said when it runs: layers outside the decoder have no known size
            return self.model_copy(update={"storage": "lockstep"}), "lock-step: the size of these layers is not known"
        store, why = cheaper_to_store(config, injection, device, 4 if dtype == "float32" else 2)
        return self.model_copy(update={"storage": "stored" if store else "lockstep"}), why

    def run_many(self, xs: Sequence[In], ctx: Context) -> list[Out]:
        from graphflow.nodes.lib.taps import Taps

        model = xs[0].model
        config = {**model.unet.config, "_class_name": type(model.unet).__name__}
        decided, _ = self.decide({"model": config}, ctx.device.type, str(model.dtype).removeprefix("torch."))
        assert isinstance(decided, Capture)
        injection = self._injection(Taps(model.unet).places)
        writers = [SeriesWriter(ctx.folder()) for _ in xs]
        decided._write(xs, injection, writers, ctx)
        notes = {
            "num_inference_steps": self.num_inference_steps,
            "injection": dict(injection.steps),
            "storage": decided.storage,
        }
        finished = (writer.finish(notes, {"cond": x.cond.embeds}) for x, writer in zip(xs, writers, strict=True))
        return [self.Out(features=features) for features in finished]

    def _write(self, xs: Sequence[In], injection: Injection, writers: Sequence[SeriesWriter], ctx: Context) -> None:
        """The tensors of each timestep, those of each picture to its own writer."""
        import torch

        from graphflow.nodes.lib.batches import stacked
        from graphflow.nodes.lib.plug_and_play import capture_features
        from graphflow.nodes.lib.sources import LATENTS, source_latents

        timesteps = xs[0].model.timesteps(self.num_inference_steps).tolist()
        each = [source_latents(x.trajectory.timesteps, x.trajectory.latents, timesteps) for x in xs]
        counts = [len(levels[timesteps[0]]) for levels in each]

        def write(timestep: int, tensors: Mapping[str, torch.Tensor]) -> None:
            parts = {name: tensor.split(counts) for name, tensor in tensors.items()}
            for number, writer in enumerate(writers):
                writer.add(timestep, {name: part[number] for name, part in parts.items()})

        latents = {t: torch.cat([levels[t] for levels in each]).to(ctx.device, torch.float32) for t in timesteps}
        if self.storage == "lockstep":
            for timestep in timesteps[: max(1, injection.last)]:
                write(timestep, {LATENTS: latents[timestep]})
            return
        cond = stacked([x.cond.embeds for x in xs], counts, ctx.device)
        assert cond is not None

        def steps(wanted: list[int]) -> Any:
            return ctx.steps(wanted, total=len(wanted), label="capturing")

        capture_features(xs[0].model, latents, cond, injection, write, steps)

    def _injection(self, places: Iterable[str]) -> Injection:
        from graphflow.nodes.lib.injection import plug_and_play_injection

        return plug_and_play_injection(
            places,
            self.num_inference_steps,
            attention_threshold=self.attention_threshold,
            feature_threshold=self.feature_threshold,
            inclusive=self.thresholds == "inclusive",
            attention=self.attention,
            features=self.features,
        )
