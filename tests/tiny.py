"""Tiny random models of the true architectures: built from configs in milliseconds, the same numbers every time."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

WIDTH = 32
"""Width of the text embeddings."""

TOKENS = 77

SD_SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
}
"""The noise schedule of Stable Diffusion 1.x."""


def tiny_unet(seed: int = 0, **config: Any) -> UNet2DConditionModel:
    """A UNet of 0.8 M weights with the module indices of Stable Diffusion 1.x: 16 self- and 16 cross-attentions."""
    torch.manual_seed(seed)
    sd1 = {
        "sample_size": 16,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (16, 32, 32, 32),
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        "layers_per_block": 2,
        "norm_num_groups": 8,
        "attention_head_dim": 4,
        "cross_attention_dim": WIDTH,
    }
    return UNet2DConditionModel(**{**sd1, **config}).eval()


def tiny_vae(seed: int = 0) -> AutoencoderKL:
    """An autoencoder that shrinks pictures by 8, with Stable Diffusion's scaling factor; native size 64."""
    torch.manual_seed(seed)
    return AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=0.18215,
    ).eval()


def tiny_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer without merges: a token for each character, so that nothing has to be trained."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    characters = list(bytes_to_unicode().values())
    tokens = [*characters, *(c + "</w>" for c in characters), "<|startoftext|>", "<|endoftext|>"]
    vocab = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=TOKENS, pad_token="<|endoftext|>")


def tiny_text_encoder(seed: int = 0, width: int = WIDTH) -> CLIPTextModel:
    """A text encoder for `tiny_tokenizer`."""
    tokenizer = tiny_tokenizer()
    torch.manual_seed(seed)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).eval()


def random_tensor(*shape: int, seed: int) -> torch.Tensor:
    """Standard normal numbers that depend on nothing but the arguments."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
