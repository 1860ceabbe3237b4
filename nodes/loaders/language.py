"""Loaders of captioners, language models and vision-language models."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphflow.errors import GraphflowError, MissingError, UsageError
from graphflow.models.refs import ModelRef, loader
from graphflow.nodes.loaders.files import (
    PREPROCESSING,
    TEXT_FILES,
    TRANSFORMERS_WEIGHTS,
    from_transformers,
    part_folder,
    preprocessing_of,
    tokenizer_of,
    weights_name,
)

if TYPE_CHECKING:
    import torch

TEMPLATES = ("few_shot", "edit_pair")
SERVICE_OPTIONS = {
    "model": "the model's name at the service",
    "api_key_env": "environment variable that holds the API key, such as OPENAI_API_KEY; left out: none is sent",
    "timeout": "seconds to wait for an answer (120)",
}
TEMPLATE_OPTION = {"template": "how the model is asked for captions of an edit: few_shot (default) or edit_pair"}


@loader(
    "transformers.blip",
    role="captioner",
    files=("{part}config.json", PREPROCESSING, TRANSFORMERS_WEIGHTS, TEXT_FILES),
)
def load_blip(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """A BLIP captioner, as `nodes.lib.captioner.Captioner`."""
    from transformers import BertTokenizerFast, BlipForConditionalGeneration, BlipImageProcessorPil

    from graphflow.nodes.lib.captioner import Captioner

    part = part_folder(ref, folder)
    model = from_transformers(BlipForConditionalGeneration, part, dtype).to(device)
    return Captioner(model, preprocessing_of(BlipImageProcessorPil, part), tokenizer_of(BertTokenizerFast, part))


@loader(
    "transformers.image_to_text",
    role="captioner",
    files=("{part}config.json", PREPROCESSING, TRANSFORMERS_WEIGHTS, TEXT_FILES),
    options={"question": "what the model is asked; left out: a description in one short sentence"},
)
def load_image_to_text(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """Any vision-language model of transformers with a chat template, as `nodes.lib.captioner.ChatCaptioner`."""
    from graphflow.nodes.lib.captioner import QUESTION, ChatCaptioner

    model, processor = _chat_model(ref, folder, dtype, device)
    return ChatCaptioner(model, processor, str(ref.options.get("question", QUESTION)))


@loader(
    "transformers.causal_lm",
    role="llm",
    files=("{part}config.json", TRANSFORMERS_WEIGHTS, TEXT_FILES),
    options=TEMPLATE_OPTION,
)
def load_causal_lm(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """Any decoder-only language model of transformers, as `nodes.lib.llm.CausalLM`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from graphflow.nodes.lib.llm import CausalLM

    part = part_folder(ref, folder)
    model = from_transformers(AutoModelForCausalLM, part, dtype).to(device)
    return CausalLM(tokenizer_of(AutoTokenizer, part), model, template_of(ref))


@loader(
    "transformers.seq2seq",
    role="llm",
    files=("{part}config.json", TRANSFORMERS_WEIGHTS, TEXT_FILES),
    options=TEMPLATE_OPTION,
)
def load_seq2seq(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """Any encoder-decoder language model of transformers, as `nodes.lib.llm.Seq2SeqLM`."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    from graphflow.nodes.lib.llm import Seq2SeqLM

    part = part_folder(ref, folder)
    model = from_transformers(AutoModelForSeq2SeqLM, part, dtype).to(device)
    return Seq2SeqLM(tokenizer_of(AutoTokenizer, part), model, template_of(ref))


@loader(
    "openai",
    role="llm",
    options={**SERVICE_OPTIONS, **TEMPLATE_OPTION},
)
def load_openai(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """A service that speaks OpenAI's chat protocol, as `nodes.lib.openai_chat.OpenAIChat`. Nothing is sent yet."""
    from graphflow.nodes.lib.openai_chat import OpenAIChat

    return _service(ref, lambda *known, **how: OpenAIChat(*known, template=template_of(ref), **how))


@loader(
    "transformers.vlm",
    role="vlm",
    files=("{part}config.json", PREPROCESSING, TRANSFORMERS_WEIGHTS, TEXT_FILES),
    options={
        "min_pixels": "smallest number of pixels that a picture is resized to, for families that know it",
        "max_pixels": "largest number of pixels",
    },
)
def load_vlm(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """Any vision-language model of transformers with a chat template, as `nodes.lib.vlm.ChatVLM`."""
    from graphflow.nodes.lib.vlm import ChatVLM

    limits = {name: int(value) for name, value in ref.options.items()}
    return ChatVLM(*_chat_model(ref, folder, dtype, device, **limits), weights_name(ref))


@loader("openai.vlm", role="vlm", options=SERVICE_OPTIONS)
def load_openai_vlm(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """A vision-language model behind OpenAI's chat protocol, as `nodes.lib.vlm.OpenAIVision`. Nothing is sent yet."""
    from graphflow.nodes.lib.vlm import OpenAIVision

    return _service(ref, OpenAIVision)


def _chat_model(
    ref: ModelRef, folder: Path | None, dtype: torch.dtype, device: torch.device, **limits: int
) -> tuple[Any, Any]:
    """A vision-language model and its processor, which has a chat template."""
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor

    part = part_folder(ref, folder)
    model = from_transformers(AutoModelForImageTextToText, part, dtype).to(device)
    try:
        processor = preprocessing_of(AutoProcessor, part, backend="pil", **limits)
    except GraphflowError:
        # A family that takes videos has no processor for them on PIL, and so none at all with this backend.
        processor = preprocessing_of(AutoProcessor, part, **limits)
        processor.image_processor = preprocessing_of(AutoImageProcessor, part, backend="pil", **limits)
    if not getattr(processor, "chat_template", None):  # some processors (BLIP's) leave theirs to the tokenizer
        processor.chat_template = getattr(getattr(processor, "tokenizer", None), "chat_template", None)
    if not processor.chat_template:
        raise GraphflowError(f"{part} has no chat template (chat_template.jinja), which loader {ref.loader} needs")
    return model, processor


def _service(ref: ModelRef, make: Callable[..., Any]) -> Any:
    """``make(endpoint, model, key, timeout=…)`` from a preset's entry."""
    model, variable = ref.options.get("model"), ref.options.get("api_key_env")
    if not ref.endpoint or not isinstance(model, str):
        raise UsageError(f"{ref.mark}: loader {ref.loader} needs 'endpoint:' and the option 'model'")
    key = None
    if variable is not None:
        # A preset may come from somebody else. The name's form keeps it from sending other secrets to its endpoint.
        if not str(variable).endswith("_API_KEY"):
            raise UsageError(f"{ref.mark}: api_key_env is {variable!r}; expected a name that ends in _API_KEY")
        key = os.environ.get(str(variable))
        if not key:
            raise MissingError(f"{ref.endpoint} needs an API key: set the environment variable {variable}")
    try:
        timeout = float(ref.options.get("timeout", 120.0))
        return make(ref.endpoint, model, key, timeout=timeout)
    except ValueError as error:
        raise UsageError(f"{ref.mark}: {error}") from error


def template_of(ref: ModelRef) -> Any:
    template = ref.options.get("template", "few_shot")
    if template not in TEMPLATES:
        raise UsageError(f"{ref.mark}: template is {template!r}; choose {' or '.join(TEMPLATES)}")
    return template
