"""InstructPix2Pix: editing by instructions with a denoiser that sees the picture (Brooks et al., CVPR 2023).

Symbols of the paper: z_t noisy latents, ε predicted noise, c_I the picture to edit, c_T the instruction, ∅ their
absence, s_I and s_T the two guidance scales.
Shapes: B batch, C latent channels, c channels of what is read beside them, h w latent height and width, L text tokens,
D width of the text embeddings, E that of the pooled ones; G = 3·B rows under guidance (both conditions first, then the
picture alone, then neither), or B.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler, UNet2DConditionModel
from PIL import Image, ImageOps
from torch import Tensor

from .ddim import OnStep
from .denoiser import Denoiser
from .fit import LANCZOS
from .vae import VAE, to_pixels

Sampler = Literal["auto", "euler_ancestral", "ddim"]
Steps = Callable[[list[int]], Iterable[int]]
"""Wraps the numbers of the steps: the place for a progress bar, or to stop the loop by raising."""


class InstructModel(Protocol):
    """What `instruct_sample` asks of a denoiser that follows instructions.

    Attributes:
        channels: C.
        dtype: the floating-point type of its weights.
    """

    channels: int
    dtype: torch.dtype

    def condition(self, vae: VAE, image: Image.Image, mask: Image.Image | None) -> Tensor:
        """What the network reads of a picture beside the noisy latents, (1, c, h, w)."""

    def predict_edit(
        self, latents_GChw: Tensor, image_Gchw: Tensor, timestep: Tensor, embeds_GLD: Tensor, pooled_GE: Tensor | None
    ) -> Tensor:
        """The network's output, (G, C, h, w)."""

    def sampler(self, name: Sampler, num_inference_steps: int) -> Any:
        """A new scheduler of diffusers, set to that many steps."""


class InstructDenoiser(Denoiser):
    """A UNet whose input is noisy latents and, in as many further channels, the latents of the picture to edit.

    Attributes:
        channels: C, half of what the network reads.
        scheduler_config: the noise schedule as the checkpoint has it, for samplers of diffusers.
    """

    def __init__(self, unet: UNet2DConditionModel, scheduler_config: Mapping[str, Any]) -> None:
        """Freeze the UNet and read the noise schedule; see `Denoiser`.

        Raises:
            ValueError: the UNet has no room for a picture beside the latents, or as `Denoiser`.
        """
        reads, writes = unet.config.in_channels, unet.config.out_channels
        if reads != 2 * writes:
            raise ValueError(f"the UNet reads {reads} channels, expected {2 * writes}: latents and a picture's latents")
        super().__init__(unet, scheduler_config)
        self.channels: int = writes
        self.scheduler_config = dict(scheduler_config)

    def condition(self, vae: VAE, image: Image.Image, mask: Image.Image | None = None) -> Tensor:
        """Unscaled mode of the picture's latents, (1, C, h, w).

        Raises:
            ValueError: there is a mask, which such a model does not read.
        """
        if mask is not None:
            raise ValueError("this model reads no mask; leave it out, or take a model that does, such as UltraEdit")
        return vae.encode_unscaled(to_pixels([image]))

    def predict_edit(
        self,
        latents_GChw: Tensor,
        image_GChw: Tensor,
        timestep: float | Tensor,
        embeds_GLD: Tensor,
        pooled_GE: Tensor | None = None,
    ) -> Tensor:
        """The network's output, ε or v by `prediction_type`, in the latents' dtype, (G, C, h, w).

        Args:
            latents_GChw: z_t, in the scale of ᾱ.
            image_GChw: unscaled latents of the picture to edit, zeros for none.
            timestep: may lie between two trained ones, as Euler's do.
            embeds_GLD: conditioning of the instruction.
            pooled_GE: not read.
        """
        seen = torch.cat([latents_GChw.to(self.dtype), image_GChw.to(self.dtype)], dim=1)
        t_G = torch.full((len(seen),), float(timestep), device=seen.device)
        output: Tensor = self.unet(seen, t_G, encoder_hidden_states=embeds_GLD.to(self.dtype), return_dict=False)[0]
        return output.to(latents_GChw.dtype)

    def sampler(self, name: Sampler, num_inference_steps: int) -> Any:
        """A new scheduler of diffusers, set to that many steps; auto is the authors' Euler ancestral.

        Raises:
            ValueError: there are not that many timesteps.
        """
        cls = DDIMScheduler if name == "ddim" else EulerAncestralDiscreteScheduler
        # Not from_config: it logs a warning for each setting of the checkpoint's own class that this one lacks.
        config = {"clip_sample": False, **self.scheduler_config}
        scheduler = cls(**{name: config[name] for name in inspect.signature(cls).parameters if name in config})
        size = len(self.alphas_cumprod)
        if not 1 <= num_inference_steps <= size:
            raise ValueError(f"num_inference_steps is {num_inference_steps}; choose 1 to {size - 1}")
        scheduler.set_timesteps(num_inference_steps)
        if scheduler.timesteps[0] > size - 1:
            raise ValueError(
                f"num_inference_steps is {num_inference_steps}, so that sampling would begin at timestep "
                f"{int(scheduler.timesteps[0])}, beyond the last trained timestep {size - 1}; choose 1 to {size - 1}"
            )
        return scheduler


