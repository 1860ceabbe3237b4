"""What a model is and how large it will be, known before it is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoints import save_blip, save_clip, save_llava, save_phi, save_sd, save_t5, save_ultra_edit

from graphflow.errors import Mark
from graphflow.models.files import local_folder
from graphflow.models.modules import roots_of
from graphflow.models.preset import load_preset
from graphflow.models.refs import ModelRef, loaders
from graphflow.models.weights import model_key, weight_bytes

CHECKPOINTS: list[tuple[str, str, Callable[[Path], Path]]] = [
    ("diffusers.vae", "vae", save_sd),
    ("diffusers.unet", "unet", save_sd),
    ("diffusers.instruct_sd3", "transformer", save_ultra_edit),
    ("transformers.clip", "", save_clip),
    ("transformers.clip_vision", "", save_clip),
    ("transformers.clip_text", "", save_clip),
    ("transformers.blip", "", save_blip),
    ("transformers.causal_lm", "", lambda folder: save_phi(folder, shard_size="30KB")),
    ("transformers.seq2seq", "", save_t5),
    ("transformers.vlm", "", save_llava),
]


def measured(ref: ModelRef, dtype: torch.dtype) -> int:
    value = loaders()[ref.loader].load(ref, local_folder(ref), torch.device("cpu"), dtype)
    tensors = {t.data_ptr(): t for root in roots_of(value) for t in root.state_dict().values()}
    return sum(t.nbytes for t in tensors.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("name", "part", "save"), CHECKPOINTS, ids=lambda v: v if isinstance(v, str) else "")
def test_the_size_is_that_of_the_loaded_tensors(
    tmp_path: Path, name: str, part: str, save: Callable[[Path], Path], dtype: str
) -> None:
    ref = ModelRef(loaders()[name].role, name, "tiny", path=save(tmp_path / "saved"), part=part)
    assert weight_bytes(ref, dtype) == measured(ref, getattr(torch, dtype)) > 0
    assert weight_bytes(ref, dtype) == weight_bytes(ref, dtype), "a remembered header says the same"


@pytest.mark.parametrize("role", load_preset("pocket", Mark("test"), Path()).models)
def test_the_pocket_models_are_as_large_as_they_say(role: str) -> None:
    ref = load_preset("pocket", Mark("test"), Path()).models[role]
    assert weight_bytes(ref, "float32") == measured(ref, torch.float32) > 0


def test_the_preset_s_own_type_counts_and_not_the_run_s(tmp_path: Path) -> None:
    folder = save_sd(tmp_path)
    ref = ModelRef("vae", "diffusers.vae", "sd", path=folder, part="vae")
    half = ModelRef("vae", "diffusers.vae", "sd", path=folder, part="vae", dtype="float16")
    assert weight_bytes(half, "float32") == weight_bytes(ref, "float16") == weight_bytes(ref, "float32") // 2


def test_a_file_that_has_changed_is_read_again(tmp_path: Path) -> None:
    ref = ModelRef("vae", "diffusers.vae", "sd", path=save_sd(tmp_path), part="vae")
    before = weight_bytes(ref, "float32")
    header = json.dumps({"w": {"dtype": "I8", "shape": [3, 5], "data_offsets": [0, 15]}}).encode()
    weights = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(len(header).to_bytes(8, "little") + header + bytes(15))
    assert before != weight_bytes(ref, "float32") == 15


def test_weights_stored_as_int8_count_in_the_type_that_they_are_loaded_in(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from graphflow.nodes.lib.int8 import STORAGE, to_int8

    ref = ModelRef("vae", "diffusers.vae", "sd", path=save_sd(tmp_path), part="vae")
    plain = weight_bytes(ref, "float32")
    weights = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    save_file(to_int8(load_file(weights)), weights, {"format": "pt", "storage": STORAGE})
    assert weight_bytes(ref, "float32") == measured(ref, torch.float32) == plain


@pytest.mark.parametrize("content", [b"", b"\xff" * 16, b"\x02" + bytes(7) + b"[]", b"\x05" + bytes(7) + b"{nope"])
def test_what_is_not_here_or_damaged_has_no_size(tmp_path: Path, content: bytes) -> None:
    ref = ModelRef("vae", "diffusers.vae", "sd", path=save_sd(tmp_path), part="vae")
    (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(content)
    assert weight_bytes(ref, "float32") == 0
    assert weight_bytes(ModelRef("vae", "diffusers.vae", "sd", path=tmp_path / "nothing"), "float32") == 0
    assert weight_bytes(ModelRef("llm", "openai", "x", endpoint="http://localhost/v1"), "float32") == 0


def test_one_checkpoint_is_one_model_whatever_the_role(tmp_path: Path) -> None:
    dino, structure = (
        ModelRef(role, f"transformers.{role}", space, path=tmp_path, name=role)
        for role, space in (("dino", "a"), ("structure", "b"))
    )
    assert model_key(dino) == model_key(structure)
    vae = ModelRef("vae", "diffusers.vae", "sd", path=tmp_path, part="vae")
    others = [
        ModelRef("vae", "diffusers.vae", "sd", path=tmp_path, part="vae2"),
        ModelRef("vae", "diffusers.vae", "sd", path=tmp_path / "x", part="vae"),
        ModelRef("vae", "diffusers.vae", "sd", path=tmp_path, part="vae", dtype="float16"),
        ModelRef("vae", "diffusers.vae", "sd", path=tmp_path, part="vae", options={"native_size": 64}),
        ModelRef("vae", "diffusers.unet", "sd", path=tmp_path, part="vae"),
    ]
    assert len({model_key(ref) for ref in (vae, *others)}) == 6


def test_presets_that_share_checkpoints_share_keys() -> None:
    sd15, reedit = (load_preset(name, Mark("test"), Path()).models for name in ("sd15", "reedit"))
    assert {model_key(sd15[role]) for role in sd15} <= {model_key(reedit[role]) for role in reedit}
