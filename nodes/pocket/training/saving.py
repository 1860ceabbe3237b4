"""Saving of models in their class's own format, at half precision."""

import copy
import json
from pathlib import Path

from torch import nn


def save_half(model: nn.Module, out: Path) -> None:
    """Save a diffusers or transformers model with float16 tensors; `model` itself stays as it is."""
    half = copy.deepcopy(model).cpu().half()
    half.save_pretrained(out)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)  # diffusers keeps the folder that a model came from
    if "dtype" in config:  # transformers would load in the type it finds here
        config["dtype"] = "float32"
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
