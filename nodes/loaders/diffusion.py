"""Loaders of a diffusion model's parts."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphflow.errors import GraphflowError, MissingError
from graphflow.models.refs import ModelRef, loader
from graphflow.nodes.loaders.files import (
    TRANSFORMERS_WEIGHTS,
    from_diffusers,
    from_transformers,
    part_folder,
    read_json,
    shared_tower,
    subfolder,
    tokenizer_of,
)

if TYPE_CHECKING:
    import torch

DIFFUSERS_WEIGHTS = "{part}diffusion_pytorch_model[.-][s0]*tensors"
TOKENIZER_OPTION = {"tokenizer": "sub-folder of the repository that holds the tokenizer; left out: the model's folder"}


SPEED_OPTIONS = {
    "compile": "true: torch.compile for the blocks that repeat; the first call takes a minute or more, results differ "
    "by rounding, and methods that look into the denoiser run without it",
    "channels_last": "true: convolutions with the channels innermost, which many GPUs do faster; results differ by "
    "rounding",
}
VAE_OPTIONS = {
    "native_size": "side in pixels of the pictures that the denoiser was trained on; left out: the VAE's sample_size",
    "shift_factor": "of the latents, instead of the VAE's own; 0 for a denoiser that was trained without",
    "channels_last": SPEED_OPTIONS["channels_last"],
}
UNET_FILES = ("{part}config.json", DIFFUSERS_WEIGHTS, "{scheduler}*scheduler_config.json")
SCHEDULER_OPTION = {
    "scheduler": "sub-folder of the repository that holds the scheduler; left out: 'scheduler' beside a part, "
    "otherwise the model's folder"
}


@loader("diffusers.vae", role="vae", files=("{part}config.json", DIFFUSERS_WEIGHTS), options=VAE_OPTIONS)
def load_vae(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """An autoencoder of diffusers, as `nodes.lib.vae.VAE`."""
    from diffusers import AutoencoderKL

    from graphflow.nodes.lib.denoiser import tuned
    from graphflow.nodes.lib.vae import VAE

    part = part_folder(ref, folder)
    model = from_diffusers(AutoencoderKL, part, dtype).to(device)
    try:
        tuned(model, **_speed(ref))
        return VAE(model, native_size=ref.options.get("native_size"), shift_factor=ref.options.get("shift_factor"))
    except (ValueError, TypeError) as error:
        raise GraphflowError(f"{part}: {error}") from error


@loader("diffusers.unet", role="denoiser", files=UNET_FILES, options=SCHEDULER_OPTION | SPEED_OPTIONS)
def load_unet(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """A UNet of diffusers with its noise schedule, as `nodes.lib.denoiser.Denoiser`."""
    from diffusers import UNet2DConditionModel

    from graphflow.nodes.lib.denoiser import Denoiser

    return with_schedule(Denoiser, UNet2DConditionModel, ref, folder, device, dtype)


def _speed(ref: ModelRef) -> dict[str, bool]:
    """Those of `SPEED_OPTIONS` that the preset sets."""
    found = {name: ref.options[name] for name in SPEED_OPTIONS if name in ref.options}
    for name, value in found.items():
        if not isinstance(value, bool):
            raise ValueError(f"{name} of {ref.role} is {value!r}, expected true or false")
    return found


def with_schedule(
    wrapper: Any, cls: Any, ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype
) -> Any:
    """``wrapper(network, scheduler_config)`` for a network of diffusers' class `cls` and the schedule beside it."""
    from graphflow.nodes.lib.denoiser import tuned

    part = part_folder(ref, folder)
    beside = part.parent / "scheduler" if ref.part else part
    schedule = read_json(subfolder(ref, folder, "scheduler", beside) / "scheduler_config.json")
    network = from_diffusers(cls, part, dtype).to(device)
    try:
        return wrapper(tuned(network, **_speed(ref)), schedule)
    except ValueError as error:
        raise GraphflowError(f"{part}: {error}") from error


@loader(
    "transformers.clip_text",
    role="text_encoder",
    files=("{part}config.json", TRANSFORMERS_WEIGHTS, "{tokenizer}*tokenizer_config.json", "{tokenizer}*.[jt][sxi]*"),
    options=TOKENIZER_OPTION,
    keeps=("text_model.",),
)
def load_clip_text(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """A CLIP text encoder, as `nodes.lib.text_encoder.TextEncoder`."""
    from transformers import CLIPTextModel, CLIPTokenizer

    from graphflow.nodes.lib.text_encoder import TextEncoder

    part = part_folder(ref, folder)
    load = partial(from_transformers, CLIPTextModel, part, dtype)
    inside_clip = read_json(part / "config.json").get("model_type") == "clip"
    model = shared_tower(part, dtype, "text_model", load) if inside_clip else load()
    model = model.to(device)
    return TextEncoder(tokenizer_of(CLIPTokenizer, subfolder(ref, folder, "tokenizer", part)), model)


@loader(
    "ip_adapter",
    role="ip_adapter",
    files=("{part}*{file}",),
    options={"file": "name of the safetensors file in the part; left out: its only one"},
)
def load_ip_adapter(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """An IP-Adapter of the base kind in its published format, as `nodes.lib.ip_adapter.IPAdapter`."""
    from safetensors import SafetensorError

    from graphflow.nodes.lib import int8
    from graphflow.nodes.lib.ip_adapter import IPAdapter

    part = part_folder(ref, folder)
    found = sorted(part.glob(str(ref.options.get("file", "*.safetensors"))))
    if len(found) != 1:
        others = ", ".join(path.name for path in found) or "none"
        raise MissingError(f"{part}: expected one file of safetensors with an IP-Adapter, found {others}")
    try:
        return IPAdapter.from_tensors(int8.read(found[0])).to(device, dtype)
    except (OSError, ValueError, SafetensorError) as error:
        raise GraphflowError(f"{found[0]}: {error}") from error
