"""Models come, are shared and go; nothing of them stays behind."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import save_clip, save_llava, save_phi, save_sd, save_ultra_edit
from measures import save_dinov2, save_lpips, save_open_clip, save_qwen_vl
from pools import PICTURE, POCKET, Watched, tensors

from graphflow.errors import MissingError
from graphflow.events import ModelLoaded, ModelLoading, ModelReleased
from graphflow.models import modules
from graphflow.models.refs import ModelRef, loaders
from graphflow.models.weights import model_key, weight_bytes


def test_a_model_is_loaded_once_and_announced(pool: Watched) -> None:
    ref = POCKET["vae"]
    assert pool.get(ref) is pool.get(replace(ref, role="vae", name="other", space="z"))
    loading, loaded = pool.events
    assert isinstance(loading, ModelLoading)
    assert isinstance(loaded, ModelLoaded)
    assert loading.bytes == loaded.bytes == weight_bytes(ref, "float32") == pool.resident_bytes
    assert (loaded.role, loaded.name, loaded.stage) == ("vae", ref.describe(), "host")


def test_a_model_whose_files_change_is_read_again(tmp_path: Path) -> None:
    folder = save_clip(tmp_path)
    ref = ModelRef("clip", "transformers.clip", "tiny", path=folder)
    pool = Watched()
    first = pool.get(ref)
    pool.drop_changed()
    assert pool.get(ref) is first
    weights = folder / "model.safetensors"
    status = weights.stat()
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    pool.drop_changed()
    assert pool.get(ref) is not first


def test_clip_and_its_image_tower_are_held_once(tmp_path: Path) -> None:
    folder = save_clip(tmp_path)
    clip, vision, text = (
        ModelRef(role, f"transformers.{name}", "tiny", path=folder)
        for role, name in (("clip", "clip"), ("image_encoder", "clip_vision"), ("text_encoder", "clip_text"))
    )
    alone = {}
    for ref in (clip, vision, text):
        one = Watched()
        alone[ref.role] = answers(ref.role, one.get(ref))
    for order in ((clip, vision, text), (text, vision, clip), (vision, clip, text)):
        pool = Watched()
        for ref in order:
            pool.get(ref)
        assert pool.resident_bytes == pool.resident[model_key(clip)] < sum(pool.resident.values())
        for ref in order:
            assert torch.equal(answers(ref.role, pool.get(ref)), alone[ref.role])
        pool.release([model_key(clip)], False)
        assert pool.resident_bytes == sum(pool.resident[model_key(ref)] for ref in (vision, text))
        assert torch.equal(answers("image_encoder", pool.get(vision)), alone["image_encoder"])


def answers(role: str, model: Any) -> torch.Tensor:
    if role == "text_encoder":
        return model.encode(["a cat"])
    return model.image([PICTURE])


def test_other_pools_and_other_files_share_nothing(tmp_path: Path) -> None:
    ref = ModelRef("clip", "transformers.clip", "tiny", path=save_clip(tmp_path))
    first, second = Watched().get(ref), Watched().get(ref)
    assert first.model.vision_model is not second.model.vision_model
    pool = Watched()
    old = pool.get(ref)
    pool.release([model_key(ref)], False)
    weights = tmp_path / "model.safetensors"
    weights.rename(tmp_path / "old")  # a mapped file must not be cut
    weights.write_bytes((tmp_path / "old").read_bytes())
    (tmp_path / "old").unlink()
    assert pool.get(ref).model.vision_model is not old.model.vision_model, "the file was written anew"


@pytest.mark.parametrize("role", POCKET)
def test_nothing_keeps_a_released_model_alive(pool: Watched, role: str) -> None:
    ref = POCKET[role]
    held = [weakref.ref(tensor) for tensor in tensors(pool.get(ref))]
    size = pool.resident_bytes
    gc.disable()
    try:
        assert pool.release([model_key(ref)], keep_on_host=True) == size > 0
        assert held
        assert not [tensor for tensor in held if tensor() is not None]
    finally:
        gc.enable()
    assert (pool.resident_bytes, pool.resident) == (0, {})
    released = pool.events[-1]
    assert isinstance(released, ModelReleased)
    assert (released.name, released.bytes) == (ref.describe(), size)
    pool.get(ref)
    assert pool.resident_bytes == size


@pytest.mark.parametrize(
    ("name", "part", "save"),
    [
        ("transformers.sd3_text", "", save_ultra_edit),
        ("diffusers.instruct_sd3", "transformer", save_ultra_edit),
        ("transformers.causal_lm", "", save_phi),
        ("transformers.image_to_text", "", save_llava),
        ("open_clip", "", save_open_clip),
        ("transformers.dino", "", save_dinov2),
        ("transformers.vlm", "", save_qwen_vl),
        ("lpips", "", save_lpips),
    ],
)
def test_nor_does_anything_keep_other_families_alive(
    pool: Watched, tmp_path: Path, name: str, part: str, save: Callable[[Path], Any]
) -> None:
    save(tmp_path)
    options = {"net": "squeeze"} if name == "lpips" else {}
    ref = ModelRef(loaders()[name].role, name, "tiny", path=tmp_path, part=part, options=options)
    held = [weakref.ref(tensor) for tensor in tensors(pool.get(ref))]
    assert pool.release([model_key(ref)], keep_on_host=False) > 0
    assert held
    assert not [tensor for tensor in held if tensor() is not None]


@pytest.mark.parametrize("role", POCKET)
def test_what_a_wrapper_holds_outside_of_its_networks_is_small_and_on_the_host(pool: Watched, role: str) -> None:
    held = modules._held(pool.get(POCKET[role]))
    loose = [found for found in held if isinstance(found, torch.Tensor)]
    assert sum(tensor.nbytes for tensor in loose) <= 2**14
    assert all(tensor.device.type == "cpu" for tensor in loose)


def resident_memory() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="reads Linux's own figures")
def test_the_process_gives_the_memory_back(pool: Watched, tmp_path: Path) -> None:
    from checkpoints import byte_tokenizer
    from transformers import PhiConfig, PhiForCausalLM

    config = PhiConfig(
        vocab_size=257, hidden_size=1024, intermediate_size=4096, num_hidden_layers=4, num_attention_heads=16
    )
    PhiForCausalLM(config).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    ref = ModelRef("llm", "transformers.causal_lm", "tiny", path=tmp_path)
    pool.get(ref)
    full, size = resident_memory(), pool.resident_bytes  # read, and not only mapped
    assert size > 150 * 2**20
    pool.release([model_key(ref)], False)
    assert full - resident_memory() > 0.9 * size


@pytest.mark.parametrize(
    ("ref", "says"),
    [
        (ModelRef("vae", "diffusers.vae", "x", path=Path("/nowhere")), "is not on this machine"),
        (ModelRef("vae", "diffusers.va", "x", path=Path("/nowhere")), "there is no loader 'diffusers.va'"),
    ],
)
def test_a_model_that_is_not_here(pool: Watched, ref: ModelRef, says: str) -> None:
    with pytest.raises(MissingError, match=says):
        pool.get(ref)


def test_trained_weights_are_models_like_others(pool: Watched, tmp_path: Path) -> None:
    import json

    folder = save_sd(tmp_path) / "vae"
    (folder / "graphflow.json").write_text(json.dumps({"role": "vae", "loader": "diffusers.vae", "space": "sd"}))
    model = pool.get_trained(folder, "vae")
    key = pool.key_of_trained(folder, "vae")
    assert list(pool.resident) == [key]
    assert weight_bytes(pool.ref_of_trained(folder, "vae"), "float32") == pool.resident_bytes
    assert pool.get_trained(folder, "vae") is model
    with pytest.raises(MissingError, match="holds a vae, expected a denoiser"):
        pool.get_trained(folder, "denoiser")
    with pytest.raises(MissingError, match="does not say how to load"):
        pool.get_trained(tmp_path, "vae")
