"""Latents of very many pictures, made in chunks: by several processes, and kept, so that a killed run goes on."""

import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor

from graphflow.machine import cores

from ..world import Scene
from .loop import Steps
from .pictures import pixels_of

CHUNK = 512  # samples that share a seed
PART = 16  # pictures encoded at once on a CPU: more don't fit its caches, and take twice as long
ACCELERATOR_PART = 256


@dataclass(frozen=True)
class Source:
    """Where samples come from. All three functions are looked up by name in other processes."""

    draw: Callable[..., Any]  # one sample from (generator, *arguments)
    arguments: tuple[Any, ...]
    scenes: Callable[[Any], tuple[Scene, ...]]  # the pictures of a sample
    row: Callable[[Any], dict[str, Any]]  # the sample as JSON
    size: int  # side of the pictures

    def samples(self, key: str) -> list[Any]:
        """The samples of a chunk."""
        rng = random.Random(key)
        return [self.draw(rng, *self.arguments) for _ in range(CHUNK)]

    def pictures(self, samples: list[Any]) -> Tensor:
        """The pictures of samples, float32 (samples · pictures of each, 3, size, size) in [-1, 1]."""
        return pixels_of([scene for sample in samples for scene in self.scenes(sample)], self.size)


def encoded(
    source: Source,
    vae: AutoencoderKL,
    *,
    count: int,
    key: str,
    workers: int,
    kept: Path | None,
    steps: Steps,
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Latents of at least `count` samples, rounded up to whole chunks, and the samples as JSON.

    Args:
        source: what to draw.
        vae: the encoder. On an accelerator it encodes there, while all cores draw.
        count: samples.
        key: the seed.
        workers: processes that draw and encode on the CPU.
        kept: a folder where finished chunks stay until all are.
        steps: shows the progress.

    Returns:
        float16 latents (samples, pictures of each, channels, height, width), scaled modes; a row for each sample.
    """
    jobs = [f"{key}/{number}" for number in range(-(-count // CHUNK))]
    files = [kept / f"chunk-{number:05d}.safetensors" if kept else None for number in range(len(jobs))]
    missing = [job for job, file in zip(jobs, files, strict=True) if file is None or not file.is_file()]
    fresh = _made(source, vae, missing, workers)
    parts = []
    for number in steps(range(len(jobs))):
        file = files[number]
        if file is not None and file.is_file():
            parts.append(_read(file))
            continue
        parts.append(next(fresh))
        if file is not None:
            _keep(file, *parts[-1])
    return torch.cat([latents for latents, _ in parts]), [row for _, rows in parts for row in rows]


Part = tuple[Tensor, list[dict[str, Any]]]


def _made(source: Source, vae: AutoencoderKL, jobs: Sequence[str], workers: int) -> Iterator[Part]:
    accelerator = vae.device.type != "cpu"
    workers = max(workers, cores()) if accelerator else workers
    if workers == 1:
        yield from map(_Work(source, vae), jobs)
        return
    work = _Work(source, None if accelerator else vae)
    with mp.get_context("spawn").Pool(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for part in pool.imap(work, jobs):
            yield encode(vae, *part) if accelerator else part


@dataclass(frozen=True)
class _Work:
    """What a process does for a chunk: draw, and encode if it has the encoder."""

    source: Source
    vae: AutoencoderKL | None

    def __call__(self, job: str) -> Part:
        samples = self.source.samples(job)
        rows, x_BCHW = [self.source.row(sample) for sample in samples], self.source.pictures(samples)
        return encode(self.vae, x_BCHW, rows) if self.vae is not None else (x_BCHW, rows)


@torch.no_grad()
def encode(vae: AutoencoderKL, x_BCHW: Tensor, rows: list[dict[str, Any]]) -> Part:
    """The scaled modes of the pictures' latents, float16 (rows, pictures of each, channels, height, width)."""
    device, modes = vae.device, []
    vae.to(memory_format=torch.channels_last)
    for part in x_BCHW.split(PART if device.type == "cpu" else ACCELERATOR_PART):
        x = part.to(device, vae.dtype, memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):  # as in the training; three times as fast as float32
            modes.append(vae.encode(x).latent_dist.mode().float().cpu())
    return (torch.cat(modes) * vae.config.scaling_factor).unflatten(0, (len(rows), -1)).half(), rows


def _keep(file: Path, latents: Tensor, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({"latents": latents.contiguous()}, f"{file}.part", {"rows": json.dumps(rows)})
    os.replace(f"{file}.part", file)


def _read(file: Path) -> Part:
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        return load_file(file)["latents"], json.loads(opened.metadata()["rows"])
