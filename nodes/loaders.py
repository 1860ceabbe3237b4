"""The standard loaders: from a preset's entry to a loaded model.

Local weights are read as safetensors only, from files that are here already, and no code that comes with a checkpoint
is run. This module is imported to check presets, so it imports torch only while it loads.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphflow.errors import GraphflowError, MissingError, UsageError
from graphflow.models.refs import ModelRef, loader

if TYPE_CHECKING:
    import torch

# Repositories often hold the same weights several times, as in model.fp16.safetensors. These patterns match the plain
# file and its shards (…-00001-of-00002.safetensors) and no variant.
DIFFUSERS_WEIGHTS = "{part}diffusion_pytorch_model[.-][s0]*tensors"
TRANSFORMERS_WEIGHTS = "{part}model[.-][s0]*tensors"
TEXT_FILES = "{part}*.[jt][sxi]*"  # .json, .txt and .jinja: configs, vocabularies, chat templates
TEMPLATES = ("few_shot", "edit_pair")
TEMPLATE_OPTION = {"template": "how the model is asked for captions of an edit: few_shot (default) or edit_pair"}
TOKENIZER_OPTION = {"tokenizer": "sub-folder of the repository that holds the tokenizer; left out: the model's folder"}


@loader("diffusers.vae", role="vae", files=("{part}config.json", DIFFUSERS_WEIGHTS))
def load_vae(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """An autoencoder of diffusers, as `nodes.lib.vae.VAE`."""
    from diffusers import AutoencoderKL

    from graphflow.nodes.lib.vae import VAE

    return VAE(_diffusers(AutoencoderKL, _part(ref, folder), dtype).to(device))


@loader(
    "diffusers.unet",
    role="denoiser",
    files=("{part}config.json", DIFFUSERS_WEIGHTS, "{scheduler}*scheduler_config.json"),
    options={
        "scheduler": "sub-folder of the repository that holds the scheduler; left out: 'scheduler' beside a part, "
        "otherwise the model's folder"
    },
)
def load_unet(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """A UNet of diffusers with its noise schedule, as `nodes.lib.denoiser.Denoiser`."""
    from diffusers import UNet2DConditionModel

    from graphflow.nodes.lib.denoiser import Denoiser

    part = _part(ref, folder)
    beside = part.parent / "scheduler" if ref.part else part
    schedule = _read_json(_subfolder(ref, folder, "scheduler", beside) / "scheduler_config.json")
    unet = _diffusers(UNet2DConditionModel, part, dtype).to(device)
    try:
        return Denoiser(unet, schedule)
    except ValueError as error:
        raise GraphflowError(f"{part}: {error}") from error


@loader(
    "transformers.clip_text",
    role="text_encoder",
    files=("{part}config.json", TRANSFORMERS_WEIGHTS, "{tokenizer}*tokenizer_config.json", "{tokenizer}*.[jt][sxi]*"),
    options=TOKENIZER_OPTION,
)
def load_clip_text(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """A CLIP text encoder, as `nodes.lib.text_encoder.TextEncoder`."""
    from transformers import CLIPTextModel, CLIPTokenizer

    from graphflow.nodes.lib.text_encoder import TextEncoder

    part = _part(ref, folder)
    model = _transformers(CLIPTextModel, part, dtype).to(device)
    return TextEncoder(_tokenizer(CLIPTokenizer, _subfolder(ref, folder, "tokenizer", part)), model)


@loader(
    "transformers.clip",
    role="clip",
    files=("{part}config.json", "{part}*processor_config.json", TRANSFORMERS_WEIGHTS, TEXT_FILES),
)
def load_clip(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """A CLIP of two towers, as `nodes.lib.clip.CLIP`."""
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    from graphflow.nodes.lib.clip import CLIP

    part = _part(ref, folder)
    model = _transformers(CLIPModel, part, dtype).to(device)
    return CLIP(model, _preprocessing(CLIPImageProcessorPil, part), _tokenizer(CLIPTokenizer, part))


@loader(
    "transformers.blip",
    role="captioner",
    files=("{part}config.json", "{part}*processor_config.json", TRANSFORMERS_WEIGHTS, TEXT_FILES),
)
def load_blip(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """A BLIP captioner, as `nodes.lib.captioner.Captioner`."""
    from transformers import BertTokenizerFast, BlipForConditionalGeneration, BlipImageProcessorPil

    from graphflow.nodes.lib.captioner import Captioner

    part = _part(ref, folder)
    model = _transformers(BlipForConditionalGeneration, part, dtype).to(device)
    return Captioner(model, _preprocessing(BlipImageProcessorPil, part), _tokenizer(BertTokenizerFast, part))


@loader(
    "transformers.image_to_text",
    role="captioner",
    files=("{part}config.json", "{part}*processor_config.json", TRANSFORMERS_WEIGHTS, TEXT_FILES),
    options={"question": "what the model is asked; left out: a description in one short sentence"},
)
def load_image_to_text(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """Any vision-language model of transformers with a chat template, as `nodes.lib.captioner.ChatCaptioner`."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from graphflow.nodes.lib.captioner import QUESTION, ChatCaptioner

    part = _part(ref, folder)
    model = _transformers(AutoModelForImageTextToText, part, dtype).to(device)
    processor = _preprocessing(AutoProcessor, part, backend="pil")
    if not getattr(processor, "chat_template", None):
        raise GraphflowError(f"{part} has no chat template (chat_template.jinja), which loader {ref.loader} needs")
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

    part = _part(ref, folder)
    model = _transformers(AutoModelForCausalLM, part, dtype).to(device)
    return CausalLM(_tokenizer(AutoTokenizer, part), model, _template(ref))


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

    part = _part(ref, folder)
    model = _transformers(AutoModelForSeq2SeqLM, part, dtype).to(device)
    return Seq2SeqLM(_tokenizer(AutoTokenizer, part), model, _template(ref))


