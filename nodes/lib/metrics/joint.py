"""Cosines in the joint space of a CLIP.

Every function takes projected embeddings that are not normalised, (B, D), and returns (B,). The cosine does not
change with the length of an embedding, but differences do: each function says whether it normalises before it
subtracts, because the papers differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from ..clip import directional_similarity
from .pixels import ip2p_pixels, openai_pixels

Preprocessing = Literal["none", "openai", "ip2p"]


def embed_images(clip: Any, images: list[Image.Image], how: Preprocessing) -> Tensor:
    """Projected embeddings of pictures, preprocessed as the checkpoint says (none) or as an official script does."""
    if how == "none":
        return clip.image([image.convert("RGB") for image in images])
    prepare = {"openai": openai_pixels, "ip2p": ip2p_pixels}[how]
    return clip.embed(torch.cat([prepare(image, clip.size) for image in images]))


def setting(clip: Any, how: Preprocessing) -> dict[str, str]:
    """What a score in the space of this CLIP depends on; the fields of `record.Setting`."""
    resize = {
        "none": clip.preprocessing,
        "openai": f"PIL bicubic to the shorter side {clip.size}, centre crop {clip.size}x{clip.size}",
        "ip2p": f"tensor bicubic without antialiasing to {clip.size}x{clip.size}, no crop",
    }
    return {
        "backbone": f"{type(clip).__name__} {clip.size}",
        "weights": clip.name,
        "input_range": "[0, 1] - CLIP's mean, by its deviation",
        "resize": resize[how],
    }


@dataclass(frozen=True)
class Edit:
    """What is known of an edit; what is None is not scored."""

    source: Image.Image | None = None
    text: str | None = None
    source_text: str | None = None
    target: Image.Image | None = None
    instruction: str | None = None

    def names(self) -> list[str]:
        """The scores that `similarities` gives for it."""
        return [
            *(("clip_text", "clip_text_distance") if self.text is not None else ()),
            *(("clip_image",) if self.source is not None else ()),
            *(("clip_target",) if self.target is not None else ()),
            *(("clip_direction",) if None not in (self.source, self.text, self.source_text) else ()),
            *(("clip_instruction",) if None not in (self.source, self.instruction) else ()),
        ]


def similarities(clip: Any, images: list[Image.Image], edits: list[Edit], how: Preprocessing) -> list[dict[str, float]]:
    """Every score that its edit allows, for each picture; pictures and texts are embedded together, each once.

    Raises:
        ValueError: there is nothing to compare a picture with.
    """
    if not all(edit.names() for edit in edits):
        raise ValueError("there is nothing to compare the picture with: give 'text', 'source' or 'target'")
    pictures = [
        {"image": image, "source": edit.source, "target": edit.target}
        for image, edit in zip(images, edits, strict=True)
    ]
    texts = [{"text": e.text, "source_text": e.source_text, "instruction": e.instruction} for e in edits]
    seen = _embedded(pictures, lambda flat: embed_images(clip, flat, how))
    said = _embedded(texts, clip.text)
    return [_formulas(edit.names(), e | t) for edit, e, t in zip(edits, seen, said, strict=True)]


def _embedded(rows: list[dict[str, Any]], embed: Callable[[list[Any]], Tensor]) -> list[dict[str, Tensor]]:
    """Name → embedding, (1, D), of what is given in each row."""
    kept = [{name: value for name, value in row.items() if value is not None} for row in rows]
    flat = [value for row in kept for value in row.values()]
    found = iter(embed(flat)[:, None] if flat else ())
    return [{name: next(found) for name in row} for row in kept]


def _formulas(names: list[str], e: dict[str, Tensor]) -> dict[str, float]:
    formulas = {
        "clip_text": lambda: cosine_similarity(e["image"], e["text"]),
        "clip_text_distance": lambda: 1 - cosine_similarity(e["image"], e["text"]),
        "clip_image": lambda: cosine_similarity(e["image"], e["source"]),
        "clip_target": lambda: cosine_similarity(e["image"], e["target"]),
        "clip_direction": lambda: directional_similarity(e["image"], e["source"], e["text"], e["source_text"]),
        "clip_instruction": lambda: instruction_direction(e["image"], e["source"], e["instruction"]),
    }
    return {name: formulas[name]().item() for name in names}


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
