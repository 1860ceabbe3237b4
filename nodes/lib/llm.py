"""Text from language models: local ones of transformers, and services that speak OpenAI's chat protocol.

All of them have one method, `complete`. Sampling draws from a CPU generator that the seed makes, so that a local
model gives the same text whatever ran before, in whichever thread.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import torch
from torch import Tensor

Template = Literal["few_shot", "edit_pair"]
"""How a model wants to be asked for captions before and after an edit; see `edit_captions`."""


class LLM(Protocol):
    """A model that continues or answers a prompt.

    Attributes:
        template: the form of prompt that it understands.
        continues: whether the text goes on where the prompt ends (a base model), or answers it (a chat model).
    """

    template: Template
    continues: bool

    def complete(
        self,
        prompt: str,
        n: int = 1,
        *,
        seed: int = 0,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        top_p: float = 1.0,
        stop: str | None = None,
    ) -> list[str]:
        """`n` completions, without the prompt.

        Args:
            prompt: what to continue or to answer.
            n: number of completions.
            seed: seed of the sampling.
            max_new_tokens: length limit of each.
            temperature: 0 takes the likeliest token each time, so that all `n` are the same.
            top_p: sample from the likeliest tokens that together have this probability.
            stop: a text that ends a completion; it is not part of it.

        Raises:
            ValueError: prompt and completion don't fit into the model's context.
        """
        ...


class GumbelNoise:
    """A logits processor under which greedy search samples.

    The argmax of log-probabilities plus Gumbel noise is a sample of the distribution (Gumbel-max trick); the noise
    is minus the logarithm of an exponential variate. transformers' own sampling draws from torch's global
    generator, which other threads use too.
    """

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator("cpu").manual_seed(seed)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """`scores` (rows, vocabulary) with noise added."""
        noise = torch.empty(scores.shape).exponential_(generator=self._generator).log().to(scores.device)
        return scores.float() - noise


class _Local:
    """What causal and sequence-to-sequence models share."""

    def __init__(self, tokenizer: Any, model: Any, template: Template) -> None:
        self.tokenizer, self.template = tokenizer, template
        self.model = model.eval().requires_grad_(False)

    def _generate(
        self,
        tokens: Any,
        n: int,
        seed: int,
        max_new_tokens: int,
        temperature: float,
        top_p: float,
        stop: str | None,
    ) -> list[str]:
        from transformers import GenerationConfig, LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

        rows = n if temperature > 0 else 1
        processors = LogitsProcessorList()
        if temperature > 0:
            processors += [TemperatureLogitsWarper(temperature), TopPLogitsWarper(top_p), GumbelNoise(seed)]
        defaults = self.model.generation_config
        config = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            bos_token_id=defaults.bos_token_id,
            eos_token_id=defaults.eos_token_id,
            decoder_start_token_id=defaults.decoder_start_token_id,
            pad_token_id=_first_of(defaults.pad_token_id, self.tokenizer.pad_token_id, defaults.eos_token_id),
            stop_strings=stop,
        )
        tokens = tokens.to(self.model.device)
        with torch.no_grad():
            ids = self.model.generate(
                input_ids=tokens.input_ids.repeat(rows, 1),
                attention_mask=tokens.attention_mask.repeat(rows, 1),
                generation_config=config,
                logits_processor=processors,
                tokenizer=self.tokenizer if stop else None,
            )
        start = 0 if self.model.config.is_encoder_decoder else tokens.input_ids.shape[1]
        texts = self.tokenizer.batch_decode(ids[:, start:], skip_special_tokens=True)
        texts = [text.partition(stop)[0] if stop else text for text in texts]
        return texts * (n // rows)


class CausalLM(_Local):
    """A decoder-only model; one whose tokenizer has a chat template is asked as the user of a chat."""

    def __init__(self, tokenizer: Any, model: Any, template: Template = "few_shot") -> None:
        super().__init__(tokenizer, model, template)
        self.continues = not tokenizer.chat_template

    def complete(
        self,
        prompt: str,
        n: int = 1,
        *,
        seed: int = 0,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        top_p: float = 1.0,
        stop: str | None = None,
    ) -> list[str]:
        """See `LLM.complete`."""
        if self.continues:
            tokens = self.tokenizer(prompt, return_tensors="pt")
        else:
            chat = [{"role": "user", "content": prompt}]
            tokens = self.tokenizer.apply_chat_template(
                chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
        context = getattr(self.model.config, "max_position_embeddings", None)
        length = tokens.input_ids.shape[1]
        if context is not None and length + max_new_tokens > context:
            raise ValueError(
                f"the prompt has {length} tokens and up to {max_new_tokens} are asked for; the model reads {context}"
            )
        return self._generate(tokens, n, seed, max_new_tokens, temperature, top_p, stop)


class Seq2SeqLM(_Local):
    """An encoder-decoder model such as T5."""

    continues = False

    def complete(
        self,
        prompt: str,
        n: int = 1,
        *,
        seed: int = 0,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        top_p: float = 1.0,
        stop: str | None = None,
    ) -> list[str]:
        """See `LLM.complete`."""
        tokens = self.tokenizer(prompt, return_tensors="pt")
        length, context = tokens.input_ids.shape[1], self.tokenizer.model_max_length
        if length > context:
            raise ValueError(f"the prompt has {length} tokens; the model reads {context}")
        return self._generate(tokens, n, seed, max_new_tokens, temperature, top_p, stop)


def _first_of(*ids: Any) -> int | None:
    """The first token id that is set; of several end tokens the first."""
    for value in ids:
        if value is not None:
            return value[0] if isinstance(value, list) else value
    return None