@loader(
    "openai",
    role="llm",
    options={
        "model": "the model's name at the service",
        "api_key_env": "environment variable that holds the API key, such as OPENAI_API_KEY; left out: none is sent",
        "timeout": "seconds to wait for an answer (120)",
        **TEMPLATE_OPTION,
    },
)
def load_openai(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """A service that speaks OpenAI's chat protocol, as `nodes.lib.openai_chat.OpenAIChat`. Nothing is sent yet."""
    from graphflow.nodes.lib.openai_chat import OpenAIChat

    model, variable = ref.options.get("model"), ref.options.get("api_key_env")
    if not ref.endpoint or not isinstance(model, str):
        raise UsageError(f"{ref.mark}: loader openai needs 'endpoint:' and the option 'model'")
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
        return OpenAIChat(ref.endpoint, model, key, template=_template(ref), timeout=timeout)
    except ValueError as error:
        raise UsageError(f"{ref.mark}: {error}") from error


def _part(ref: ModelRef, folder: Path | None) -> Path:
    """The model's own folder."""
    if folder is None:
        raise MissingError(f"loader {ref.loader} reads a folder: bind {ref.role} to hub, path or packaged")
    if not (folder / ref.part).is_dir():
        raise MissingError(f"{folder} has no sub-folder '{ref.part}', where {ref.role} should be")
    return folder / ref.part


def _subfolder(ref: ModelRef, folder: Path | None, option: str, default: Path) -> Path:
    named = ref.options.get(option)
    found = default if named is None else Path(str(folder)) / str(named)
    if not found.is_dir():
        raise MissingError(f"{folder} has no sub-folder '{found.name}' ({option} of {ref.role})")
    return found


def _template(ref: ModelRef) -> Any:
    template = ref.options.get("template", "few_shot")
    if template not in TEMPLATES:
        raise UsageError(f"{ref.mark}: template is {template!r}; choose {' or '.join(TEMPLATES)}")
    return template


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MissingError(f"{path.parent} has no file {path.name}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise GraphflowError(f"{path} is no JSON: {error}") from error
    if not isinstance(data, dict):
        raise GraphflowError(f"{path} holds a {type(data).__name__}, expected a mapping")
    return data


def _check_weights(folder: Path, stem: str) -> None:
    """Refuse a folder without safetensors before a library looks for other formats."""
    if not any(folder.glob(f"{stem}.safetensors")) and not (folder / f"{stem}.safetensors.index.json").is_file():
        others = sorted(
            p.name for p in folder.glob("*") if p.suffix in (".bin", ".ckpt", ".pt", ".pth", ".h5", ".msgpack")
        )
        found = f"; it has {', '.join(others)}, which is not loaded" if others else ""
        raise MissingError(f"{folder} has no {stem}.safetensors{found}")


def _diffusers(cls: Any, folder: Path, dtype: torch.dtype) -> Any:
    config = _read_json(folder / "config.json")
    if config.get("_class_name") != cls.__name__:
        raise GraphflowError(f"{folder}/config.json describes a {config.get('_class_name')}, expected {cls.__name__}")
    _check_weights(folder, "diffusion_pytorch_model")
    return _strict(cls, folder, torch_dtype=dtype, use_safetensors=True, local_files_only=True)


def _transformers(cls: Any, folder: Path, dtype: torch.dtype) -> Any:
    config = _read_json(folder / "config.json")
    _check_weights(folder, "model")
    architectures = config.get("architectures") or []
    auto = cls.__name__.startswith("Auto")
    # A CLIP text encoder is also found inside a whole CLIP, whose config names the whole.
    if not auto and architectures and not {cls.__name__, "CLIPModel"} & set(architectures):
        raise GraphflowError(f"{folder}/config.json describes {', '.join(architectures)}, expected {cls.__name__}")
    return _strict(cls, folder, dtype=dtype, use_safetensors=True, local_files_only=True, trust_remote_code=False)


def _strict(cls: Any, folder: Path, **how: Any) -> Any:
    """`from_pretrained`, but weights that are missing or have another shape are an error instead of random numbers."""
    from safetensors import SafetensorError

    try:
        with _no_bars():
            model, report = cls.from_pretrained(folder, output_loading_info=True, **how)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise GraphflowError(f"{folder} can't be loaded as {cls.__name__}: {error}") from error
    missing = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if missing:
        some = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        raise GraphflowError(f"{folder} is no {cls.__name__}: {len(missing)} weights are missing or misshapen: {some}")
    return model


@contextmanager
def _no_bars() -> Iterator[None]:
    """The libraries' own progress bars would tear the display of the run."""
    found = [sys.modules.get(f"{library}.utils.logging") for library in ("diffusers", "transformers")]
    enabled = [logging for logging in found if logging is not None and logging.is_progress_bar_enabled()]
    for logging in enabled:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        for logging in enabled:
            logging.enable_progress_bar()


def _tokenizer(cls: Any, folder: Path) -> Any:
    names = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model")
    if not any((folder / name).is_file() for name in names):
        raise MissingError(f"{folder} has no tokenizer: none of {', '.join(names)}")
    try:
        return cls.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise GraphflowError(f"{folder}: the tokenizer can't be loaded as {cls.__name__}: {error}") from error


def _preprocessing(cls: Any, folder: Path, **how: Any) -> Any:
    # PIL classes on purpose: the default ones resize through torchvision where that is installed, with other pixels.
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        raise MissingError(f"{folder} has no preprocessor_config.json and no processor_config.json")
    try:
        return cls.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **how)
    except (OSError, ValueError, TypeError, KeyError, ImportError) as error:
        raise GraphflowError(f"{folder}: the image preprocessing can't be loaded: {error}") from error
