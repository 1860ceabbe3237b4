"""UltraEdit: Stable Diffusion 3 that follows instructions (Zhao et al., NeurIPS 2024), free-form or inside a mask.

Shapes: B batch, C latent channels, c channels of what is read beside them, h w latent height and width, L text tokens,
D width of the text embeddings, E that of the pooled ones; G = 3·B rows under guidance, or B.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from PIL import Image, ImageOps
from torch import Tensor

from .instruct_pix2pix import Sampler
from .vae import VAE, to_pixels


class InstructTransformer:
    """A transformer of Stable Diffusion 3 whose input has further channels, for a picture and perhaps for a mask.

    The velocity that it predicts is integrated by Euler steps. Its authors shift no latents: bind the VAE with
    ``shift_factor: 0``.

    Attributes:
        transformer: the network, in evaluation mode and frozen.
        channels: C.
        reads_mask: whether the latents of a mask follow those of the picture.
        dtype: the floating-point type of its weights.
        scheduler_config: the checkpoint's.
    """

    def __init__(self, transformer: SD3Transformer2DModel, scheduler_config: Mapping[str, Any]) -> None:
        """Freeze the transformer.

        Raises:
            ValueError: it has no room for a picture beside the latents.
        """
        reads, writes = transformer.config.in_channels, transformer.config.out_channels
        if reads not in (2 * writes, 3 * writes):
            raise ValueError(
                f"the transformer reads {reads} channels, expected {2 * writes}, or {3 * writes} for a mask"
            )
        self.transformer = transformer.eval().requires_grad_(False)
        self.channels: int = writes
        self.reads_mask = reads == 3 * writes
        self.dtype = transformer.dtype
        self.scheduler_config = dict(scheduler_config)

    def condition(self, vae: VAE, image: Image.Image, mask: Image.Image | None = None) -> Tensor:
        """Unscaled mode of the latents of the picture, and of the mask as a picture, (1, c, h, w).

        White marks where to edit; without a mask that is everywhere. A mask of another size is fitted as
        its picture was, which `fit_for_edit` cuts evenly where the proportions differ.

        Raises:
            ValueError: there is a mask that this model does not read.
        """
        if not self.reads_mask:
            if mask is not None:
                raise ValueError("this checkpoint of UltraEdit reads no mask; leave it out")
            return vae.encode_unscaled(to_pixels([image]))
        if mask is None:
            mask = Image.new("L", image.size, 255)
        mask = ImageOps.fit(mask, image.size, Image.Resampling.NEAREST)
        return torch.cat([vae.encode_unscaled(to_pixels([picture])) for picture in (image, mask)], dim=1)

    def predict_edit(
        self,
        latents_GChw: Tensor,
        image_Gchw: Tensor,
        timestep: Tensor,
        embeds_GLD: Tensor,
        pooled_GE: Tensor | None = None,
    ) -> Tensor:
        """The predicted velocity, in the latents' dtype, (G, C, h, w).

        Raises:
            ValueError: the pooled embeddings are missing.
        """
        if pooled_GE is None:
            raise ValueError("Stable Diffusion 3 needs pooled text embeddings; bind its own text encoders")
        seen = torch.cat([latents_GChw.to(self.dtype), image_Gchw.to(self.dtype)], dim=1)
        # Filling on the device needs no copy from the host, where schedulers keep their timesteps.
        t_G = torch.full((len(seen),), float(timestep), dtype=timestep.dtype, device=seen.device)
        output: Tensor = self.transformer(
            hidden_states=seen,
            timestep=t_G,
            encoder_hidden_states=embeds_GLD.to(self.dtype),
            pooled_projections=pooled_GE.to(self.dtype),
            return_dict=False,
        )[0]
        return output.to(latents_GChw.dtype)

    def sampler(self, name: Sampler, num_inference_steps: int) -> Any:
        """A new scheduler of diffusers, set to that many steps.

        Raises:
            ValueError: it is not for a model of velocities.
        """
        if name != "auto":
            raise ValueError(f"sampler '{name}' is for models that predict noise; UltraEdit takes auto")
        cls, config = FlowMatchEulerDiscreteScheduler, self.scheduler_config
        scheduler = cls(**{key: config[key] for key in inspect.signature(cls).parameters if key in config})
        scheduler.set_timesteps(num_inference_steps)
        return scheduler
