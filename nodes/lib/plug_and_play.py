"""Plug-and-Play Diffusion Features (Tumanyan et al., CVPR 2023): an edit that keeps to the source picture's layout.

The source picture is inverted, and its own denoising is watched: what a resnet of the decoder computes before its
shortcut (f), and the queries and keys of the decoder's self-attention (q, k). The edit starts at the same noise with
another prompt, and for its first steps its f, q and k are those of the source (section 4.1, algorithm 1).

The source's side is either captured beforehand and replayed, or runs as further rows of the same network call
(lock-step): the same numbers, bytes against seconds.

Shapes: B pictures, C latent channels, h w latent height and width, L text tokens, D width of the text embeddings,
S levels of a trajectory; R rows of a network call: the source's B in lock-step, then B for each prompt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from .ddim import OnStep, Steps, ddim_step
from .denoiser import Denoiser
from .injection import Injection
from .ip_adapter import ImagePrompt
from .sources import LATENTS, Source, lockstep, read_ahead
from .taps import See, Taps

Schedule = Literal["constant", "linear", "exp"]


@torch.inference_mode()
def capture_features(
    denoiser: Denoiser,
    latents: Mapping[int, Tensor],
    cond_BLD: Tensor,
    injection: Injection,
    write: Callable[[int, Mapping[str, Tensor]], object],
    steps: Steps = iter,
) -> None:
    """Run the source's denoising at its inverted latents and hand over what an edit will want of it.

    The latents come from the inversion, not from the step before, so that errors don't add up (section 4.1).

    Args:
        denoiser: the model.
        latents: sampling timestep, descending → latents, from `source_latents`.
        cond_BLD: conditioning of the inversion, of B rows or one.
        injection: what will be injected.
        write: receives each timestep with its tensors, `LATENTS` among them; nothing is kept here.
        steps: see `ddim.Steps`.
    """
    taps, embeds_BLD = Taps(denoiser.unet), cond_BLD.to(denoiser.dtype)
    # Sampling starts at the first latents even where nothing is injected.
    wanted = list(latents)[: max(1, injection.last)]
    for step, timestep in enumerate(steps(wanted)):
        z_BChw = latents[timestep]
        with taps.record(injection.at(step)) as seen:
            if injection.at(step):
                denoiser.predict(z_BChw, timestep, embeds_BLD.expand(len(z_BChw), -1, -1))
        write(timestep, {LATENTS: z_BChw, **seen})


@dataclass(frozen=True)
class Prompts:
    """What an edit is guided by.

    Attributes:
        cond_BLD: the prompt, of B rows or one.
        negative_BLD: the negative prompt; needed unless the scale is 1.
        guidance_scale: s of classifier-free guidance.
        unconditional_BLD: the empty prompt; needed where `alpha` is above 0.
        alpha: how much of the empty prompt stands beside the negative one at the first step: 0 is pnp-diffusers, which
            knows only a negative prompt; the original code has 1 for real pictures and 0.75 for generated ones.
        schedule: how `alpha` goes on: constant, linearly to 0, or as exp(-6 i/(N-1)).
        image: image prompt, if there is one.
    """

    cond_BLD: Tensor
    negative_BLD: Tensor | None = None
    guidance_scale: float = 7.5
    unconditional_BLD: Tensor | None = None
    alpha: float = 0.0
    schedule: Schedule = "constant"
    image: ImagePrompt | None = None

    def __post_init__(self) -> None:
        if self.guidance_scale != 1 and self.negative_BLD is None:
            raise ValueError(f"sampling with guidance_scale={self.guidance_scale} needs a negative prompt")
        if self.guidance_scale != 1 and self.alpha > 0 and self.unconditional_BLD is None:
            raise ValueError(f"negative_prompt_alpha={self.alpha} needs the empty prompt beside the negative one")

    def alpha_at(self, step: int, num_inference_steps: int) -> float:
        """α of a step."""
        done = step / max(1, num_inference_steps - 1)
        factor = {"constant": 1.0, "linear": 1 - done, "exp": math.exp(-6 * done)}
        return self.alpha * factor[self.schedule]

    def rows(self, step: int, num_inference_steps: int) -> list[tuple[Tensor, float]]:
        """The prompts that a step needs with their weights in ε̃, the conditional one last (its weight is s).

        ε̃ = (1 - s)·(α·ε_∅ + (1 - α)·ε_neg) + s·ε_c: classifier-free guidance whose negative side is a mixture.
        """
        scale, alpha = self.guidance_scale, self.alpha_at(step, num_inference_steps)
        rows = [(self.cond_BLD, scale)]
        if scale != 1 and self.unconditional_BLD is not None and alpha > 0:
            rows.insert(0, (self.unconditional_BLD, (1 - scale) * alpha))
        if scale != 1 and self.negative_BLD is not None and alpha < 1:
            rows.insert(0, (self.negative_BLD, (1 - scale) * (1 - alpha)))
        return rows


@torch.inference_mode()
def injected_sample(
    denoiser: Denoiser,
    source: Source,
    injection: Injection,
    prompts: Prompts,
    num_inference_steps: int = 50,
    *,
    source_BLD: Tensor | None = None,
    steps: Steps = iter,
    on_step: OnStep | None = None,
) -> Tensor:
    """Sample with DDIM from the source's noise while the first steps keep to the source, (B, C, h, w).

    Args:
        denoiser: the model.
        source: the source's latents and captured tensors at the timesteps of the steps that inject, at least the first.
        injection: what is injected.
        prompts: what guides the edit.
        num_inference_steps: N.
        source_BLD: conditioning of the source, for lock-step; None replays what `source` has captured.
        steps: see `ddim.Steps`.
        on_step: see `ddim.OnStep`.

    Raises:
        ValueError: the number of steps is out of range, or conditioning has neither one row nor B.
    """
    taps, stack = Taps(denoiser.unet), RowStack(denoiser.dtype)
    timesteps = denoiser.timesteps(num_inference_steps).tolist()
    delta, device = denoiser.step_size(num_inference_steps), prompts.cond_BLD.device
    wanted = timesteps[: max(1, injection.last)]  # sampling starts at the first latents even where nothing is injected
    ahead = lockstep(source, wanted, device) if source_BLD is not None else read_ahead(source, wanted, device)
    captured = next(ahead)
    z_BChw = captured[LATENTS].float()
    for step, timestep in enumerate(steps(timesteps)):
        places, rows = injection.at(step), prompts.rows(step, num_inference_steps)
        captured = captured if step == 0 else next(ahead, {})
        eps_BChw = injected_epsilon(
            denoiser,
            taps,
            z_BChw,
            timestep,
            rows,
            captured,
            places,
            source_BLD=source_BLD,
            image=prompts.image,
            stack=stack,
        )
        z_BChw = ddim_step(z_BChw, eps_BChw, denoiser.alpha_cumprod(timestep), denoiser.alpha_cumprod(timestep - delta))
        if on_step is not None:
            on_step(z_BChw)
    return z_BChw


@torch.inference_mode()
def injected_epsilon(
    denoiser: Denoiser,
    taps: Taps,
    z_BChw: Tensor,
    timestep: int,
    rows: Sequence[tuple[Tensor, float]],
    captured: Mapping[str, Tensor],
    places: Sequence[str],
    *,
    source_BLD: Tensor | None = None,
    image: ImagePrompt | None = None,
    stack: RowStack | None = None,
) -> Tensor:
    """Predicted noise under guidance while some places keep to the source, (B, C, h, w).

    Args:
        denoiser: the model.
        taps: its taps.
        z_BChw: latents of the edit.
        timestep: where they lie.
        rows: from `Prompts.rows`.
        captured: the source at this timestep, see `Source`.
        places: what is injected; none to leave the source out.
        source_BLD: conditioning of the source, for lock-step; None replays what is captured.
        image: image prompt.
        stack: keeps the rows of conditioning from step to step.

    Raises:
        ValueError: conditioning has neither one row nor B.
    """
    batch, latents, conds = len(z_BChw), [z_BChw] * len(rows), [cond_BLD for cond_BLD, _ in rows]
    edits: dict[str, See] = {}
    lockstep = source_BLD is not None and len(places) > 0
    if source_BLD is not None and lockstep:
        latents, conds = [captured[LATENTS].to(z_BChw), *latents], [source_BLD, *conds]
        edits = {place: partial(share_source, batch=batch) for place in places}
    elif places:
        edits = {place: partial(_replay, captured[place]) for place in places}
    if image is not None:
        edits |= image.edits(taps, batch, int(lockstep), len(rows))
    embeds_RLD = (stack or RowStack(denoiser.dtype)).rows(conds, batch)
    with taps.replace(edits):
        output_RChw = denoiser.predict(torch.cat(latents), timestep, embeds_RLD)
    output_BChw = guided(output_RChw.split(batch)[int(lockstep) :], [weight for _, weight in rows])
    return denoiser.to_epsilon(output_BChw, z_BChw, timestep)


def guided(outputs: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Σ w·ε of `Prompts.rows`, in classifier-free guidance's own order of operations: base + s·(ε_c - base)."""
    *others, cond = outputs
    scale = weights[-1]
    if not others:
        return cond
    base = others[0]
    if len(others) > 1:
        base = torch.stack([w / (1 - scale) * eps for w, eps in zip(weights, others, strict=False)]).sum(0)
    return base + scale * (cond - base)


