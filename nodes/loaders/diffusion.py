"""Loaders of a diffusion model's parts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphflow.errors import GraphflowError
from graphflow.models.refs import ModelRef, loader
from graphflow.nodes.loaders.files import (
    TRANSFORMERS_WEIGHTS,
    from_diffusers,
    from_transformers,
    part_folder,
    read_json,
    subfolder,
    tokenizer_of,
)

if TYPE_CHECKING:
    import torch

DIFFUSERS_WEIGHTS = "{part}diffusion_pytorch_model[.-][s0]*tensors"
TOKENIZER_OPTION = {"tokenizer": "sub-folder of the repository that holds the tokenizer; left out: the model's folder"}


@loader("diffusers.vae", role="vae", files=("{part}config.json", DIFFUSERS_WEIGHTS))
def load_vae(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """An autoencoder of diffusers, as `nodes.lib.vae.VAE`."""
    from diffusers import AutoencoderKL

    from graphflow.nodes.lib.vae import VAE

    return VAE(from_diffusers(AutoencoderKL, part_folder(ref, folder), dtype).to(device))


@loader(
    "diffusers.unet",
    role="denoiser",
    files=("{part}config.json", DIFFUSERS_WEIGHTS, "{scheduler}*scheduler_config.json"),
    options={
        "scheduler": "sub-folder of the repository that holds the scheduler; left out: 'scheduler' beside a part, "
        "otherwise the model's folder"
    },
)
def load_unet(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """A UNet of diffusers with its noise schedule, as `nodes.lib.denoiser.Denoiser`."""
    from diffusers import UNet2DConditionModel

    from graphflow.nodes.lib.denoiser import Denoiser

    part = part_folder(ref, folder)
    beside = part.parent / "scheduler" if ref.part else part
    schedule = read_json(subfolder(ref, folder, "scheduler", beside) / "scheduler_config.json")
    unet = from_diffusers(UNet2DConditionModel, part, dtype).to(device)
    try:
        return Denoiser(unet, schedule)
    except ValueError as error:
        raise GraphflowError(f"{part}: {error}") from error


@loader(
    "transformers.clip_text",
    role="text_encoder",
    files=("{part}config.json", TRANSFORMERS_WEIGHTS, "{tokenizer}*tokenizer_config.json", "{tokenizer}*.[jt][sxi]*"),
    options=TOKENIZER_OPTION,
)
def load_clip_text(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """A CLIP text encoder, as `nodes.lib.text_encoder.TextEncoder`."""
    from transformers import CLIPTextModel, CLIPTokenizer

    from graphflow.nodes.lib.text_encoder import TextEncoder

    part = part_folder(ref, folder)
    model = from_transformers(CLIPTextModel, part, dtype).to(device)
    return TextEncoder(tokenizer_of(CLIPTokenizer, subfolder(ref, folder, "tokenizer", part)), model)
