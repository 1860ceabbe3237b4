"""What the loaders share: reading folders of the hub's layouts strictly."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphflow.errors import GraphflowError, MissingError
from graphflow.models.refs import ModelRef
from graphflow.models.sharing import shared

if TYPE_CHECKING:
    import torch

# Repositories often hold the same weights several times, as in model.fp16.safetensors. These patterns match the plain
# file and its shards (…-00001-of-00002.safetensors) and no variant.
TRANSFORMERS_WEIGHTS = "{part}model[.-][s0]*tensors"
PREPROCESSING = "{part}*processor_config.json"
TEXT_FILES = "{part}*.[jt][sxi]*"  # .json, .txt and .jinja: configs, vocabularies, chat templates

TOWERS = ("vision_model", "visual_projection", "text_model", "text_projection")
"""The parts of a CLIP that also serve alone, as image encoder or text encoder."""


def part_folder(ref: ModelRef, folder: Path | None) -> Path:
    """The model's own folder."""
    if folder is None:
        raise MissingError(f"loader {ref.loader} reads a folder: bind {ref.role} to hub, path or packaged")
    if not (folder / ref.part).is_dir():
        raise MissingError(f"{folder} has no sub-folder '{ref.part}', where {ref.role} should be")
    return folder / ref.part


def subfolder(ref: ModelRef, folder: Path | None, option: str, default: Path) -> Path:
    named = ref.options.get(option)
    found = default if named is None else Path(str(folder)) / str(named)
    if named is not None and not Path(os.path.normpath(found)).is_relative_to(Path(os.path.normpath(str(folder)))):
        raise MissingError(f"{option} of {ref.role} leaves its folder: {named}")
    if not found.is_dir():
        raise MissingError(f"{folder} has no sub-folder '{found.name}' ({option} of {ref.role})")
    return found


