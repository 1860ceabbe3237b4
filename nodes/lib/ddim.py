"""DDIM sampling and inversion with classifier-free guidance.

Symbols of the papers: z_t latents at timestep t, ε predicted noise, ᾱ_t (`alpha`) the cumulative product of the
schedule, s the guidance scale, N the number of steps, Δ = T // N.
Shapes: B batch, C latent channels, h w latent height and width, L text tokens, D width of the text embeddings,
S levels of a trajectory; G = B rows, or 2·B under guidance (negative rows first).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor

from .denoiser import Denoiser

Steps = Callable[[list[int]], Iterable[int]]
"""Wraps the timesteps of a loop: the place for a progress bar, or to stop the loop by raising."""

OnStep = Callable[[Tensor], object]
"""Sees the latents after each step, (B, C, h, w)."""

Convention = Literal["diffusers", "pix2pix_zero"]


def ddim_step(z_BChw: Tensor, eps_BChw: Tensor, alpha_from: Tensor, alpha_to: Tensor) -> Tensor:
    """Move latents from one noise level to another along the predicted noise, (B, C, h, w).

    Deterministic DDIM (Song et al. 2021, eq. 12 with σ = 0); towards more noise it is an inversion step.
    The operations and their order are those of diffusers' schedulers, so that results agree bit for bit.
    """
    z0_BChw = (z_BChw - (1 - alpha_from) ** 0.5 * eps_BChw) / alpha_from**0.5
    return alpha_to**0.5 * z0_BChw + (1 - alpha_to) ** 0.5 * eps_BChw


def guidance_rows(
    batch: int, cond_BLD: Tensor, negative_BLD: Tensor | None = None, direction_BLD: Tensor | None = None
) -> Tensor:
    """Text conditioning of one network call, (G, L, D): the conditional rows, after the negative ones if given.

    Args:
        batch: number of latents, B; a conditioning of one row serves them all.
        cond_BLD: conditioning, of B rows or one.
        negative_BLD: negative prompt, of B rows or one; None for a call without guidance.
        direction_BLD: edit direction that is added to the conditional rows only, for each latent or (L, D) for all
            (pix2pix-zero, section 3.1).

    Raises:
        ValueError: the number of rows is neither 1 nor B.
    """
    if direction_BLD is not None:
        cond_BLD = cond_BLD + direction_BLD
    blocks = [cond_BLD] if negative_BLD is None else [negative_BLD, cond_BLD]
    for block in blocks:
        if len(block) not in (1, batch):
            raise ValueError(f"text conditioning has {len(block)} rows for {batch} latents; give 1 or {batch}")
    return torch.cat([block.expand(batch, -1, -1) for block in blocks])


@torch.inference_mode()
def guided_epsilon(
    denoiser: Denoiser, z_BChw: Tensor, timestep: int, embeds_GLD: Tensor, guidance_scale: float
) -> Tensor:
    """Predicted noise under classifier-free guidance, both halves in one network call, (B, C, h, w).

    Without negative rows (G = B) it is the plain prediction.
    """
    if len(embeds_GLD) == len(z_BChw):
        output_BChw = denoiser.predict(z_BChw, timestep, embeds_GLD)
    else:
        output_GChw = denoiser.predict(torch.cat([z_BChw, z_BChw]), timestep, embeds_GLD)
        output_BChw = classifier_free_guidance(output_GChw, guidance_scale)
    return denoiser.to_epsilon(output_BChw, z_BChw, timestep)


def classifier_free_guidance(output_GChw: Tensor, guidance_scale: float) -> Tensor:
    """ε̃ = ε_∅ + s·(ε_c - ε_∅) from stacked halves, negative rows first (Ho & Salimans 2022, in Imagen's notation)."""
    uncond_BChw, cond_BChw = output_GChw.chunk(2)
    return uncond_BChw + guidance_scale * (cond_BChw - uncond_BChw)


@torch.no_grad()
def ddim_inversion(
    denoiser: Denoiser,
    latents_BChw: Tensor,
    cond_BLD: Tensor,
    num_inference_steps: int = 50,
    *,
    convention: Convention = "diffusers",
    guidance_scale: float = 1.0,
    negative_BLD: Tensor | None = None,
    regularise: Callable[[Tensor], Tensor] | None = None,
    steps: Steps = iter,
    on_step: OnStep | None = None,
) -> tuple[list[int], Tensor]:
    """Invert clean latents to noise by running DDIM backwards (Song et al. 2021, section 4.3; pix2pix-zero, eq. 1).

    Two conventions are in use and give different noise. With the sampling timesteps t_1 < … < t_N:

    diffusers: as `DDIMInverseScheduler`, prompt-to-prompt and plug-and-play do. N calls; to reach t_i from t_i - Δ the
        network is asked at t_i.
    pix2pix_zero: as the authors' code of pix2pix-zero does. N - 2 calls, at t_2 … t_{N-1}; each maps ᾱ[t-1] to
        ᾱ[t+Δ-1], so that the clean latents count as if they lay at t_2 - 1 already.

    Args:
        denoiser: the model to invert under.
        latents_BChw: clean latents, scaled.
        cond_BLD: conditioning of the caption, of B rows or one.
        num_inference_steps: N; later sampling must use the same number.
        convention: which of the two above.
        guidance_scale: s; 1 for a single row a latent.
        negative_BLD: negative prompt; needed unless s = 1.
        regularise: maps the predicted noise of every step to the noise that is used.
        steps: see `Steps`.
        on_step: see `OnStep`.

    Returns:
        The timesteps at which the latents lie, ascending, the clean ones as -1, and the latents of each,
        (S, B, C, h, w). The last are the inverted noise.

    Raises:
        ValueError: the number of steps is out of range, or guidance lacks a negative prompt.
    """
    if guidance_scale != 1 and negative_BLD is None:
        raise ValueError(f"inversion with guidance_scale={guidance_scale} needs a negative prompt")
    moves = _inversion_moves(denoiser, num_inference_steps, convention)
    embeds_GLD = guidance_rows(len(latents_BChw), cond_BLD, negative_BLD if guidance_scale != 1 else None)
    embeds_GLD = embeds_GLD.to(denoiser.dtype)
    trajectory_SBChw = latents_BChw.new_empty(len(moves) + 1, *latents_BChw.shape)
    trajectory_SBChw[0] = latents_BChw
    z_BChw = latents_BChw
    for level, timestep in enumerate(steps(list(moves)), start=1):
        level_from, level_to = moves[timestep]
        eps_BChw = guided_epsilon(denoiser, z_BChw, timestep, embeds_GLD, guidance_scale)
        if regularise is not None:
            eps_BChw = regularise(eps_BChw)
        z_BChw = ddim_step(z_BChw, eps_BChw, denoiser.alpha_cumprod(level_from), denoiser.alpha_cumprod(level_to))
        trajectory_SBChw[level] = z_BChw
        if on_step is not None:
            on_step(z_BChw)
    return [-1, *(level_to for _, level_to in moves.values())], trajectory_SBChw


def _inversion_moves(
    denoiser: Denoiser, num_inference_steps: int, convention: Convention
) -> dict[int, tuple[int, int]]:
    """Timestep of each network call → the levels that it moves between."""
    timesteps = denoiser.timesteps(num_inference_steps).tolist()[::-1]
    delta = denoiser.step_size(num_inference_steps)
    if convention == "diffusers":
        return {t: (t - delta, t) for t in timesteps}
    if num_inference_steps < 3:
        raise ValueError(f"num_inference_steps is {num_inference_steps}; convention pix2pix_zero needs at least 3")
    return {t: (t - 1, t + delta - 1) for t in timesteps[1:-1]}


@torch.no_grad()
def ddim_sample(
    denoiser: Denoiser,
    noise_BChw: Tensor,
    cond_BLD: Tensor,
    num_inference_steps: int = 50,
    *,
    guidance_scale: float = 1.0,
    negative_BLD: Tensor | None = None,
    direction_BLD: Tensor | None = None,
    steps: Steps = iter,
    on_step: OnStep | None = None,
) -> Tensor:
    """Denoise latents with deterministic DDIM (Song et al. 2021, eq. 12 with σ = 0), (B, C, h, w).

    Args:
        denoiser: the model.
        noise_BChw: latents at the first sampling timestep.
        cond_BLD: conditioning of the prompt, of B rows or one.
        num_inference_steps: N.
        guidance_scale: s; 1 for a single row a latent.
        negative_BLD: negative prompt; needed unless s = 1.
        direction_BLD: see `guidance_rows`.
        steps: see `Steps`.
        on_step: see `OnStep`.

    Raises:
        ValueError: the number of steps is out of range, or guidance lacks a negative prompt.
    """
    if guidance_scale != 1 and negative_BLD is None:
        raise ValueError(f"sampling with guidance_scale={guidance_scale} needs a negative prompt")
    embeds_GLD = guidance_rows(
        len(noise_BChw), cond_BLD, negative_BLD if guidance_scale != 1 else None, direction_BLD=direction_BLD
    ).to(denoiser.dtype)
    timesteps = denoiser.timesteps(num_inference_steps).tolist()
    delta = denoiser.step_size(num_inference_steps)
    z_BChw = noise_BChw
    for timestep in steps(timesteps):
        eps_BChw = guided_epsilon(denoiser, z_BChw, timestep, embeds_GLD, guidance_scale)
        z_BChw = ddim_step(z_BChw, eps_BChw, denoiser.alpha_cumprod(timestep), denoiser.alpha_cumprod(timestep - delta))
        if on_step is not None:
            on_step(z_BChw)
    return z_BChw
