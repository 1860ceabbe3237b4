"""Text conditioning of Stable Diffusion 3: two CLIP text encoders and a T5 (Esser et al. 2024, section 4 and figure 2).

Shapes: B prompts, L tokens of CLIP, M tokens of T5, D width of T5, E widths of both pooled embeddings.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import CLIPTextModelWithProjection, T5EncoderModel

from .text_encoder import ends_beyond


class SD3TextEncoder:
    """The three encoders with their tokenizers.

    Attributes:
        clips: tokenizer and encoder, twice.
        t5: tokenizer and encoder.
        max_tokens: length of CLIP's context; T5 reads `t5_tokens`.
    """

    def __init__(
        self,
        clips: list[tuple[Any, CLIPTextModelWithProjection]],
        t5: tuple[Any, T5EncoderModel],
        t5_tokens: int = 77,
    ) -> None:
        self.clips = [(tokenizer, model.eval().requires_grad_(False)) for tokenizer, model in clips]
        self.t5 = (t5[0], t5[1].eval().requires_grad_(False))
        self.max_tokens = min(tokenizer.model_max_length for tokenizer, _ in clips)
        self._t5_tokens = t5_tokens

    def conditioning(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Hidden states, (B, L + M, D), and pooled embeddings, (B, E), float32.

        CLIP's are those before the last layer, side by side and filled up with zeros; T5's follow as further tokens.
        """
        hidden, pooled = [], []
        for tokenizer, model in self.clips:
            ids = _ids(tokenizer, texts, self.max_tokens).to(model.device)
            with torch.no_grad():
                out = model(ids, output_hidden_states=True)
            hidden.append(out.hidden_states[-2].float())
            pooled.append(out.text_embeds.float())
        tokenizer, model = self.t5
        with torch.no_grad():
            t5_BMD = model(_ids(tokenizer, texts, self._t5_tokens).to(model.device)).last_hidden_state.float()
        clip_BLd = torch.cat(hidden, dim=-1).to(t5_BMD.device)
        clip_BLD = pad(clip_BLd, (0, t5_BMD.shape[-1] - clip_BLd.shape[-1]))
        return torch.cat([clip_BLD, t5_BMD], dim=1), torch.cat(pooled, dim=-1)

    def encode(self, texts: list[str]) -> NoReturn:
        """What a single CLIP text encoder has, for edits that compute with embeddings.

        Raises:
            ValueError: always; half of these encoders' answer is not a sequence.
        """
        raise ValueError(
            "Stable Diffusion 3's text encoders give sequences and pooled embeddings, with which no direction or "
            "hybrid instruction is known; bind a single CLIP text encoder, such as those of Stable Diffusion 1 and 2"
        )

    def cut_off(self, texts: list[str]) -> list[str]:
        """The ends of the texts that CLIP does not read."""
        return ends_beyond(self.clips[0][0], texts, self.max_tokens - 2)


def _ids(tokenizer: Any, texts: list[str], length: int) -> Tensor:
    tokens = tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    ids: Tensor = tokens.input_ids
    return ids
