"""The noise that denoisers learn to predict: its schedule, and the loss.

Shapes: B batch, T tokens, D text width, chw latents.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from .loop import Step


@dataclass(frozen=True)
class Teacher:
    """Another denoiser that knows more: its prediction varies less than the noise does (Hinton et al. 2015)."""

    predict: Callable[[Tensor, Tensor], Tensor]  # ε from noisy latents (B, c, h, w) and timesteps (B)
    share: float  # of its prediction in the target; the rest is the noise itself


def new_scheduler() -> DDIMScheduler:
    """The noise schedule of Stable Diffusion 1 (Rombach et al. 2022), ε-prediction."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="leading",
    )


def denoising_loss(
    model: Callable[[Tensor, Tensor, Tensor], Any],
    scheduler: DDIMScheduler,
    step: Step,
    z_Bchw: Tensor,
    c_BTD: Tensor,
    beside_Bchw: Tensor | None = None,
    teacher: Teacher | None = None,
) -> Tensor:
    """The min-SNR-5 loss of the noise that `model` predicts from noisy latents, timesteps and text.

    `beside_Bchw` joins the noisy latents as channels. With a `teacher` the target is a mix.
    """
    t_B = stratified_timesteps(len(z_Bchw), len(scheduler.alphas_cumprod), step.torch_rng)
    eps_Bchw = torch.randn(z_Bchw.shape, generator=step.torch_rng)
    alpha_B = scheduler.alphas_cumprod[t_B]
    alpha_B111 = alpha_B[:, None, None, None]
    noisy_Bchw = alpha_B111.sqrt() * z_Bchw + (1 - alpha_B111).sqrt() * eps_Bchw
    seen_Bchw = noisy_Bchw if beside_Bchw is None else torch.cat([noisy_Bchw, beside_Bchw], dim=1)
    seen_Bchw = seen_Bchw.to(step.device, memory_format=torch.channels_last)
    target_Bchw, t_B = eps_Bchw.to(step.device), t_B.to(step.device)
    if teacher is not None:
        with torch.no_grad():
            target_Bchw = target_Bchw.lerp(teacher.predict(seen_Bchw, t_B).float(), teacher.share)
    predicted_Bchw = model(seen_Bchw, t_B, c_BTD.to(step.device)).sample.float()
    error_B = (predicted_Bchw - target_Bchw).square().mean(dim=(1, 2, 3))
    return (min_snr_weights(alpha_B).to(step.device) * error_B).mean()


def stratified_timesteps(count: int, train_timesteps: int, generator: torch.Generator) -> Tensor:
    """One timestep from each of `count` equal parts of the schedule, in random order: less variance than drawing."""
    offsets = torch.rand(count, generator=generator)
    parts = torch.randperm(count, generator=generator)
    return ((parts + offsets) / count * train_timesteps).long().clamp(max=train_timesteps - 1)


def min_snr_weights(alpha_B: Tensor, gamma: float = 5.0) -> Tensor:
    """min(SNR, γ) / SNR: the weights of the ε-loss in Hang et al. 2023, equation 8."""
    snr_B = alpha_B / (1 - alpha_B)
    return snr_B.clamp(max=gamma) / snr_B
