"""Captions of pictures: by BLIP (Li et al. 2022), and by vision-language models that are asked for one."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from transformers import BlipForConditionalGeneration

QUESTION = "Describe this image in one short sentence."


class Captioner:
    """A BLIP captioner with its preprocessing.

    Attributes:
        model: the network, in evaluation mode and frozen.
    """

    def __init__(self, model: BlipForConditionalGeneration, image_processor: Any, tokenizer: Any) -> None:
        self.model = model.eval().requires_grad_(False)
        self._pixels, self._tokenizer = image_processor, tokenizer

    def caption(self, image: Image.Image, prompt: str = "", max_new_tokens: int = 30, num_beams: int = 1) -> str:
        """One caption, without sampling: greedy for one beam, otherwise beam search.

        Args:
            image: an RGB picture; the model's own preprocessing resizes it.
            prompt: how the caption begins; it is part of what comes back. Empty leaves the beginning to the model.
            max_new_tokens: length limit, in tokens after the prompt.
            num_beams: beams of the search.

        Raises:
            ValueError: the model said nothing.
        """
        pixels = self._pixels(images=image.convert("RGB"), return_tensors="pt").pixel_values
        inputs: dict[str, Any] = {"pixel_values": pixels.to(self.model.device, self.model.dtype)}
        if prompt.strip():
            tokens = self._tokenizer(prompt, return_tensors="pt").to(self.model.device)
            inputs |= {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}
        with torch.no_grad():
            ids = self.model.generate(**inputs, max_new_tokens=max_new_tokens, num_beams=num_beams, do_sample=False)
        # BLIP begins each text with a token of its own, which its tokenizer need not know as a special one.
        text = " ".join(self._tokenizer.decode(ids[0, 1:], skip_special_tokens=True).split())
        if not text:
            raise ValueError("the captioner returned an empty caption")
        return text


class ChatCaptioner:
    """A vision-language model with a chat template, asked for a description.

    Attributes:
        model: an image-text-to-text model of transformers, in evaluation mode and frozen.
        question: what it is asked.
    """

    def __init__(self, model: Any, processor: Any, question: str = QUESTION) -> None:
        self.model = model.eval().requires_grad_(False)
        self.question, self._processor = question, processor

    def caption(self, image: Image.Image, prompt: str = "", max_new_tokens: int = 30, num_beams: int = 1) -> str:
        """See `Captioner.caption`; the model's answer begins with `prompt`."""
        content = [{"type": "image"}, {"type": "text", "text": self.question}]
        chat = [{"role": "user", "content": content}]
        text = self._processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) + prompt
        inputs = self._processor(images=[image.convert("RGB")], text=[text], return_tensors="pt")
        inputs = inputs.to(self.model.device, self.model.dtype)
        with torch.no_grad():
            ids = self.model.generate(**inputs, max_new_tokens=max_new_tokens, num_beams=num_beams, do_sample=False)
        answer = self._processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        if not answer.strip():
            raise ValueError("the captioner returned an empty caption")
        return " ".join((prompt + answer).split())
