"""Safetensors files: read as numpy arrays, so that a report of a cached run need not import torch, and written."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1",
    "BOOL": "?",
}  # fmt: skip
_SYSTEM = re.compile(r"\(os error (\d+)\)")


def write_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write a safetensors file.

    Raises:
        OSError: it can't be written; safetensors has an error of its own for that, without the number.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(dict(tensors), path)
    except SafetensorError as error:
        if (found := _SYSTEM.search(str(error))) is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file, memory-mapped where numpy has the type; bfloat16 comes back as float32.

    Raises:
        ValueError: the file is damaged or has a type that numpy lacks.
        OSError: it can't be read.
    """
    return {name: _array(raw, entry["dtype"]).reshape(entry["shape"]) for name, (entry, raw) in read_raw(path).items()}


def read_raw(path: Path) -> dict[str, tuple[dict[str, Any], np.ndarray]]:
    """The header's entry (dtype, shape) and the bytes, memory-mapped, of each tensor of a safetensors file.

    Raises:
        ValueError: the file is damaged.
        OSError: it can't be read.
    """
    import numpy as np

    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError(f"{path.name} is no safetensors file")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    if all(entry["data_offsets"][0] == entry["data_offsets"][1] for entry in header.values()):
        return {name: (entry, np.empty(0, np.uint8)) for name, entry in header.items()}  # nothing to map
    data = np.memmap(path, dtype=np.uint8, mode="r", offset=8 + length)
    return {name: (entry, data[slice(*entry["data_offsets"])]) for name, entry in header.items()}


def _array(raw: np.ndarray, dtype: str) -> np.ndarray:
    import numpy as np

    if dtype == "BF16":  # the upper half of a float32
        return (raw.view("<u2").astype("<u4") << 16).view("<f4")
    if dtype not in _DTYPES:
        raise ValueError(f"dtype {dtype} is unknown to numpy")
    return raw.view(np.dtype(_DTYPES[dtype]))
