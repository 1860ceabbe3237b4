"""Latents of many pictures, computed once, so that the denoiser's training never waits for the autoencoder."""

import dataclasses
import json
from pathlib import Path

from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..catalogue import Vocabulary
from ..world import Item, Mixture, Scene, Split, sample_scene
from .chunks import Source, encoded
from .loop import Log, Steps


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Scenes with the latents of their pictures, float32 (count, channels, height, width)."""

    latents: Tensor
    scenes: list[Scene]


def encode_scenes(
    out: Path,
    vae: AutoencoderKL,
    words: Vocabulary,
    mixture: Mixture,
    *,
    count: int,
    seed: int,
    workers: int,
    checkpoint: Path | None = None,
    steps: Steps,
    log: Log,
) -> None:
    """Draw `count` training scenes (rounded up to whole chunks) and save them to `out` with their latents."""
    source = Source(sample_scene, (words, Split.TRAIN, mixture), _alone, dataclasses.asdict, words.size)
    made = {"count": count, "key": str(seed), "workers": workers, "kept": checkpoint, "steps": steps}
    latents, scenes = encoded(source, vae, **made)
    out.mkdir(parents=True, exist_ok=True)
    save_file({"latents": latents[:, 0].contiguous()}, out / "latents.safetensors")
    (out / "scenes.json").write_text(json.dumps(scenes))
    log(f"{len(scenes)} latents")


def _alone(scene: Scene) -> tuple[Scene]:
    return (scene,)


def load_encoded(folder: Path) -> Encoded:
    """What `encode_scenes` saved."""
    rows = json.loads((folder / "scenes.json").read_text())
    scenes = [Scene(**{**row, "items": tuple(Item(**item) for item in row["items"])}) for row in rows]
    return Encoded(load_file(folder / "latents.safetensors")["latents"].float(), scenes)
