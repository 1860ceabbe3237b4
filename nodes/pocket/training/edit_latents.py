"""Latents of many edits, before and after, computed once for every training that learns from pairs."""

import dataclasses
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..catalogue import Vocabulary
from ..edits import Edit, sample_edit
from ..world import Item, Scene, Split
from .latents import CHUNK, encode
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
    steps: Steps,
    log: Log,
) -> None:
    """Draw `count` training edits (rounded up to whole chunks) and save them to `out` with their latents."""
    with tempfile.TemporaryDirectory() as folder:  # the processes get the weights as a folder
        vae.save_pretrained(folder)
        jobs = [(Path(folder), words, f"{seed}/{number}") for number in range(-(-count // CHUNK))]
        numbers = iter(steps(range(len(jobs))))
        done = [part for part, _ in zip(_chunks(jobs, workers), numbers, strict=True)]
    out.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: torch.cat([part[n] for part in done]).half().contiguous() for n, name in enumerate(("before", "after"))
    }
    save_file(tensors, out / "latents.safetensors")
    edits = [dataclasses.asdict(edit) for part in done for edit in part[2]]
    (out / "edits.json").write_text(json.dumps(edits))
    log(f"{len(edits)} edits")


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


Job = tuple[Path, Vocabulary, str]
Part = tuple[Tensor, Tensor, list[Edit]]


def _chunks(jobs: list[Job], workers: int) -> Iterator[Part]:
    if workers == 1:
        yield from map(_encode_chunk, jobs)
        return
    with mp.get_context("spawn").Pool(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield from pool.imap(_encode_chunk, jobs)


def _encode_chunk(job: Job) -> Part:
    folder, words, key = job
    vae = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32).eval()
    rng = random.Random(f"edits/{key}")
    edits = [sample_edit(rng, words, Split.TRAIN) for _ in range(CHUNK)]
    before, after = (encode(vae, [getattr(edit, side) for edit in edits], words.size) for side in ("before", "after"))
    return before, after, edits
