"""Latents of many pictures, computed once, so that the denoiser's training never waits for the autoencoder."""

import dataclasses
import json
import random
from collections.abc import Iterable
from pathlib import Path

import torch
import torch.multiprocessing as mp
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..catalogue import Vocabulary
from ..world import Item, Mixture, Scene, Split, sample_scene
from .loop import Log, Steps
from .pictures import pixels_of

CHUNK = 512  # pictures that share a seed


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Scenes with the latents of their pictures, float32 (count, channels, height, width)."""

    latents: Tensor
    scenes: list[Scene]


def encode_scenes(
    out: Path,
    vae: Path,
    words: Vocabulary,
    mixture: Mixture,
    *,
    count: int,
    seed: int,
    workers: int,
    steps: Steps,
    log: Log,
) -> None:
    """Draw `count` training scenes (rounded up to whole chunks) and save them to `out` with their latents."""
    chunks = -(-count // CHUNK)
    jobs = [(vae, words, mixture, f"{seed}/{number}") for number in range(chunks)]
    if workers == 1:
        done = [_encode_chunk(jobs[number]) for number in steps(range(chunks))]
    else:
        with mp.get_context("spawn").Pool(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            results = pool.imap(_encode_chunk, jobs)
            done = [next(results) for _ in steps(range(chunks))]
    out.mkdir(parents=True, exist_ok=True)
    save_file({"latents": torch.cat([latents for latents, _ in done]).half().contiguous()}, out / "latents.safetensors")
    scenes = [dataclasses.asdict(scene) for _, part in done for scene in part]
    (out / "scenes.json").write_text(json.dumps(scenes))
    log(f"{len(scenes)} latents")


def load_encoded(folder: Path) -> Encoded:
    """What `encode_scenes` saved."""
    rows = json.loads((folder / "scenes.json").read_text())
    scenes = [Scene(**{**row, "items": tuple(Item(**item) for item in row["items"])}) for row in rows]
    return Encoded(load_file(folder / "latents.safetensors")["latents"].float(), scenes)


@torch.no_grad()
def encode(vae: AutoencoderKL, scenes: Iterable[Scene], size: int) -> Tensor:
    """The scaled modes of the pictures' latents, float32 (scenes, channels, height, width)."""
    x_BCHW = pixels_of(list(scenes), size).to(vae.device)
    return torch.cat([vae.encode(part).latent_dist.mode() for part in x_BCHW.split(64)]) * vae.config.scaling_factor


def _encode_chunk(job: tuple[Path, Vocabulary, Mixture, str]) -> tuple[Tensor, list[Scene]]:
    folder, words, mixture, key = job
    vae = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32).eval()
    rng = random.Random(key)
    scenes = [sample_scene(rng, words, Split.TRAIN, mixture) for _ in range(CHUNK)]
    return encode(vae, scenes, words.size), scenes
