"""The state of a long optimisation on disk, so that a killed one goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

FILE = "state.safetensors"


def save_state(folder: Path, tensors: Mapping[str, Tensor], numbers: Mapping[str, float]) -> None:
    """Write the state in place of the last one; a crash leaves either of them whole."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    about = {"numbers": json.dumps(dict(numbers)), "digest": _digest(whole)}
    save_file(whole, folder / f"{FILE}.part", about)
    os.replace(folder / f"{FILE}.part", folder / FILE)


def load_state(folder: Path | None) -> tuple[dict[str, Tensor], dict[str, float]] | None:
    """Tensors and numbers of the last `save_state`, on the CPU; None when there is none, or it is damaged."""
    if folder is None or not (folder / FILE).is_file():
        return None
    try:
        with safe_open(folder / FILE, framework="pt") as opened:
            about = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  no mapping
        if about["digest"] != _digest(tensors):
            return None
        return tensors, json.loads(about["numbers"])
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def _digest(tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(name.encode())
        total.update(tensors[name].numpy().tobytes())
    return total.hexdigest()
