"""The training functions at tiny size: they learn, and a resumed run ends with the very same weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file

from graphflow.nodes.pocket.catalogue import POCKET_64
from graphflow.nodes.pocket.training import chunks
from graphflow.nodes.pocket.training.autoencoder import train_autoencoder
from graphflow.nodes.pocket.training.caption_writer import train_caption_writer
from graphflow.nodes.pocket.training.captioner import train_captioner
from graphflow.nodes.pocket.training.clip import train_clip
from graphflow.nodes.pocket.training.denoiser import Curriculum, Size, train_denoiser
from graphflow.nodes.pocket.training.latents import encode_scenes
from graphflow.nodes.pocket.training.loop import Loop, all_steps
from graphflow.nodes.pocket.world import SINGLES

Train = Callable[..., None]
SMALL = {"width": 32, "patch": 16, "layers": 1, "text_layers": 1}


class Killed(Exception):
    """Stands for a kill in the middle of a run."""


def quiet(message: str) -> None:
    pass


def until(last: int) -> Callable[[Iterable[int]], Iterator[int]]:
    """A progress wrapper that kills the run after step `last`."""

    def steps(numbers: Iterable[int]) -> Iterator[int]:
        for number in numbers:
            if number > last:
                raise Killed
            yield number

    return steps


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> AutoencoderKL:
    out = tmp_path_factory.mktemp("vae")
    autoencoder(out, loop(1), None, all_steps, quiet)
    return AutoencoderKL.from_pretrained(out, torch_dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def latents(vae: AutoencoderKL, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("latents")
    encode_scenes(out, vae, POCKET_64, SINGLES, count=8, seed=0, workers=1, steps=all_steps, log=quiet)
    return out


def loop(count: int, **more: Any) -> Loop:
    return Loop(count=count, batch_size=4, learning_rate=2e-3, warmup=1, ema=0.5, save_seconds=0.0, **more)


def autoencoder(out: Path, loop: Loop, checkpoint: Path | None, steps: Any, log: Any) -> None:
    runtime = {"checkpoint": checkpoint, "steps": steps, "log": log}
    train_autoencoder(out, POCKET_64, loop, channels=(8, 8, 16), layers=1, kl_weight=1e-3, **runtime)


def small(train: Train, **shape: Any) -> Callable[..., None]:
    def run(out: Path, loop: Loop, checkpoint: Path | None, steps: Any, log: Any) -> None:
        train(out, POCKET_64, loop, **shape, checkpoint=checkpoint, steps=steps, log=log)

    return run


@pytest.fixture(params=["autoencoder", "denoiser", "clip", "captioner", "caption_writer"])
def train(request: pytest.FixtureRequest) -> Callable[..., None]:
    if request.param == "denoiser":
        folder = request.getfixturevalue("latents")
        size = Size(channels=(16, 32), layers=1, heads=2, text_width=32, text_layers=1)
        recipe: dict[str, Any] = {"size": size, "curriculum": Curriculum(1, 2), "drop_caption": 0.1}
        return lambda out, loop, checkpoint, steps, log: train_denoiser(
            out, folder, folder, loop, **recipe, drop_background=0.1, checkpoint=checkpoint, steps=steps, log=log
        )
    return {
        "autoencoder": autoencoder,
        "clip": small(train_clip, **SMALL, open_background=0.2),
        "captioner": small(train_captioner, **SMALL),
        "caption_writer": small(train_caption_writer, width=32, layers=1),
    }[request.param]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    files = sorted(folder.rglob("*.safetensors"))
    assert files
    return {f"{file.relative_to(folder)}/{name}": t for file in files for name, t in load_file(file).items()}


def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(train: Callable[..., None], tmp_path: Path) -> None:
    train(tmp_path / "whole", loop(4), tmp_path / "a", all_steps, quiet)
    with pytest.raises(Killed):
        train(tmp_path / "cut", loop(4), tmp_path / "b", until(1), quiet)
    lines: list[str] = []
    train(tmp_path / "cut", loop(4), tmp_path / "b", all_steps, lines.append)
    assert any("resumed at step" in line for line in lines)
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert {t.dtype for t in whole.values() if t.is_floating_point()} == {torch.float16}


def test_checkpoints_hold_tensors_and_json_only(tmp_path: Path) -> None:
    autoencoder(tmp_path / "out", loop(2), tmp_path / "checkpoint", all_steps, quiet)
    assert {file.suffix for file in (tmp_path / "checkpoint").rglob("*") if file.is_file()} == {".safetensors", ".json"}


def test_training_brings_the_loss_down(tmp_path: Path) -> None:
    from graphflow.nodes.pocket.training.loop import Step, fit

    torch.manual_seed(0)
    model, losses = torch.nn.Linear(4, 1), []

    def loss_of(step: Step) -> torch.Tensor:
        x = torch.randn(8, 4, generator=step.torch_rng)
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        losses.append(float(loss.detach()))
        return loss

    fit(model, loss_of, Loop(count=150, batch_size=8, learning_rate=0.05, bfloat16=False), None, all_steps, quiet)
    assert losses[-1] < 0.05 * losses[0]


def test_latents_are_normalised_channel_by_channel(vae: AutoencoderKL) -> None:
    import random

    from graphflow.nodes.pocket.training.pictures import pixels_of
    from graphflow.nodes.pocket.world import Split, sample_scene

    rng = random.Random(0)
    assert vae.config.scaling_factor == 1
    x = pixels_of([sample_scene(rng, POCKET_64, Split.TRAIN) for _ in range(200)], 64)
    with torch.no_grad():
        z = vae.encode(x).latent_dist.mean
    assert z.mean((0, 2, 3)).abs().max() < 0.3
    assert (z.std((0, 2, 3)) - 1).abs().max() < 0.3


def test_latents_that_were_cut_off_go_on_chunk_by_chunk(
    vae: AutoencoderKL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK", 2)

    def encode(out: Path, checkpoint: Path | None, steps: Any = all_steps) -> dict[str, torch.Tensor]:
        how = {"count": 6, "seed": 0, "workers": 1, "checkpoint": checkpoint, "steps": steps, "log": quiet}
        encode_scenes(out, vae, POCKET_64, SINGLES, **how)
        return load_file(out / "latents.safetensors")

    with pytest.raises(Killed):
        encode(tmp_path / "out", tmp_path / "kept", until(0))
    assert [file.name for file in (tmp_path / "kept").iterdir()] == ["chunk-00000.safetensors"]
    resumed, whole = encode(tmp_path / "out", tmp_path / "kept"), encode(tmp_path / "whole", None)
    assert torch.equal(resumed["latents"], whole["latents"])
    assert whole["latents"].shape == (6, 4, 16, 16)
    assert (tmp_path / "out" / "scenes.json").read_text() == (tmp_path / "whole" / "scenes.json").read_text()
