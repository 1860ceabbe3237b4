"""Stable Diffusion 1.5 in its own configuration with random weights, which cost what trained ones cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import common  # noqa: F401  before diffusers: it makes a CPU machine's torchvision importable
import diffusers
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from graphflow.nodes.lib.denoiser import Denoiser
from graphflow.nodes.lib.text_encoder import TextEncoder
from graphflow.nodes.lib.vae import VAE

diffusers.logging.set_verbosity_error()  # it warns of each cast that there is nothing to keep in float32

TOKENS = 77
SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


@dataclass(frozen=True)
class Size:
    """Widths of the three networks; their blocks are those of Stable Diffusion 1.5."""

    unet: tuple[int, ...]
    vae: tuple[int, ...]
    width: int
    layers: int
    groups: int = 32
    heads: int = 8


SIZES = {
    "tiny": Size((16, 32, 32, 32), (8, 8, 16, 16), 32, 2, groups=8, heads=4),
    "medium": Size((64, 128, 256, 256), (32, 64, 64, 64), 256, 4),
    "sd15": Size((320, 640, 1280, 1280), (128, 256, 512, 512), 768, 12),
}
"""sd15 has the original's widths: 860, 84 and 123 million weights."""


class Models:
    """The networks of one size on one device, as graphflow wraps them and in diffusers' pipeline."""

    def __init__(self, size: Size, device: torch.device, dtype: torch.dtype, seed: int = 0) -> None:
        self.device, self.size = device, size
        with torch.device("meta"):
            unet, vae, text = _unet(size), _vae(size), _text_encoder(size)
        self.unet, self.vae, self.text = (filled(model.to(dtype), device, seed) for model in (unet, vae, text))
        self.tokenizer = byte_tokenizer()
        self.denoiser, self.graphflow_vae = Denoiser(self.unet, SCHEDULER), VAE(self.vae)
        self.text_encoder = TextEncoder(self.tokenizer, self.text)

    def pipeline(self) -> StableDiffusionPipeline:
        """diffusers' own, without the safety checker."""
        pipeline = StableDiffusionPipeline(
            vae=self.vae,
            text_encoder=self.text,
            tokenizer=self.tokenizer,
            unet=self.unet,
            scheduler=DDIMScheduler(**SCHEDULER),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


def filled(model: nn.Module, device: torch.device, seed: int) -> nn.Module:
    """A model that was built on the meta device, on a real one with random weights that keep the signal's size."""
    if device.type != "meta":
        buffers = {name: value for name, value in model.named_buffers() if not value.is_meta}
        model.to_empty(device=device)
        generator = torch.Generator(device).manual_seed(seed)
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.data.normal_(0, weight[0].numel() ** -0.5, generator=generator)
            else:
                weight.data.fill_(1 if name.endswith("weight") else 0)
        for name, value in buffers.items():
            model.get_buffer(name).copy_(value)
    if isinstance(model, CLIPTextModel) and device.type != "meta":  # the one buffer of the three, which meta lost
        model.get_buffer(_position_ids(model)).copy_(torch.arange(TOKENS)[None])
    return model.eval().requires_grad_(False)


def _position_ids(model: nn.Module) -> str:
    return next(name for name, _ in model.named_buffers() if name.endswith("position_ids"))


def _unet(size: Size) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=64,
        block_out_channels=size.unet,
        norm_num_groups=size.groups,
        attention_head_dim=size.heads,
        cross_attention_dim=size.width,
    )


def _vae(size: Size) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=size.vae,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=min(size.groups, size.vae[0] // 2),
        sample_size=512,
        scaling_factor=0.18215,
    )


def _text_encoder(size: Size) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            hidden_size=size.width,
            intermediate_size=4 * size.width,
            num_hidden_layers=size.layers,
            num_attention_heads=max(1, size.width // 64),
            max_position_embeddings=TOKENS,
            projection_dim=size.width,
        )
    )


def byte_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer with a token for each byte: the encoder's cost does not depend on which tokens it reads."""
    characters = list(bytes_to_unicode().values())
    tokens = [*characters, *(c + "</w>" for c in characters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=TOKENS, pad_token="<|endoftext|>")
