"""One interface over the noise-predicting UNets of latent diffusion.

Shapes: B batch, C latent channels, h w latent height and width, L text tokens, D width of the text embeddings.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device, without waiting for what the device is busy with."""
    # Only a copy from page-locked memory leaves the host free to go on.
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def tuned(network: torch.nn.Module, *, compile: bool = False, channels_last: bool = False) -> torch.nn.Module:
    """The network, in place, prepared to run faster where that pays; its results then differ by rounding.

    Args:
        network: a UNet or transformer of diffusers, where it will compute.
        compile: `torch.compile` for the blocks that repeat, at their first call. Taps go round it: what is tapped runs
            as written.
        channels_last: convolutions with the channels innermost.

    Raises:
        ValueError: the network names no repeated blocks.
    """
    if channels_last:
        network.to(memory_format=torch.channels_last)
    if compile:
        if not getattr(network, "_repeated_blocks", None):
            raise ValueError(f"{type(network).__name__} names no repeated blocks to compile; leave compile out")
        network.compile_repeated_blocks()
    return network


class Denoiser:
    """A text-conditioned UNet together with the noise schedule that it was trained on.

    The schedule is a table only: nothing here depends on earlier calls, so that threads may share a denoiser.

    Attributes:
        unet: the network, in evaluation mode and frozen. Gradients reach its inputs, never its weights.
        dtype: the floating-point type of its weights.
        prediction_type: what the network was trained to predict, ``epsilon`` or ``v_prediction``.
        alphas_cumprod: ᾱ_t for each training timestep, (T,), float32 on the CPU.
        final_alpha_cumprod: ᾱ of the clean latents, below timestep 0.
    """

    def __init__(self, unet: UNet2DConditionModel, scheduler_config: Mapping[str, Any]) -> None:
        """Freeze the UNet and read the noise schedule.

        Args:
            unet: a `diffusers.UNet2DConditionModel`; it is frozen in place.
            scheduler_config: the ``scheduler_config.json`` of the model, of whichever scheduler class.

        Raises:
            ValueError: the schedule asks for a prediction type, a clipping or a zero terminal signal-to-noise ratio
                that formulas in epsilon can't express.
        """
        # Absent, clip_sample means True to DDIMScheduler: right for pixels in [-1, 1], wrong for latents.
        scheduler = DDIMScheduler.from_config({"clip_sample": False, **scheduler_config})
        config = scheduler.config
        if config.prediction_type not in ("epsilon", "v_prediction"):
            raise ValueError(f"prediction_type is '{config.prediction_type}'; supported: epsilon, v_prediction")
        for name in ("clip_sample", "thresholding", "rescale_betas_zero_snr"):
            if config[name]:
                raise ValueError(f"scheduler config has {name}=true; latents are sampled with {name}=false only")
        self.unet = unet.eval().requires_grad_(False)
        self.dtype = unet.dtype
        self.prediction_type: str = config.prediction_type
        self.alphas_cumprod: Tensor = scheduler.alphas_cumprod
        self.final_alpha_cumprod: Tensor = scheduler.final_alpha_cumprod
        self._scheduler = scheduler

    def predict(self, latents_BChw: Tensor, timestep: int | Tensor, embeds_BLD: Tensor) -> Tensor:
        """The network's output, ε or v by `prediction_type`, in the latents' dtype, (B, C, h, w).

        Args:
            latents_BChw: noisy latents.
            timestep: where they lie; or of each row, (B,), int64 on the device.
            embeds_BLD: conditioning.
        """
        t_B = timestep if isinstance(timestep, Tensor) else self.rows_at(latents_BChw, timestep)
        output_BChw: Tensor = self.unet(
            latents_BChw.to(self.dtype), t_B, encoder_hidden_states=embeds_BLD.to(self.dtype), return_dict=False
        )[0]
        return output_BChw.to(latents_BChw.dtype)

    def rows_at(self, latents_BChw: Tensor, timestep: int) -> Tensor:
        """The timestep for each row, (B,), int64, where the latents are."""
        # Filling on the device needs no copy from the host, which a tensor made from the number would.
        return torch.full((len(latents_BChw),), timestep, dtype=torch.long, device=latents_BChw.device)

    def to_epsilon(self, output_BChw: Tensor, latents_BChw: Tensor, timestep: int) -> Tensor:
        """The predicted noise ε that an output of `predict` means, (B, C, h, w).

        ε = √ᾱ_t·v + √(1-ᾱ_t)·z for a v-prediction (Salimans & Ho 2022, appendix D), at the timestep that the network
        was told. (diffusers' `DDIMInverseScheduler` takes ᾱ where the latents lie instead.)
        """
        if self.prediction_type == "epsilon":
            return output_BChw
        alpha = self.alphas_cumprod[timestep]
        return alpha**0.5 * output_BChw + (1 - alpha) ** 0.5 * latents_BChw

    def alpha_cumprod(self, timestep: int) -> Tensor:
        """ᾱ at a timestep; a negative timestep means the clean latents."""
        return self.alphas_cumprod[timestep] if timestep >= 0 else self.final_alpha_cumprod

    def step_size(self, num_inference_steps: int) -> int:
        """Δ = T // N, the distance between two sampling timesteps."""
        return len(self.alphas_cumprod) // num_inference_steps

    def timesteps(self, num_inference_steps: int) -> Tensor:
        """The sampling timesteps of diffusers' `DDIMScheduler`, descending, (N,), int64 on the CPU.

        Raises:
            ValueError: there are not that many timesteps. Under Stable Diffusion's ``steps_offset: 1``, 1000 steps
                would begin at timestep 1000 of a table that ends at 999; 999 steps are the most.
        """
        size = len(self.alphas_cumprod)
        if not 1 <= num_inference_steps <= size:
            raise ValueError(f"num_inference_steps is {num_inference_steps}; choose 1 to {size - 1}")
        scheduler = copy.copy(self._scheduler)  # set_timesteps writes attributes; a copy keeps calls independent
        scheduler.set_timesteps(num_inference_steps)
        timesteps: Tensor = scheduler.timesteps
        if timesteps[0] >= size:
            raise ValueError(
                f"num_inference_steps is {num_inference_steps}, so that sampling would begin at timestep "
                f"{int(timesteps[0])}, beyond the last trained timestep {size - 1}; choose 1 to {size - 1}"
            )
        return timesteps
