"""Vision-language models that answer questions about pictures: of transformers, and behind a URL."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from .llm import GumbelNoise
from .openai_chat import OpenAIChat


class ChatVLM:
    """An image-text-to-text model of transformers with a chat template.

    Attributes:
        model: in evaluation mode and frozen.
        name: which weights these are.
    """

    def __init__(self, model: Any, processor: Any, name: str = "") -> None:
        self.model = model.eval().requires_grad_(False)
        self.model.generation_config = _ids_alone(model.generation_config)
        self.name, self._processor = name, processor

    def ask(
        self,
        images: Sequence[Image.Image],
        question: str,
        *,
        max_new_tokens: int = 512,
        seed: int = 0,
        temperature: float = 0.0,
    ) -> str:
        """The answer to a question about some pictures.

        Args:
            images: what the model sees, before the question.
            question: the text of the user's turn.
            max_new_tokens: length limit of the answer.
            seed: of the sampling; the same seed gives the same answer.
            temperature: of the sampling; 0 always takes the likeliest token.

        Raises:
            ValueError: the question, with its pictures, fills all that the model can read.
        """
        content = [*({"type": "image"} for _ in images), {"type": "text", "text": question}]
        text = self._processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        pictures = [image.convert("RGB") for image in images]
        inputs = self._processor(images=pictures or None, text=[text], return_tensors="pt")
        inputs = inputs.to(self.model.device, self.model.dtype)
        asked = inputs["input_ids"].shape[1]
        context = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if context is not None and asked >= context:
            raise ValueError(f"the question has {asked} tokens with its pictures; the model reads {context}")
        room = max_new_tokens if context is None else min(max_new_tokens, context - asked)
        with torch.no_grad():
            ids = self.model.generate(**inputs, max_new_tokens=room, **_sampling(seed, temperature))
        return self._processor.decode(ids[0, asked:], skip_special_tokens=True)


def _sampling(seed: int, temperature: float) -> dict[str, Any]:
    from transformers import LogitsProcessorList, TemperatureLogitsWarper

    processors = [TemperatureLogitsWarper(temperature), GumbelNoise(seed)] if temperature > 0 else []
    return {"do_sample": False, "logits_processor": LogitsProcessorList(processors)}


def _ids_alone(defaults: Any) -> Any:
    """A checkpoint's generation settings without its way of sampling: an answer that is scored follows ours alone."""
    from transformers import GenerationConfig

    ends = defaults.eos_token_id
    pad = defaults.pad_token_id if defaults.pad_token_id is not None else ends
    return GenerationConfig(
        bos_token_id=defaults.bos_token_id, eos_token_id=ends, pad_token_id=pad[0] if isinstance(pad, list) else pad
    )


class OpenAIVision(OpenAIChat):
    """A vision-language model behind a service that speaks OpenAI's chat protocol.

    Attributes:
        name: the model's name at the service, and the service.
    """

    @property
    def name(self) -> str:
        return f"{self.model} at {self.url.host}"

    def ask(
        self,
        images: Sequence[Image.Image],
        question: str,
        *,
        max_new_tokens: int = 512,
        seed: int = 0,
        temperature: float = 0.0,
    ) -> str:
        """See `ChatVLM.ask`; pictures are sent as PNG.

        Raises:
            ServiceError: see `OpenAIChat.complete`.
        """
        pictures = [{"type": "image_url", "image_url": {"url": _data_url(image)}} for image in images]
        content = [*pictures, {"type": "text", "text": question}]
        return self._ask(
            {
                "model": self.model,
                "messages": [{"role": "user", "content": content}],
                "max_tokens": max_new_tokens,
                "temperature": temperature,
                "seed": seed,
            }
        )


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
