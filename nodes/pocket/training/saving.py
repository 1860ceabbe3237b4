"""Saving of models in their class's own format, at half precision."""

import copy
import os
import shutil
from pathlib import Path

import torch
from torch import nn


def save_half(model: nn.Module, out: Path) -> None:
    """Save a diffusers or transformers model with float16 tensors; `model` itself stays as it is."""
    half = copy.deepcopy(model).cpu().half()
    half.save_pretrained(out)
    config = half.config
    if hasattr(config, "dtype"):  # transformers would load in the type it finds here
        config.dtype = torch.float32
        config.save_pretrained(out)


def replace_folder(new: Path, old: Path) -> None:
    """Put the folder `new` in the place of `old` with renames only, so that a reader never sees half of it."""
    aside = old.with_name(f".{old.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    old.parent.mkdir(parents=True, exist_ok=True)
    if old.exists():
        os.replace(old, aside)
    os.replace(new, old)
    shutil.rmtree(aside, ignore_errors=True)
