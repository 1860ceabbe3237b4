"""Latents of many edits, before and after, computed once for every training that learns from pairs."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..catalogue import Vocabulary
from ..edits import Edit, sample_edit
from ..world import Item, Scene, Split
from .chunks import Source, encoded
from .loop import Log, Steps


@dataclasses.dataclass(frozen=True)
class EncodedEdits:
    """Edits with the latents of both pictures, float16 (count, channels, height, width)."""

    before: Tensor
    after: Tensor
    edits: list[Edit]


def encode_edits(
    out: Path,
    vae: AutoencoderKL,
    words: Vocabulary,
    *,
    count: int,
    seed: int,
    workers: int,
    checkpoint: Path | None = None,
    steps: Steps,
    log: Log,
) -> None:
    """Draw `count` training edits (rounded up to whole chunks) and save them to `out` with their latents."""
    source = Source(sample_edit, (words, Split.TRAIN), _sides, dataclasses.asdict, words.size)
    made = {"count": count, "key": f"edits/{seed}", "workers": workers, "kept": checkpoint, "steps": steps}
    latents, edits = encoded(source, vae, **made)
    out.mkdir(parents=True, exist_ok=True)
    tensors = {name: latents[:, n].contiguous() for n, name in enumerate(("before", "after"))}
    save_file(tensors, out / "latents.safetensors")
    (out / "edits.json").write_text(json.dumps(edits))
    log(f"{len(edits)} edits")


def _sides(edit: Edit) -> tuple[Scene, Scene]:
    return edit.before, edit.after


def load_edits(folder: Path) -> EncodedEdits:
    """What `encode_edits` saved."""
    tensors = load_file(folder / "latents.safetensors")
    edits = [
        Edit(row["kind"], _scene(row["before"]), _scene(row["after"]), row["instruction"])
        for row in json.loads((folder / "edits.json").read_text())
    ]
    return EncodedEdits(tensors["before"], tensors["after"], edits)


def _scene(row: dict[str, Any]) -> Scene:
    return Scene(**{**row, "items": tuple(Item(**item) for item in row["items"])})