def read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MissingError(f"{path.parent} has no file {path.name}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise GraphflowError(f"{path} is no JSON: {error}") from error
    if not isinstance(data, dict):
        raise GraphflowError(f"{path} holds a {type(data).__name__}, expected a mapping")
    return data


def check_weights(folder: Path, stem: str) -> None:
    """Refuse a folder without safetensors before a library looks for other formats."""
    if not any(folder.glob(f"{stem}.safetensors")) and not (folder / f"{stem}.safetensors.index.json").is_file():
        others = sorted(
            p.name for p in folder.glob("*") if p.suffix in (".bin", ".ckpt", ".pt", ".pth", ".h5", ".msgpack")
        )
        found = f"; it has {', '.join(others)}, which is not loaded" if others else ""
        raise MissingError(f"{folder} has no {stem}.safetensors{found}")


def from_diffusers(cls: Any, folder: Path, dtype: torch.dtype) -> Any:
    config = read_json(folder / "config.json")
    if config.get("_class_name") != cls.__name__:
        raise GraphflowError(f"{folder}/config.json describes a {config.get('_class_name')}, expected {cls.__name__}")
    check_weights(folder, "diffusion_pytorch_model")
    return strict(cls, folder, torch_dtype=dtype, use_safetensors=True, local_files_only=True)


def from_transformers(cls: Any, folder: Path, dtype: torch.dtype, **how: Any) -> Any:
    """A model of transformers. Raises GraphflowError or MissingError when the folder holds something else."""
    config = read_json(folder / "config.json")
    check_weights(folder, "model")
    architectures = config.get("architectures") or []
    auto = cls.__name__.startswith("Auto")
    # A CLIP text encoder is also found inside a whole CLIP, whose config names the whole.
    if not auto and architectures and not {cls.__name__, "CLIPModel"} & set(architectures):
        raise GraphflowError(f"{folder}/config.json describes {', '.join(architectures)}, expected {cls.__name__}")
    return strict(cls, folder, dtype=dtype, use_safetensors=True, local_files_only=True, trust_remote_code=False, **how)


def strict(cls: Any, folder: Path, **how: Any) -> Any:
    """`from_pretrained`, but weights that are missing or have another shape are an error instead of random numbers."""
    from safetensors import SafetensorError

    from graphflow.nodes.lib import int8
    from graphflow.nodes.loaders.threads import others_undisturbed

    try:
        with _no_bars(), others_undisturbed(cls):
            model, report = int8.from_pretrained(cls, folder, output_loading_info=True, **how)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise GraphflowError(f"{folder} can't be loaded as {cls.__name__}: {error}") from error
    _all_there(folder, cls.__name__, [*report["missing_keys"], *report["mismatched_keys"]])
    return model


def shared_tower(folder: Path, dtype: torch.dtype, name: str, make: Callable[[], Any]) -> Any:
    """One of the `TOWERS` of the CLIP in a folder, held once by all models that have it."""
    stamps = [
        (path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.glob("*.safetensors"))
    ]
    return shared((str(folder.resolve()), *stamps, str(dtype), name), make)


def fill(model: Any, folder: Path, stem: str, ignore: tuple[str, ...] = ()) -> None:
    """Give a module of a library without `from_pretrained` the weights of ``{stem}.safetensors``, or of its shards.

    Args:
        model: a `torch.nn.Module` on the CPU.
        folder: where the file lies.
        stem: its name.
        ignore: beginnings of names that may be missing, and of those in the file that are not wanted.

    Raises:
        MissingError: there is no such file.
        GraphflowError: it can't be read, or weights are missing, misshapen or of another model.
    """
    from safetensors import SafetensorError

    from graphflow.nodes.lib import int8

    check_weights(folder, stem)
    tensors: dict[str, Any] = {}
    try:
        for path in sorted(folder.glob(f"{stem}[.-]*safetensors")):
            tensors |= int8.read(path)
    except (OSError, SafetensorError) as error:
        raise GraphflowError(f"{folder} can't be loaded as {type(model).__name__}: {error}") from error
    # Counters of batch normalisation came into PyTorch late; they do nothing outside training.
    counts = ".num_batches_tracked"
    named = model.state_dict()
    wanted = {k: v for k, v in named.items() if not k.startswith(ignore or "\0") and not k.endswith(counts)}
    _all_there(folder, type(model).__name__, [k for k, v in wanted.items() if _shape(tensors.get(k)) != _shape(v)])
    foreign = [k for k in tensors if k not in named and not k.startswith(ignore or "\0")]
    if foreign:
        raise GraphflowError(f"{folder} is no {type(model).__name__}: it has other weights too: {_some(foreign)}")
    model.load_state_dict({k: v for k, v in tensors.items() if k in wanted}, strict=False)


def weights_name(ref: ModelRef) -> str:
    """Which weights these are, for the record of a score: without the place where they lie on this machine."""
    return ref.path.name if ref.path else ref.describe()


def need(package: str, ref: ModelRef) -> Any:
    """An optional library.

    Raises:
        MissingError: it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise MissingError(
            f"loader {ref.loader} needs the package {error.name}: pip install 'graphflow-diffusion[metrics]'"
        ) from error


def _all_there(folder: Path, name: str, missing: list[Any]) -> None:
    if missing:
        listed = _some(sorted(map(str, missing)))
        raise GraphflowError(f"{folder} is no {name}: {len(missing)} weights are missing or misshapen: {listed}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")


def _shape(tensor: Any) -> tuple[int, ...] | None:
    return None if tensor is None else tuple(tensor.shape)


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


def tokenizer_of(cls: Any, folder: Path) -> Any:
    names = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model")
    if not any((folder / name).is_file() for name in names):
        raise MissingError(f"{folder} has no tokenizer: none of {', '.join(names)}")
    try:
        return cls.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise GraphflowError(f"{folder}: the tokenizer can't be loaded as {cls.__name__}: {error}") from error


def preprocessing_of(cls: Any, folder: Path, **how: Any) -> Any:
    # PIL classes on purpose: the default ones resize through torchvision where that is installed, with other pixels.
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        raise MissingError(f"{folder} has no preprocessor_config.json and no processor_config.json")
    try:
        return cls.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **how)
    except (OSError, ValueError, TypeError, KeyError, ImportError) as error:
        raise GraphflowError(f"{folder}: the image preprocessing can't be loaded: {error}") from error
