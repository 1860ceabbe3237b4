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
        """
        content = [*({"type": "image"} for _ in images), {"type": "text", "text": question}]
        text = self._processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        pictures = [image.convert("RGB") for image in images]
        inputs = self._processor(images=pictures or None, text=[text], return_tensors="pt")
        inputs = inputs.to(self.model.device, self.model.dtype)
        with torch.no_grad():
            ids = self.model.generate(**inputs, **self._decoding(max_new_tokens, seed, temperature))
        return self._processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    def _decoding(self, max_new_tokens: int, seed: int, temperature: float) -> dict[str, Any]:
        from transformers import GenerationConfig, LogitsProcessorList, TemperatureLogitsWarper

        # Checkpoints bring sampling settings of their own; an answer that is scored follows ours alone.
        ends = self.model.generation_config
        pad = ends.pad_token_id if ends.pad_token_id is not None else ends.eos_token_id
        config = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            bos_token_id=ends.bos_token_id,
            eos_token_id=ends.eos_token_id,
            pad_token_id=pad[0] if isinstance(pad, list) else pad,
        )
        processors = [TemperatureLogitsWarper(temperature), GumbelNoise(seed)] if temperature > 0 else []
        return {"generation_config": config, "logits_processor": LogitsProcessorList(processors)}


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
