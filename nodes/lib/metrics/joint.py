"""Cosines in the joint space of a CLIP.

Every function takes projected embeddings that are not normalised, (B, D), and returns (B,). The cosine does not
change with the length of an embedding, but differences do: each function says whether it normalises before it
subtracts, because the papers differ.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from .pixels import ip2p_pixels, openai_pixels

Preprocessing = Literal["none", "openai", "ip2p"]


def embed_images(clip: Any, images: list[Image.Image], how: Preprocessing) -> Tensor:
    """Projected embeddings of pictures, preprocessed as the checkpoint says (none) or as an official script does."""
    if how == "none":
        return clip.image([image.convert("RGB") for image in images])
    prepare = {"openai": openai_pixels, "ip2p": ip2p_pixels}[how]
    return clip.embed(torch.cat([prepare(image, clip.size) for image in images]))


def in_words(clip: Any, how: Preprocessing) -> str:
    """What `embed_images` does to a picture, for the record of a score."""
    return {
        "none": clip.preprocessing,
        "openai": f"PIL bicubic to the shorter side {clip.size}, centre crop {clip.size}x{clip.size}",
        "ip2p": f"tensor bicubic without antialiasing to {clip.size}x{clip.size}, no crop",
    }[how]


def clip_score(image_BD: Tensor, text_BD: Tensor) -> Tensor:
    """CLIPScore as torchmetrics and the tables scale it: 100·max(cos(I, T), 0), in [0, 100] (Hessel et al. 2021).

    The paper's own factor is 2.5 where this has 100.
    """
    return 100 * cosine_similarity(image_BD, text_BD).clamp(min=0)


def instruction_direction(image_BD: Tensor, source_BD: Tensor, instruction_BD: Tensor) -> Tensor:
    """ReEdit's form of the directional similarity: cos(I'/|I'| - I/|I|, T(instruction)), in [-1, 1].

    The text side is the embedding of the instruction itself and no difference, unlike `directional_similarity`.
    """
    return cosine_similarity(normalize(image_BD) - normalize(source_BD), instruction_BD)


def s_visual(before_BD: Tensor, after_BD: Tensor, source_BD: Tensor, image_BD: Tensor) -> Tensor:
    """S-Visual (VISII, Nguyen et al. 2023; ReEdit): cos(E(after) - E(before), E(image) - E(source)), in [-1, 1].

    Whether a picture changed the way the exemplar pair did. Embeddings are not normalised before the subtraction.
    """
    return cosine_similarity(after_BD - before_BD, image_BD - source_BD)