def share_source(value_R: Tensor, batch: int) -> Tensor:
    """Every block of rows becomes the first, which is the source's."""
    source_B = value_R[:batch]
    return source_B.repeat(len(value_R) // batch, *[1] * (value_R.ndim - 1))


def _replay(source_B: Tensor, value_R: Tensor) -> Tensor:
    return source_B.to(value_R.dtype).repeat(len(value_R) // len(source_B), *[1] * (value_R.ndim - 1))


class RowStack:
    """Conditioning of the rows of network calls: each combination that comes up is put together once."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._made: dict[tuple[int, ...], tuple[list[Tensor], Tensor]] = {}

    def rows(self, conds: Sequence[Tensor], batch: int) -> Tensor:
        """B rows of each conditioning, one after the other, (R, L, D).

        Raises:
            ValueError: a conditioning has neither one row nor B.
        """
        key = (batch, *map(id, conds))
        if key not in self._made:
            for cond_BLD in conds:
                if len(cond_BLD) not in (1, batch):
                    raise ValueError(
                        f"text conditioning has {len(cond_BLD)} rows for {batch} latents; give 1 or {batch}"
                    )
            rows_RLD = torch.cat([cond_BLD.expand(batch, -1, -1) for cond_BLD in conds]).to(self._dtype)
            self._made[key] = list(conds), rows_RLD  # with what it is made of: an id counts while its object lives
        return self._made[key][1]
