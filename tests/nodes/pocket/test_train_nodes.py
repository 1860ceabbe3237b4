"""The training nodes: the shipped recipe runs as a graph, and a killed node goes on from its checkpoint."""

from __future__ import annotations

import itertools
import json
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
from graphflow.nodes.pocket.training.autoencoder import new_autoencoder
from graphflow.nodes.train import TrainAutoencoder, TrainCLIP
from graphflow.session import open_session

TINY: dict[str, Any] = {
    "vae.channels": [8, 8, 16],
    "simple.count": 1,
    "simple.workers": 1,
    "full.count": 1,
    "full.workers": 1,
    "diffusion.channels": [16, 32],
    "diffusion.heads": 2,
    "diffusion.text_width": 32,
    "diffusion.text_layers": 1,
    "diffusion.workers": 1,
    "clip.width": 32,
    "clip.layers": 1,
    "captioner.width": 32,
    "captioner.layers": 1,
    "caption_writer.width": 32,
    "caption_writer.workers": 1,
    "caption_writer.layers": 1,
    "gates.pictures": 2,
    "gates.prompts": 2,
    "gates.inversions": 1,
    "gates.edits": 2,
    "gates.writer_edits": 1,
    "gates.num_inference_steps": 2,
}
TRAININGS = ("vae", "diffusion", "clip", "captioner", "caption_writer")
SHORT = {f"{node}.{name}": value for node in TRAININGS for name, value in (("num_steps", 1), ("batch_size", 2))}


def test_the_recipe_trains_models_that_the_gates_can_load(tmp_path: Path) -> None:
    session = open_session("train/pocket", settings=TINY | SHORT, store=tmp_path / "store", device="cpu")
    run = session.run()
    gates = {row["gate"]: row for row in run["table"]}
    assert gates["autoencoder: PSNR, dB"]["measured"] > 0
    assert gates["captioner: objects"]["pass"] is False, "nothing can be right after one step"
    assert gates["do nothing: background PSNR, dB"]["measured"] == 60
    assert run["prompts"].width > 128
    for role in ("vae", "denoiser", "text_encoder", "clip", "captioner", "caption_writer"):
        assert (run[role] / "graphflow.json").is_file()


TINY_128: dict[str, Any] = {
    "first_vae.channels": [16, 16, 32, 64],
    "vae.channels": [16, 16, 32, 64],
    "simple.count": 1,
    "simple.workers": 1,
    "full.count": 1,
    "full.workers": 1,
    "edits.count": 1,
    "edits.workers": 1,
    "diffusion.channels": [16, 32, 32, 32],
    "diffusion.heads": 2,
    "caption_writer.width": 32,
    "caption_writer.layers": 1,
    "gates.pictures": 8,
    **{f"gates.{name}": 2 for name in ("prompts", "inversions", "edits", "writer_edits")},
    "gates.num_inference_steps": 2,
    **{f"exemplar_gates.{name}": 2 for name in ("edits", "pictures", "mixes")},
    "exemplar_gates.answers": 1,
    "exemplar_gates.num_inference_steps": 2,
}
TRAININGS_128 = ("first_vae", *TRAININGS, "instruct", "adapter", "describer")


def test_the_larger_recipe_begins_as_the_shipped_models_and_is_stored_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graphflow.nodes.pocket.training import chunks

    monkeypatch.setattr(chunks, "CHUNK", 4)
    settings = TINY_128 | {f"{node}.num_steps": 1 for node in TRAININGS_128}
    # Steps so small that the results still are what the trainings began with.
    settings |= {f"{node}.learning_rate": 1e-6 for node in ("first_vae", "vae", "clip", "captioner")}
    session = open_session("train/pocket_128", settings=settings, store=tmp_path / "store", device="cpu")
    run = session.run(pictures=2, samples=2, texts=2)
    gates = {row["gate"]: row for row in run["table"]}
    assert gates["autoencoder: PSNR, dB"]["measured"] > 22, "it draws what the one at 64 pixels draws"
    for role in ("vae", "denoiser", "text_encoder", "clip", "captioner", "caption_writer", "instruct_denoiser", "vlm"):
        assert all(is_int8(file) for file in run[role].glob("*.safetensors")), role
        assert (run[role] / "graphflow.json").is_file()
    assert run["autoencoder"].width > 128
    assert json.loads((run["vae"] / "config.json").read_text(encoding="utf-8"))["sample_size"] == 128
    assert {row["gate"] for row in run["exemplar_table"]} >= {"instructions: truth_success", "answers: caption"}


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
