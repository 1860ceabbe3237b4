"""Captions of pictures: by BLIP (Li et al. 2022), and by vision-language models that are asked for one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from transformers import BlipForConditionalGeneration

QUESTION = "Describe this image in one short sentence."


class _Captions:
    """What captioners share."""

    def captions(
        self, images: Sequence[Image.Image], prompt: str = "", max_new_tokens: int = 30, num_beams: int = 1
    ) -> list[str]:
        raise NotImplementedError

    def caption(self, image: Image.Image, prompt: str = "", max_new_tokens: int = 30, num_beams: int = 1) -> str:
        """`captions` of one picture."""
        return self.captions([image], prompt, max_new_tokens, num_beams)[0]


class Captioner(_Captions):
    """A BLIP captioner with its preprocessing.

    Attributes:
        model: the network, in evaluation mode and frozen.
    """

    def __init__(self, model: BlipForConditionalGeneration, image_processor: Any, tokenizer: Any) -> None:
        self.model = model.eval().requires_grad_(False)
        self._pixels, self._tokenizer = image_processor, tokenizer

    def captions(
        self, images: Sequence[Image.Image], prompt: str = "", max_new_tokens: int = 30, num_beams: int = 1
    ) -> list[str]:
        """A caption for each picture, without sampling: greedy for one beam, otherwise beam search.

        Args:
            images: RGB pictures; the model's own preprocessing resizes them.
            prompt: how the caption begins; it is part of what comes back. Empty leaves the beginning to the model.
            max_new_tokens: length limit, in tokens after the prompt.
            num_beams: beams of the search.

        Raises:
            ValueError: the model said nothing.
        """
        pixels = self._pixels(images=[image.convert("RGB") for image in images], return_tensors="pt").pixel_values
        inputs: dict[str, Any] = {"pixel_values": pixels.to(self.model.device, self.model.dtype)}
        if prompt.strip():
            tokens = self._tokenizer([prompt] * len(images), return_tensors="pt").to(self.model.device)
            inputs |= {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}
        with torch.no_grad():
            ids = self.model.generate(**inputs, max_new_tokens=max_new_tokens, num_beams=num_beams, do_sample=False)
        # BLIP begins each text with a token of its own, which its tokenizer need not know as a special one.
        texts = [" ".join(self._tokenizer.decode(row[1:], skip_special_tokens=True).split()) for row in ids]
        if not all(texts):
            raise ValueError("the captioner returned an empty caption")
        return texts


class ChatCaptioner(_Captions):
    """A vision-language model with a chat template, asked for a description.

    Attributes:
        model: an image-text-to-text model of transformers, in evaluation mode and frozen.
        question: what it is asked.
    """

    def __init__(self, model: Any, processor: Any, question: str = QUESTION) -> None:
        self.model = model.eval().requires_grad_(False)
        self.question, self._processor = question, processor

    def captions(
        self, images: Sequence[Image.Image], prompt: str = "", max_new_tokens: int = 30, num_beams: int = 1
    ) -> list[str]:
        """See `Captioner.captions`; the model's answer begins with `prompt`.

        Pictures are described together where all of them take equally many tokens, so that nothing is padded.
        """
        content = [{"type": "image"}, {"type": "text", "text": self.question}]
        chat = [{"role": "user", "content": content}]
        text = self._processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) + prompt
        if len(images) == 1:
            inputs = self._processor(images=[images[0].convert("RGB")], text=[text], return_tensors="pt")
        else:
            pictures = [[image.convert("RGB")] for image in images]
            inputs = self._processor(images=pictures, text=[text] * len(images), padding=True, return_tensors="pt")
            if not bool(inputs["attention_mask"].all()):
                return [self.caption(image, prompt, max_new_tokens, num_beams) for image in images]
        inputs = inputs.to(self.model.device, self.model.dtype)
        with torch.no_grad():
            ids = self.model.generate(**inputs, max_new_tokens=max_new_tokens, num_beams=num_beams, do_sample=False)
        begin = inputs["input_ids"].shape[1]
        answers = [self._processor.decode(row[begin:], skip_special_tokens=True) for row in ids]
        if not all(answer.strip() for answer in answers):
            raise ValueError("the captioner returned an empty caption")
        return [" ".join((prompt + answer).split()) for answer in answers]
