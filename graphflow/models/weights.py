"""What a model is, and how much memory it will take, before it is loaded. Imports no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from graphflow.errors import MissingError
from graphflow.models.files import local_folder, model_files
from graphflow.models.refs import Loader, ModelRef, loaders

# Bytes of an element in a safetensors header; types of less than a byte are packed.
_WIDTHS = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "F4": 0.5,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
_FLOATING = ("F64", "F32", "F16", "BF16")  # what loaders turn into the run's type
_IN_MEMORY = {"float32": 4, "bfloat16": 2, "float16": 2}
_SCALE = ".int8_scale"  # stands beside weights that a file holds as int8 and loaders turn into the run's type
_LONGEST_HEADER = 100 * 2**20  # the format's own limit


def model_key(ref: ModelRef) -> str:
    """The identity of what is loaded: equal for two roles, or entries of two presets, that load the same thing alike.

    It reads ``stable-diffusion-v1-5/stable-diffusion-v1-5@451f4fe16113/vae (diffusers.vae)``.
    """
    loader = loaders().get(ref.loader)
    how = [ref.loader if loader is None else _first_name(loader)]
    if dtype := ref.dtype or (loader.dtype if loader is not None else ""):
        how.append(dtype)
    if ref.options:
        how.append(json.dumps(dict(ref.options), sort_keys=True))
    return f"{ref.describe()} ({', '.join(how)})"


def _first_name(loader: Loader) -> str:
    """The first of the names that its function is registered under."""
    return next(other.name for other in loaders().values() if other.load is loader.load)


def weight_bytes(ref: ModelRef, dtype: str) -> int:
    """Bytes that the model takes in memory, read from the headers of its safetensors files.

    Exact but for what a library keeps in another type than the one that it is asked for.

    Args:
        ref: the model.
        dtype: the run's floating-point type, for a model that names none itself.

    Returns:
        Its size; 0 for a service, and for a model that is not on this machine.
    """
    folder, loader = local_folder(ref), loaders().get(ref.loader)
    if folder is None or loader is None:
        return 0
    try:
        files = [path for path in model_files(ref, folder) if path.suffix == ".safetensors"]
        width = _IN_MEMORY[ref.dtype or loader.dtype or dtype]
        return sum(_size(path, width, loader) for path in files)
    except (MissingError, OSError, ValueError, KeyError):
        return 0  # loading it will say what is wrong


def _size(path: Path, width: int, loader: Loader) -> int:
    status = path.stat()
    tensors = tensors_of(path, status.st_size, status.st_mtime_ns)
    kept = [name for name in tensors if name.startswith(loader.keeps)] if loader.keeps else []
    return sum(_bytes(name, tensors, width) for name in kept or tensors if not name.endswith(_SCALE))


def _bytes(name: str, tensors: Mapping[str, Any], width: int) -> int:
    kind = tensors[name]["dtype"]
    in_runs_type = kind in _FLOATING or name + _SCALE in tensors
    return int(math.prod(tensors[name]["shape"]) * (width if in_runs_type else _WIDTHS.get(kind, width)))


@lru_cache(maxsize=256)
def tensors_of(path: Path, length: int, changed: int) -> Mapping[str, Any]:
    """Name → dtype and shape of the tensors in a safetensors file; size and time of change say which file it was.

    Raises:
        ValueError: it is no safetensors file.
    """
    with path.open("rb") as file:
        count = int.from_bytes(file.read(8), "little")
        if not 0 < count <= min(length - 8, _LONGEST_HEADER):
            raise ValueError(f"{path} is no safetensors file")
        header = json.loads(file.read(count))
    if not isinstance(header, dict):
        raise ValueError(f"{path} is no safetensors file")
    return {name: entry for name, entry in header.items() if name != "__metadata__"}
