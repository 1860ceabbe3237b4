"""Weights as 8-bit integers with a scale for each output channel: half the size of float16.

A weight is at most 1/254 of its channel's largest one off. A safetensors file of this kind says so in its header,
``storage: int8-per-output-channel``. In it a weight W of at least two dimensions is W_int8 under its own name and a
float16 scale s for each first index under ``<name>.int8_scale``, with W ≈ s · W_int8; everything else is float16, but
for weights that were to stay as they were. The files keep the names, the shards and the index of the library that they
belong to, so that the rest of the folder stays as it is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

STORAGE = "int8-per-output-channel"
SCALE = ".int8_scale"
LEVELS = 127


def quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """W as (int8, float16 scale of each first index): the largest value of each channel becomes about ±127."""
    rows = weight.detach().float().flatten(1)
    # Rounded up to float16, its subnormal numbers too, so that no level exceeds 127.
    scale = (rows.abs().amax(dim=1) / LEVELS * (1 + 2**-11) + 2**-25).half().clamp(min=2**-24)
    levels = (rows / scale.float()[:, None]).round()
    return levels.to(torch.int8).view_as(weight), scale


def dequantised(weight: Tensor, scale: Tensor) -> Tensor:
    """s · W_int8, float32."""
    return weight.float() * scale.float().view(-1, *[1] * (weight.dim() - 1))


def to_int8(tensors: Mapping[str, Tensor], leave: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """What stands in a file: weights of at least two dimensions as int8 with scales, the other numbers as float16.

    Tensors whose names begin with one of `leave` stay as they are.
    """
    stored: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name.startswith(leave):
            stored[name] = value
        elif value.is_floating_point() and value.dim() >= 2:
            stored[name], stored[name + SCALE] = quantised(value)
        else:
            stored[name] = value.half() if value.is_floating_point() else value
    return stored


def from_int8(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `to_int8`, within half a step: int8 weights in float32, the rest as it is."""
    return {
        name: dequantised(value, stored[name + SCALE]) if name + SCALE in stored else value
        for name, value in stored.items()
        if not name.endswith(SCALE)
    }


def is_int8(file: Path) -> bool:
    """Whether a safetensors file says that it is of this kind.

    Raises:
        SafetensorError: it is no safetensors file.
    """
    with safe_open(file, "pt") as opened:
        return (opened.metadata() or {}).get("storage") == STORAGE


def read(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file of either kind.

    Raises:
        SafetensorError: it is no safetensors file.
    """
    from safetensors.torch import load_file

    return from_int8(load_file(file)) if is_int8(file) else load_file(file)


def store(folder: Path, leave: tuple[str, ...] = ()) -> None:
    """Rewrite every safetensors file of a model's folder, and the index of its shards, in place; see `to_int8`."""
    for file in sorted(folder.glob("*.safetensors")):
        if not is_int8(file):
            with safe_open(file, "pt") as opened:
                tensors = {name: opened.get_tensor(name) for name in list(opened.keys())}
            part = file.with_name(f"{file.name}.part")
            save_file(to_int8(tensors, leave), part, {"format": "pt", "storage": STORAGE})
            os.replace(part, file)
    for index in folder.glob("*.safetensors.index.json"):
        _index(folder, index)


def _index(folder: Path, index: Path) -> None:
    content: dict[str, Any] = json.loads(index.read_text(encoding="utf-8"))
    places: dict[str, str] = {}
    for name in sorted(set(content["weight_map"].values())):
        with safe_open(folder / name, "pt") as opened:
            places |= dict.fromkeys(list(opened.keys()), name)
    content["weight_map"] = dict(sorted(places.items()))
    content["metadata"]["total_size"] = sum((folder / name).stat().st_size for name in set(places.values()))
    index.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def weights_of(folder: Path, stem: str) -> dict[str, Tensor] | None:
    """All weights of ``{stem}.safetensors`` or its shards, dequantised; None where the folder has no int8 weights.

    Raises:
        SafetensorError: a file is no safetensors file.
    """
    files = sorted(folder.glob(f"{stem}[.-]*safetensors"))
    if not any(is_int8(file) for file in files):
        return None
    return {name: value for file in files for name, value in read(file).items()}


def from_pretrained(cls: Any, folder: Path, **how: Any) -> Any:
    """As ``cls.from_pretrained(folder, **how)`` of diffusers or transformers, for a folder of either kind.

    Raises:
        RuntimeError: int8 weights of a diffusers model are missing, misshapen or of another model.
    """
    if (weights := weights_of(folder, "diffusion_pytorch_model")) is not None:
        return _of_diffusers(cls, folder, weights, **how)
    if (weights := weights_of(folder, "model")) is not None:
        return _of_transformers(cls, folder, weights, **how)
    return cls.from_pretrained(folder, **how)


def _of_diffusers(
    cls: Any,
    folder: Path,
    weights: Mapping[str, Tensor],
    torch_dtype: torch.dtype = torch.float32,
    output_loading_info: bool = False,
    **how: Any,
) -> Any:
    model = cls.from_config(cls.load_config(folder, local_files_only=True))
    model.load_state_dict({name: value.to(torch_dtype) for name, value in weights.items()}, assign=True)
    model.register_to_config(_name_or_path=str(folder))  # as from_pretrained does
    return (model.eval(), {"missing_keys": [], "mismatched_keys": []}) if output_loading_info else model.eval()


def _of_transformers(cls: Any, folder: Path, weights: Mapping[str, Tensor], **how: Any) -> Any:
    from transformers import AutoConfig, GenerationConfig

    config = (getattr(cls, "config_class", None) or AutoConfig).from_pretrained(folder, local_files_only=True)
    if cls.__name__.startswith("Auto"):
        with torch.device("meta"):
            cls = type(cls.from_config(config))  # an Auto class takes no weights
    found = cls.from_pretrained(None, config=config, state_dict=weights, **how)
    model = found[0] if isinstance(found, tuple) else found
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return found
