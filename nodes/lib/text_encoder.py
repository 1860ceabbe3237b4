"""Text conditioning: what a text encoder says about prompts, and the direction between two sets of prompts.

Shapes: B prompts, L tokens of the encoder's context, D width of its hidden states.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

BATCH = 64  # prompts of one forward pass


class TextEncoder:
    """A CLIP text encoder with its tokenizer.

    Attributes:
        tokenizer: pads and truncates to `max_tokens`.
        model: the encoder, in evaluation mode and frozen.
        max_tokens: length of its context, begin and end tokens included.
    """

    def __init__(self, tokenizer: CLIPTokenizer, model: CLIPTextModel) -> None:
        self.tokenizer = tokenizer
        self.model = model.eval().requires_grad_(False)
        # A tokenizer that was saved without a limit reports an astronomic one.
        self.max_tokens = min(tokenizer.model_max_length, model.config.max_position_embeddings)

    def encode(self, texts: list[str]) -> Tensor:
        """Last hidden states of all positions, padding included, (B, L, D), float32: what Stable Diffusion reads.

        Longer texts lose their end; `cut_off` tells what.
        """
        parts = [self._encode(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
        return torch.cat(parts)

    def _encode(self, texts: list[str]) -> Tensor:
        tokens = self.tokenizer(
            texts, padding="max_length", truncation=True, max_length=self.max_tokens, return_tensors="pt"
        )
        with torch.no_grad():
            return self.model(tokens.input_ids.to(self.model.device)).last_hidden_state.float()

    def conditioning(self, texts: list[str]) -> tuple[Tensor, Tensor | None]:
        """What a denoiser reads: `encode`, and the pooled embeddings, which Stable Diffusion 1 and 2 have none of."""
        return self.encode(texts), None

    def end_of(self, text: str) -> int:
        """Position of the first end token in `encode` of the text; the words stand from 1 up to it."""
        words = self.tokenizer(text, add_special_tokens=False).input_ids
        return min(len(words) + 1, self.max_tokens - 1)

    def cut_off(self, texts: list[str]) -> list[str]:
        """The ends of the texts that don't fit into the context, without those that do."""
        return ends_beyond(self.tokenizer, texts, self.max_tokens - 2)


def ends_beyond(tokenizer: Any, texts: list[str], tokens: int) -> list[str]:
    """What follows after so many tokens, for each text that is longer."""
    ends = [tokenizer(text, add_special_tokens=False).input_ids[tokens:] for text in texts]
    return [tokenizer.decode(ids).strip() for ids in ends if ids]


def edit_direction(encoder: TextEncoder, before: list[str], after: list[str]) -> Tensor:
    """Mean of the sentences after the edit minus mean of those before, (L, D) (pix2pix-zero, section 3.1)."""
    return encoder.encode(after).mean(dim=0) - encoder.encode(before).mean(dim=0)
