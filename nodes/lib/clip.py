"""CLIP (Radford et al. 2021): pictures and texts as points of one space.

Shapes: B pictures or texts, C 3, H and W pixels, D width of the joint space.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformers import CLIPModel, CLIPTokenizer


class CLIP:
    """A CLIP of transformers with its preprocessing.

    Attributes:
        model: both towers, in evaluation mode and frozen.
        max_tokens: length of the text tower's context, begin and end tokens included; longer texts lose their end.
        name: which weights these are, for the record of a score.
        size: side of the square pictures that the image tower takes.
        preprocessing: how `image` makes such squares, in words.
    """

    def __init__(self, model: CLIPModel, image_processor: Any, tokenizer: CLIPTokenizer, name: str = "") -> None:
        self.model = model.eval().requires_grad_(False)
        self.max_tokens = min(tokenizer.model_max_length, model.config.text_config.max_position_embeddings)
        self.name, self.size = name, model.config.vision_config.image_size
        self.preprocessing = _in_words(image_processor)
        self._pixels, self._tokens = image_processor, tokenizer

    def image(self, images: list[Image.Image]) -> Tensor:
        """Projected picture embeddings, not normalised, (B, D), float32."""
        return self.embed(self._pixels(images=images, return_tensors="pt").pixel_values)

    def embed(self, pixels_BCHW: Tensor) -> Tensor:
        """The same for pictures that are preprocessed already: square, minus the mean, divided by the deviation."""
        with torch.no_grad():
            pooled = self.model.vision_model(pixels_BCHW.to(self.model.device, self.model.dtype)).pooler_output
            return self.model.visual_projection(pooled).float()

    def text(self, texts: list[str]) -> Tensor:
        """Projected text embeddings, not normalised, (B, D), float32."""
        tokens = self._tokens(texts, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt")
        tokens = tokens.to(self.model.device)
        with torch.no_grad():
            pooled = self.model.text_model(tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
            return self.model.text_projection(pooled).float()


class OpenCLIP:
    """A CLIP of open_clip with its preprocessing; see `CLIP` for methods and attributes."""

    def __init__(self, model: Any, preprocess: Any, tokenizer: Any, name: str = "") -> None:
        self.model = model.eval().requires_grad_(False)
        self.name, self.max_tokens = name, model.context_length
        side = model.visual.image_size
        self.size = side if isinstance(side, int) else side[0]
        self.preprocessing = "; ".join(repr(step) for step in preprocess.transforms[:2])
        self._pixels, self._tokens = preprocess, tokenizer

    def image(self, images: list[Image.Image]) -> Tensor:
        """See `CLIP.image`."""
        return self.embed(torch.stack([self._pixels(image) for image in images]))

    def embed(self, pixels_BCHW: Tensor) -> Tensor:
        """See `CLIP.embed`."""
        weight = self.model.logit_scale
        with torch.no_grad():
            return self.model.encode_image(pixels_BCHW.to(weight.device, weight.dtype)).float()

    def text(self, texts: list[str]) -> Tensor:
        """See `CLIP.text`."""
        with torch.no_grad():
            return self.model.encode_text(self._tokens(texts).to(self.model.logit_scale.device)).float()


def directional_similarity(image_BD: Tensor, source_BD: Tensor, text_BD: Tensor, source_text_BD: Tensor) -> Tensor:
    """Whether the picture changed the way the text did: cos(I'/|I'| - I/|I|, T'/|T'| - T/|T|), (B,), in [-1, 1].

    The form of InstructPix2Pix (Brooks et al. 2023): each embedding is normalised before the difference is taken.
    0 when picture or text did not change at all.
    """
    unit = torch.nn.functional.normalize
    return cosine_similarity(unit(image_BD) - unit(source_BD), unit(text_BD) - unit(source_text_BD))


def _in_words(processor: Any) -> str:
    """How an image processor of transformers resizes, for the record of a score."""
    size = dict(getattr(processor, "size", None) or {})
    if not size:
        return ""
    resample = getattr(processor, "resample", None)
    filters = f" {Image.Resampling(resample).name.lower()}" if resample is not None else ""
    crop = dict(getattr(processor, "crop_size", None) or {}) if getattr(processor, "do_center_crop", False) else {}
    to = ", ".join(f"{key} {value}" for key, value in size.items() if value is not None)
    cut = f", centre crop {crop.get('height')}x{crop.get('width')}" if crop else ""
    return f"PIL{filters} to {to}{cut}"