def dual_guidance(output_GChw: Tensor, guidance_scale: float, image_guidance_scale: float) -> Tensor:
    """ε̃ = ε(∅,∅) + s_T·[ε(c_I,c_T) - ε(c_I,∅)] + s_I·[ε(c_I,∅) - ε(∅,∅)] (eq. 3), (B, C, h, w).

    The weights of the three predictions sum to one, so guidance of ε, of v and of the clean latents are the same.

    Args:
        output_GChw: the three predictions stacked, in the order of the module's docstring.
        guidance_scale: s_T.
        image_guidance_scale: s_I.
    """
    both_BChw, image_BChw, none_BChw = output_GChw.chunk(3)
    return none_BChw + guidance_scale * (both_BChw - image_BChw) + image_guidance_scale * (image_BChw - none_BChw)


def picture_rows(image_Bchw: Tensor, guided: bool = True) -> Tensor:
    """What one network call sees of the pictures, (G, c, h, w): zeros where it sees none."""
    return torch.cat([image_Bchw, image_Bchw, torch.zeros_like(image_Bchw)]) if guided else image_Bchw


def text_rows(batch: int, cond: Tensor, negative: Tensor, guided: bool = True) -> Tensor:
    """What one network call reads, (G, …), from the conditioning of the instruction and that of the empty prompt.

    Args:
        batch: B.
        cond: (B, …), or one row that serves all.
        negative: likewise.
        guided: False for the first B rows only.

    Raises:
        ValueError: the number of rows is neither 1 nor B.
    """
    for block in (cond, negative):
        if len(block) not in (1, batch):
            raise ValueError(f"text conditioning has {len(block)} rows for {batch} pictures; give 1 or {batch}")
    blocks = (cond, negative, negative) if guided else (cond,)
    return torch.cat([block.expand(batch, *block.shape[1:]) for block in blocks])


def draw_noises(
    count: int, shape: Sequence[int], generator: torch.Generator | Sequence[torch.Generator], device: torch.device
) -> Tensor:
    """Noise for the beginning and for each ancestral step, drawn in that order, (count, B, C, h, w), on the device.

    One copy for all of them: a copy at each step would stop the device every time.

    Args:
        count: how often each generator draws.
        shape: (B, C, h, w).
        generator: one CPU generator that draws for the whole batch, or one for each picture, so that a picture's
            noise does not depend on the others.

    Raises:
        ValueError: the number of generators is not B.
    """
    if isinstance(generator, torch.Generator):
        return torch.stack([torch.randn(*shape, generator=generator) for _ in range(count)]).to(device)
    if len(generator) != shape[0]:
        raise ValueError(f"got {len(generator)} generators for {shape[0]} pictures")
    alone = [draw_noises(count, (1, *shape[1:]), one, torch.device("cpu")) for one in generator]
    return torch.cat(alone, dim=1).to(device)


def euler_ancestral_step(
    z_BChw: Tensor, output_BChw: Tensor, sigma_from: Tensor, sigma_to: Tensor, noise_BChw: Tensor, prediction_type: str
) -> Tensor:
    """An ancestral Euler step in the scale of σ (Karras et al. 2022; k-diffusion's sample_euler_ancestral).

    The operations and their order are those of diffusers' scheduler, which draws the noise itself, on the host.

    Args:
        z_BChw: z = x + σ·ε.
        output_BChw: what the network predicted, ε or v.
        sigma_from: where z lies.
        sigma_to: where it shall lie; 0 at the end.
        noise_BChw: what is added anew.
        prediction_type: ``epsilon`` or ``v_prediction``.
    """
    if prediction_type == "epsilon":
        x_BChw = z_BChw - sigma_from * output_BChw
    else:
        x_BChw = output_BChw * (-sigma_from / (sigma_from**2 + 1) ** 0.5) + z_BChw / (sigma_from**2 + 1)
    sigma_up = (sigma_to**2 * (sigma_from**2 - sigma_to**2) / sigma_from**2) ** 0.5
    sigma_down = (sigma_to**2 - sigma_up**2) ** 0.5
    derivative_BChw = (z_BChw - x_BChw) / sigma_from
    return z_BChw + derivative_BChw * (sigma_down - sigma_from) + noise_BChw * sigma_up


