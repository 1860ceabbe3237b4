"""The training nodes: the shipped recipe runs as a graph, and a killed node goes on from its checkpoint."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file

from graphflow.node import Context
from graphflow.nodes.lib import int8
from graphflow.nodes.lib.int8 import is_int8
from graphflow.nodes.lib.vae import VAE
from graphflow.nodes.pocket.catalogue import Vocabulary
from graphflow.nodes.pocket.training.autoencoder import new_autoencoder
from graphflow.nodes.pocket.world import Mixture, Scene, Split, sample_scene
from graphflow.nodes.train import TrainAutoencoder, TrainCLIP, TrainLatents
from graphflow.session import open_session

Span = tuple[float, float]

TINY: dict[str, Any] = {
    "first_vae.channels": [8, 8, 8, 16],
    "vae.channels": [8, 8, 8, 16],
    **{f"{node}.count": 1 for node in ("simple", "full", "rare", "edits")},
    **{f"{node}.workers": 1 for node in ("simple", "full", "rare", "edits")},
    **{f"{node}.channels": [16, 32, 32, 32] for node in ("first_diffusion", "diffusion")},
    **{f"{node}.heads": 2 for node in ("first_diffusion", "diffusion")},
    **{f"{node}.text_width": 32 for node in ("first_diffusion", "diffusion")},
    **{f"{node}.text_layers": 1 for node in ("first_diffusion", "diffusion")},
    "clip.width": 32,
    "clip.layers": 1,
    "clip.batch_size": 2,
    "captioner.width": 32,
    "captioner.layers": 1,
    "caption_writer.width": 32,
    "caption_writer.layers": 1,
    "caption_writer.batch_size": 2,
    "describer.image_size": 16,
    **{f"gates.{name}": 2 for name in ("pictures", "prompts", "inversions", "edits", "writer_edits")},
    "gates.num_inference_steps": 2,
    **{f"exemplar_gates.{name}": 2 for name in ("edits", "pictures", "mixes")},
    "exemplar_gates.answers": 1,
    "exemplar_gates.num_inference_steps": 2,
}
TRAININGS = (
    *("first_vae", "vae", "first_diffusion", "diffusion", "clip", "captioner", "caption_writer"),
    *("instruct", "adapter", "describer"),
)
ROLES = (
    *("vae", "denoiser", "text_encoder", "clip", "captioner", "caption_writer"),
    *("instruct_denoiser", "ip_adapter", "vlm"),
)


def test_the_recipe_trains_models_that_the_gates_can_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphflow.nodes.pocket.training import chunks

    monkeypatch.setattr(chunks, "CHUNK", 4)
    settings = TINY | {f"{node}.num_steps": 1 for node in TRAININGS}
    session = open_session("train/pocket", settings=settings, store=tmp_path / "store", device="cpu")
    run = session.run(pictures=2, samples=2, texts=2)
    gates = {row["gate"]: row for row in (*run["table"], *run["exemplar_table"])}
    assert gates["autoencoder: PSNR, dB"]["measured"] > 0
    assert gates["captioner: objects"]["pass"] is False, "nothing can be right after one step"
    assert gates["do nothing: background PSNR, dB"]["measured"] == 60
    assert gates["do nothing: truth_success"]["measured"] == 0
    assert gates["answers: description"]["pass"] is False
    for sheet in ("autoencoder", "prompts", "inversion", "instructions", "image_prompts", "mixes", "answers"):
        assert run[sheet].width > 128
    for role in ROLES:
        stored = list(run[role].glob("*.safetensors"))
        assert stored
        assert all(is_int8(file) for file in stored), role
        assert (run[role] / "graphflow.json").is_file()
        assert {file.suffix for file in run[role].iterdir()} <= {".safetensors", ".json", ".jinja"}
    assert json.loads((run["vae"] / "config.json").read_text(encoding="utf-8"))["sample_size"] == 128


@pytest.mark.parametrize(
    ("scenes", "painted", "styled", "pairs"),
    [
        ("single", (0, 0.2), (0, 0.2), (0, 0)),
        ("all", (0.1, 0.4), (0.1, 0.4), (0.05, 0.2)),
        ("rare", (0.2, 0.5), (0.5, 0.7), (0, 0.2)),
    ],
)
def test_latents_are_of_the_scenes_that_were_asked_for(
    scenes: str, painted: Span, styled: Span, pairs: Span, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graphflow.nodes.pocket.training import latents

    def drawn(out: Path, vae: Any, words: Vocabulary, mixture: Mixture, **rest: Any) -> None:
        rng = random.Random(0)
        seen.extend(sample_scene(rng, words, Split.TRAIN, mixture) for _ in range(rest["count"]))

    seen: list[Scene] = []
    monkeypatch.setattr(latents, "encode_scenes", drawn)
    node = TrainLatents(vocabulary="pocket-128", count=400, scenes=scenes)
    torch.manual_seed(0)
    node.run(node.In(vae=VAE(new_autoencoder((8, 8, 16), 1, 64))), Context(out=tmp_path))
    shares = (
        sum(any(item.colour for item in scene.items) for scene in seen),
        sum(scene.style != "picture" for scene in seen),
        sum(len(scene.items) == 2 for scene in seen),
    )
    for share, (least, most) in zip(shares, (painted, styled, pairs), strict=True):
        assert least <= share / 400 <= most


def test_the_decoder_alone_needs_a_start() -> None:
    node = TrainAutoencoder(num_steps=1, batch_size=1, decoder_only=True)
    with pytest.raises(ValueError, match="decoder_only needs an autoencoder to start from"):
        node.run(node.In(), Context())


@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_the_decoder_alone_leaves_every_bit_of_the_encoder(storage: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    first, out = tmp_path / "first", tmp_path / "out"
    out.mkdir()
    new_autoencoder((8, 8, 16), 1, 64).save_pretrained(first)
    if storage == "int8":
        int8.store(first)
    before, rounded = (
        int8.from_pretrained(AutoencoderKL, first, torch_dtype=t) for t in (torch.float32, torch.bfloat16)
    )
    node = TrainAutoencoder(num_steps=1, batch_size=1, channels=(8, 8, 16), decoder_only=True, storage="int8")
    node.run(node.In(start=VAE(rounded)), Context(out=out))
    [file] = out.rglob("*.safetensors")
    assert "decoder.conv_in.weight.int8_scale" in load_file(file)
    after = int8.from_pretrained(AutoencoderKL, file.parent, torch_dtype=torch.float32)
    for part in ("encoder", "quant_conv"):
        old, new = (getattr(model, part).state_dict() for model in (before, after))
        assert all(torch.equal(new[name], old[name]) for name in old), part


class Killed(Exception):
    """Stands for a kill in the middle of a run."""


class KilledContext(Context):
    """A context whose run is killed before its third step."""

    def steps(self, iterable: Iterable[Any], total: int | None = None, label: str = "") -> Iterator[Any]:
        for number, item in enumerate(iterable):
            if number == 2:
                raise Killed
            yield item


def test_a_killed_node_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphflow.nodes.pocket.training import loop

    hours = itertools.count(step=3600.0)
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(hours))  # so that every step is worth a checkpoint
    node = TrainCLIP(num_steps=3, batch_size=2, width=32, patch=16, layers=1, text_layers=1)
    with pytest.raises(Killed):
        node.run(node.In(), KilledContext(checkpoint=tmp_path / "kept", out=tmp_path))
    assert any((tmp_path / "kept").iterdir())
    resumed = node.run(node.In(), Context(checkpoint=tmp_path / "kept", out=tmp_path))
    whole = node.run(node.In(), Context(out=tmp_path))
    a, b = (load_file(out.clip / "model.safetensors") for out in (resumed, whole))
    assert all(torch.equal(a[name], b[name]) for name in a)
