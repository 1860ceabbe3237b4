"""CLIP (Radford et al. 2021): pictures and texts as points of one space.

Shapes: B pictures or texts, D width of the joint space.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformers import CLIPModel, CLIPTokenizer


class CLIP:
    """A CLIP model with its preprocessing.

    Attributes:
        model: both towers, in evaluation mode and frozen.
        max_tokens: length of the text tower's context, begin and end tokens included; longer texts lose their end.
    """

    def __init__(self, model: CLIPModel, image_processor: Any, tokenizer: CLIPTokenizer) -> None:
        self.model = model.eval().requires_grad_(False)
        self.max_tokens = min(tokenizer.model_max_length, model.config.text_config.max_position_embeddings)
        self._pixels, self._tokens = image_processor, tokenizer

    def image(self, images: list[Image.Image]) -> Tensor:
        """Projected picture embeddings, not normalised, (B, D), float32."""
        pixels = self._pixels(images=images, return_tensors="pt").pixel_values
        with torch.no_grad():
            pooled = self.model.vision_model(pixels.to(self.model.device, self.model.dtype)).pooler_output
            return self.model.visual_projection(pooled).float()

    def text(self, texts: list[str]) -> Tensor:
        """Projected text embeddings, not normalised, (B, D), float32."""
        tokens = self._tokens(texts, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt")
        tokens = tokens.to(self.model.device)
        with torch.no_grad():
            pooled = self.model.text_model(tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
            return self.model.text_projection(pooled).float()


def directional_similarity(image_BD: Tensor, source_BD: Tensor, text_BD: Tensor, source_text_BD: Tensor) -> Tensor:
    """Whether the picture changed the way the text did: cos(I'/|I'| - I/|I|, T'/|T'| - T/|T|), (B,), in [-1, 1].

    The form of InstructPix2Pix (Brooks et al. 2023): each embedding is normalised before the difference is taken.
    0 when picture or text did not change at all.
    """
    unit = torch.nn.functional.normalize
    return cosine_similarity(unit(image_BD) - unit(source_BD), unit(text_BD) - unit(source_text_BD))
