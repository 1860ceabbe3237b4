"""Loaders of denoisers that follow instructions: they read the picture to edit beside the noisy latents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphflow.errors import GraphflowError
from graphflow.models.refs import ModelRef, loader
from graphflow.nodes.loaders.diffusion import SCHEDULER_OPTION, SPEED_OPTIONS, UNET_FILES, with_schedule
from graphflow.nodes.loaders.files import from_transformers, part_folder, tokenizer_of

if TYPE_CHECKING:
    import torch


@loader("diffusers.instruct_unet", role="instruct_denoiser", files=UNET_FILES, options=SCHEDULER_OPTION | SPEED_OPTIONS)
def load_instruct_unet(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """A UNet of InstructPix2Pix's kind, as `nodes.lib.instruct_pix2pix.InstructDenoiser`."""
    from diffusers import UNet2DConditionModel

    from graphflow.nodes.lib.instruct_pix2pix import InstructDenoiser

    return with_schedule(InstructDenoiser, UNet2DConditionModel, ref, folder, device, dtype)


@loader("diffusers.instruct_sd3", role="instruct_denoiser", files=UNET_FILES, options=SCHEDULER_OPTION)
def load_instruct_sd3(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """A transformer of UltraEdit's kind, as `nodes.lib.ultra_edit.InstructTransformer`."""
    from diffusers import SD3Transformer2DModel

    from graphflow.nodes.lib.ultra_edit import InstructTransformer

    return with_schedule(InstructTransformer, SD3Transformer2DModel, ref, folder, device, dtype)


ENCODERS = ("", "_2", "_3")


@loader(
    "transformers.sd3_text",
    role="text_encoder",
    files=tuple(
        pattern
        for number in ENCODERS
        for pattern in (
            f"text_encoder{number}/config.json",
            f"text_encoder{number}/model[.-][s0]*tensors",
            f"tokenizer{number}/*.[jtm][sxo]*",
        )
    ),
    options={"t5_tokens": "tokens that T5 reads; left out: 77, as UltraEdit"},
)
def load_sd3_text(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """The three text encoders of a Stable Diffusion 3 repository, as `nodes.lib.text_encoder_sd3.SD3TextEncoder`."""
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

    from graphflow.nodes.lib.text_encoder_sd3 import SD3TextEncoder

    root, tokens = part_folder(ref, folder), ref.options.get("t5_tokens", 77)
    if not isinstance(tokens, int) or tokens < 1:
        raise GraphflowError(f"t5_tokens of {ref.role} is {tokens!r}, expected a number of tokens")
    classes = [(CLIPTokenizer, CLIPTextModelWithProjection)] * 2 + [(T5TokenizerFast, T5EncoderModel)]
    found = [
        (
            tokenizer_of(tokenizer, root / f"tokenizer{number}"),
            from_transformers(cls, root / f"text_encoder{number}", dtype).to(device),
        )
        for number, (tokenizer, cls) in zip(ENCODERS, classes, strict=True)
    ]
    return SD3TextEncoder(found[:2], found[2], tokens)