@torch.no_grad()
def instruct_sample(
    model: InstructModel,
    image_Bchw: Tensor,
    cond_BLD: Tensor,
    negative_BLD: Tensor,
    generator: torch.Generator | Sequence[torch.Generator],
    num_inference_steps: int = 100,
    *,
    pooled: tuple[Tensor, Tensor] | None = None,
    guidance_scale: float = 7.5,
    image_guidance_scale: float = 1.5,
    sampler: Sampler = "auto",
    steps: Steps = iter,
    on_step: OnStep | None = None,
) -> Tensor:
    """Edit pictures as the instructions say: denoise from pure noise under both guidances, (B, C, h, w), scaled.

    Random numbers are drawn in the order of diffusers' `StableDiffusionInstructPix2PixPipeline`, so that one seed
    gives one picture in both. Where s_T = s_I = 1 the guidance is ε(c_I, c_T), and one row is computed instead of
    three; the pipeline leaves guidance out as soon as s_T ≤ 1 or s_I < 1, which is another picture than eq. 3 gives.

    Args:
        model: the denoiser.
        image_Bchw: what it reads of the pictures to edit, from its `condition`.
        cond_BLD: conditioning of the instruction, of B rows or one.
        negative_BLD: the empty prompt's, of B rows or one.
        generator: see `draw_noises`; for the first noise and that of ancestral steps.
        num_inference_steps: N.
        pooled: pooled embeddings of the instruction and of the empty prompt, for families that need them.
        guidance_scale: s_T.
        image_guidance_scale: s_I.
        sampler: auto is what the model was published with; ddim is deterministic after the first noise.
        steps: see `Steps`.
        on_step: see `OnStep`.

    Raises:
        ValueError: the number of steps is out of range, or the numbers of rows don't fit.
    """
    scheduler, batch = model.sampler(sampler, num_inference_steps), len(image_Bchw)
    ancestral = isinstance(scheduler, EulerAncestralDiscreteScheduler)
    guided = (guidance_scale, image_guidance_scale) != (1, 1)
    images_Gchw = picture_rows(image_Bchw, guided).to(model.dtype)
    embeds_GLD = text_rows(batch, cond_BLD, negative_BLD, guided).to(model.dtype)
    pooled_GE = None if pooled is None else text_rows(batch, *pooled, guided).to(model.dtype)
    shape = (batch, model.channels, *image_Bchw.shape[2:])
    first_BChw, *noises = draw_noises(1 + ancestral * num_inference_steps, shape, generator, image_Bchw.device)
    z_BChw = first_BChw * getattr(scheduler, "init_noise_sigma", 1.0)
    for number in steps(list(range(num_inference_steps))):
        timestep = scheduler.timesteps[number]
        x_BChw = z_BChw / (scheduler.sigmas[number] ** 2 + 1) ** 0.5 if ancestral else z_BChw
        x_GChw = torch.cat([x_BChw] * 3) if guided else x_BChw
        with torch.inference_mode():
            output_BChw = model.predict_edit(x_GChw, images_Gchw, timestep, embeds_GLD, pooled_GE)
            if guided:
                output_BChw = dual_guidance(output_BChw, guidance_scale, image_guidance_scale)
        if ancestral:
            sigmas, kind = scheduler.sigmas[number : number + 2].unbind(), scheduler.config.prediction_type
            z_BChw = euler_ancestral_step(z_BChw, output_BChw, *sigmas, noises[number], kind)
        else:
            z_BChw = scheduler.step(output_BChw, timestep, z_BChw, return_dict=False)[0]
        if on_step is not None:
            on_step(z_BChw / (scheduler.sigmas[number + 1] ** 2 + 1) ** 0.5 if ancestral else z_BChw)
    return z_BChw


def edit_size(width: int, height: int, resolution: int, multiple: int = 64) -> tuple[int, int]:
    """Width and height at which a picture is edited: as its authors' command line has it.

    The longer side becomes about `resolution`, and both sides multiples of `multiple`: the picture is scaled so that
    the shorter side is one, upwards, and the longer side is then rounded down.

    Raises:
        ValueError: the picture is so long and narrow that it would become longer than four times `resolution`.
    """
    short = min(width, height)
    factor = math.ceil(short * resolution / max(width, height) / multiple) * multiple / short
    if max(width, height) * factor > 4 * resolution:
        raise ValueError(f"the picture is {width} × {height} pixels, too long and narrow to be edited; crop it first")
    # The product of the shorter side may lie a rounding error below its multiple, and the authors' floor a step lower.
    to = [int(length * factor + 1e-6) // multiple * multiple for length in (width, height)]
    return to[0], to[1]


def fit_for_edit(image: Image.Image, resolution: int, multiple: int = 64) -> Image.Image:
    """The picture in the size of `edit_size`, RGB, resampled with Lanczos; what sticks out is cut off evenly."""
    size = edit_size(*image.size, resolution, multiple)
    return image.convert("RGB") if image.size == size else ImageOps.fit(image.convert("RGB"), size, LANCZOS)
