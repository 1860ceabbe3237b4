"""CLIP (Radford et al. 2021): pictures and texts as points of one space.

Shapes: B pictures or texts, C 3, H and W pixels, D width of the joint space,
L tokens, W width of the text tower, V size of the vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.func import functional_call
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

    def vocabulary(self) -> tuple[Tensor, list[int]]:
        """The embeddings of all tokens, (V, W), and the ids of those that are no words."""
        weight: Tensor = self.model.text_model.embeddings.token_embedding.weight
        return weight.detach(), sorted({i for i in self._tokens.all_special_ids if i < len(weight)})

    def words(self, ids: list[int]) -> str:
        """Token ids as text."""
        return str(self._tokens.decode(ids)).strip()

    def text_of(self, embeds_BLW: Tensor) -> Tensor:
        """As `text`, for texts whose words are given as token embeddings; gradients reach them."""
        batch, length, width = embeds_BLW.shape
        weight, ends = self.vocabulary()[0], (self._tokens.bos_token_id, self._tokens.eos_token_id)
        first, last = (weight[i].to(embeds_BLW).expand(batch, 1, width) for i in ends)
        rows = torch.cat([first, embeds_BLW, last], dim=1).to(weight.dtype)
        # The tower takes ids only: it is called with a vocabulary of these very tokens.
        ids = torch.arange(rows[..., 0].numel(), device=rows.device).reshape(batch, length + 2)
        own = {"embeddings.token_embedding.weight": rows.flatten(0, 1)}
        hidden_BLW = functional_call(self.model.text_model, own, (ids,)).last_hidden_state
        return self.project_text(hidden_BLW[:, -1])

    def project_text(self, hidden_BW: Tensor) -> Tensor:
        """Hidden states of the text tower in the joint space, (B, D), float32; gradients pass."""
        layer = self.model.text_projection
        return layer(hidden_BW.to(layer.weight.device, layer.weight.dtype)).float()


class ImageEncoder:
    """The image tower of a CLIP by itself, as IP-Adapter reads it.

    Attributes:
        model: a `CLIPVisionModelWithProjection`, in evaluation mode and frozen.
        name: which weights these are.
    """

    def __init__(self, model: Any, image_processor: Any, name: str = "") -> None:
        self.model = model.eval().requires_grad_(False)
        self.name, self._pixels = name, image_processor

    def image(self, images: list[Image.Image]) -> Tensor:
        """Projected picture embeddings, not normalised, (B, D), float32."""
        pixels_BCHW = self._pixels(images=images, return_tensors="pt").pixel_values
        with torch.no_grad():
            return self.model(pixels_BCHW.to(self.model.device, self.model.dtype)).image_embeds.float()


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

    def vocabulary(self) -> tuple[Tensor, list[int]]:
        """See `CLIP.vocabulary`."""
        special = sorted({self._tokens.sot_token_id, self._tokens.eot_token_id})
        return self._tower.token_embedding.weight.detach(), special

    def words(self, ids: list[int]) -> str:
        """See `CLIP.words`."""
        return str(self._tokens.decode(ids)).strip()

    def text_of(self, embeds_BLW: Tensor) -> Tensor:
        """See `CLIP.text_of`."""
        tower, (batch, length, width) = self._tower, embeds_BLW.shape
        weight, ends = tower.token_embedding.weight, (self._tokens.sot_token_id, self._tokens.eot_token_id)
        first, last = (weight[i].to(embeds_BLW).expand(batch, 1, width) for i in ends)
        seen = length + 2  # the mask is causal: what would stand behind the end changes nothing
        x_BLW = torch.cat([first, embeds_BLW, last], dim=1).to(weight.dtype) + tower.positional_embedding[:seen]
        x_BLW = tower.transformer(x_BLW, attn_mask=tower.attn_mask[:seen, :seen])
        return self.project_text(tower.ln_final(x_BLW)[:, -1])

    def project_text(self, hidden_BW: Tensor) -> Tensor:
        """See `CLIP.project_text`."""
        projection = self._tower.text_projection
        if isinstance(projection, torch.nn.Linear):
            projection = projection.weight.T
        return (hidden_BW.to(projection.device, projection.dtype) @ projection).float()

    @property
    def _tower(self) -> Any:
        return getattr(self.model, "text", self.model)


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
