"""int8 weights: as near as their step allows, read by the real classes and by the loaders, and never by mistake."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM, CLIPModel, CLIPTextModel, T5ForConditionalGeneration

from graphflow.errors import GraphflowError
from graphflow.nodes.lib import int8
from graphflow.nodes.loaders.files import fill, from_diffusers, from_transformers
from graphflow.nodes.pocket.models import WEIGHTS

CLASSES = {"denoiser": UNet2DConditionModel, "clip": CLIPModel, "caption_writer": T5ForConditionalGeneration}


def plain(name: str, folder: Path) -> Path:
    """A model of a shipped one's shape with random weights, as float16."""
    torch.manual_seed(0)
    cls: Any = CLASSES[name]
    known = WEIGHTS / name
    model = (
        cls.from_config(cls.load_config(known)) if name == "denoiser" else cls(cls.config_class.from_pretrained(known))
    )
    if name == "caption_writer":
        model.generation_config.max_length = 77
    model.half().save_pretrained(folder / name, max_shard_size="16MB")
    return folder / name


def stored(folder: Path) -> Path:
    """A copy of it, as int8."""
    copy = folder.with_name(f"{folder.name}-int8")
    shutil.copytree(folder, copy)
    int8.store(copy)
    return copy


def test_a_weight_is_at_most_half_a_step_off() -> None:
    weight = (
        torch.randn(16, 8, 3, 3, generator=torch.Generator().manual_seed(0))
        * torch.logspace(-4, 2, 16)[:, None, None, None]
    )
    levels, scale = int8.quantised(weight)
    assert levels.dtype == torch.int8
    assert scale.shape == (16,)
    assert levels.abs().amax(dim=(1, 2, 3)).tolist() == pytest.approx([127] * 16, abs=10)
    off = (int8.dequantised(levels, scale) - weight).abs().amax(dim=(1, 2, 3))
    assert (off <= 0.5001 * scale.float()).all()
    assert (off[3:] < weight.abs().amax(dim=(1, 2, 3))[3:] / 250).all()


def test_weights_that_are_to_stay_are_not_rounded() -> None:
    tensors = {"encoder.w": torch.randn(3, 4), "decoder.w": torch.randn(3, 4), "encoder.bias": torch.randn(3)}
    stored_ = int8.to_int8(tensors, leave=("encoder.",))
    assert set(stored_) == {*tensors, "decoder.w.int8_scale"}
    back = int8.from_int8(stored_)
    assert all(torch.equal(back[name], tensors[name]) for name in ("encoder.w", "encoder.bias"))


def test_zero_and_one_dimensional_weights_survive() -> None:
    tensors = {"w": torch.zeros(3, 4), "bias": torch.randn(5), "count": torch.tensor([7])}
    back = int8.from_int8(int8.to_int8(tensors))
    assert set(back) == set(tensors)
    assert torch.equal(back["w"], tensors["w"])
    assert torch.allclose(back["bias"].float(), tensors["bias"], atol=1e-3)
    assert back["count"].dtype == torch.int64


def test_a_stored_model_answers_nearly_as_before_and_takes_half_the_room(tmp_path: Path) -> None:
    whole = plain("denoiser", tmp_path)
    folder = stored(whole)
    large, small = (from_diffusers(UNet2DConditionModel, path, torch.float32) for path in (whole, folder))
    rng = torch.Generator().manual_seed(0)
    inputs = (torch.randn(2, 8, 16, 16, generator=rng), 500, torch.randn(2, 32, 128, generator=rng))
    with torch.no_grad():
        expected, found = large(*inputs).sample, small(*inputs).sample
    assert 0 < (found - expected).square().mean() < 3e-4 * expected.square().mean()
    sizes = [sum(file.stat().st_size for file in path.glob("*.safetensors")) for path in (whole, folder)]
    assert sizes[1] < 0.52 * sizes[0]


def test_the_index_of_shards_names_every_tensor(tmp_path: Path) -> None:
    folder = stored(plain("denoiser", tmp_path))
    [index] = folder.glob("*.index.json")
    places: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    held = {name: file.name for file in folder.glob("*.safetensors") for name in load_file(file)}
    assert places == held
    assert len(set(held.values())) >= 2


def test_storing_twice_changes_nothing(tmp_path: Path) -> None:
    folder = stored(plain("clip", tmp_path))
    before = (folder / "model.safetensors").read_bytes()
    int8.store(folder)
    assert (folder / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "cls"), [("clip", CLIPModel), ("clip", CLIPTextModel), ("caption_writer", AutoModelForSeq2SeqLM)]
)
def test_models_of_transformers_load_whole_or_as_a_part(name: str, cls: Any, tmp_path: Path) -> None:
    folder = plain(name, tmp_path)
    large, small = (from_transformers(cls, path, torch.float32) for path in (folder, stored(folder)))
    assert type(small) is type(large)
    expected, found = large.state_dict(), small.state_dict()
    assert expected.keys() == found.keys()
    errors = [(found[k] - v).norm() / v.norm() for k, v in expected.items() if v.dim() >= 2]
    assert 0 < max(errors) < 0.02
    if name == "caption_writer":
        assert small.generation_config.to_diff_dict() == large.generation_config.to_diff_dict()
        assert small.generation_config.max_length == 77


def test_weights_of_another_model_are_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "vae"
    shutil.copytree(WEIGHTS / "vae", folder)
    shutil.copy(WEIGHTS / "denoiser" / "config.json", folder)
    with pytest.raises(GraphflowError, match="can't be loaded as UNet2DConditionModel"):
        from_diffusers(UNet2DConditionModel, folder, torch.float32)


def test_a_file_without_the_mark_is_read_as_it_is(tmp_path: Path) -> None:
    tensors = {"weight": torch.ones(2, 2, dtype=torch.int8), "weight.int8_scale": torch.ones(2)}
    save_file(tensors, tmp_path / "model.safetensors")
    assert int8.read(tmp_path / "model.safetensors").keys() == tensors.keys()
    assert int8.weights_of(tmp_path, "model") is None


def test_plain_modules_are_filled_too(tmp_path: Path) -> None:
    source, target = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
    save_file(source.state_dict(), tmp_path / "net.safetensors")
    int8.store(tmp_path)
    with safe_open(tmp_path / "net.safetensors", "pt") as opened:
        assert opened.metadata()["storage"] == int8.STORAGE
    fill(target, tmp_path, "net")
    assert torch.allclose(target.weight, source.weight, atol=0.005)
