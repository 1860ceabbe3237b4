"""Loaders on tiny checkpoints in the hub's own layouts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from checkpoints import save_blip, save_clip, save_llava, save_phi, save_sd, save_t5
from diffusers import StableDiffusionPipeline
from PIL import Image
from tiny import tiny_text_encoder

from graphflow.errors import GraphflowError, MissingError, UsageError
from graphflow.models.files import local_folder, model_files
from graphflow.models.refs import ModelRef, loaders

CPU, F32 = torch.device("cpu"), torch.float32
PICTURE = Image.effect_noise((48, 40), 60).convert("RGB")


def load(name: str, folder: Path | None, dtype: torch.dtype = F32, **ref):
    role = loaders()[name].role
    return loaders()[name].load(ModelRef(role, name, "tiny", path=folder, **ref), folder, CPU, dtype)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("saved")
    makers = {"sd": save_sd, "clip": save_clip, "blip": save_blip, "llava": save_llava, "phi": save_phi, "t5": save_t5}
    return {name: make(root / name) for name, make in makers.items()}


def damaged(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_sd_parts_load_with_all_their_weights(saved):
    vae = load("diffusers.vae", saved["sd"], part="vae")
    unet = load("diffusers.unet", saved["sd"], part="unet")
    text = load("transformers.clip_text", saved["sd"], part="text_encoder", options={"tokenizer": "tokenizer"})
    assert (vae.factor, vae.native_size) == (8, 64)
    assert unet.alphas_cumprod.shape == (1000,)
    tokens = text.tokenizer("a cat", padding="max_length", return_tensors="pt").input_ids
    expected = tiny_text_encoder()(tokens).last_hidden_state
    assert torch.equal(text.encode(["a cat"]), expected)


def test_a_repository_that_diffusers_saves_loads_too(saved, tmp_path):
    from diffusers import DDIMScheduler
    from tiny import SD_SCHEDULER, tiny_tokenizer, tiny_unet, tiny_vae

    StableDiffusionPipeline(
        vae=tiny_vae(),
        unet=tiny_unet(),
        text_encoder=tiny_text_encoder(),
        tokenizer=tiny_tokenizer(),
        scheduler=DDIMScheduler(**SD_SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(tmp_path)
    ours = load("transformers.clip_text", saved["sd"], part="text_encoder", options={"tokenizer": "tokenizer"})
    text = load("transformers.clip_text", tmp_path, part="text_encoder", options={"tokenizer": "tokenizer"})
    assert torch.equal(text.encode(["a dog", ""]), ours.encode(["a dog", ""]))
    assert load("diffusers.unet", tmp_path, part="unet").prediction_type == "epsilon"
    assert load("diffusers.vae", tmp_path, part="vae").factor == 8


def test_a_folder_without_sub_folders_loads(saved, tmp_path):
    for source in ("unet", "scheduler"):
        shutil.copytree(saved["sd"] / source, tmp_path / "unet", dirs_exist_ok=True)
    for source in ("text_encoder", "tokenizer"):
        shutil.copytree(saved["sd"] / source, tmp_path / "text", dirs_exist_ok=True)
    assert load("diffusers.unet", tmp_path / "unet").prediction_type == "epsilon"
    assert load("transformers.clip_text", tmp_path / "text").encode(["x"]).shape == (1, 77, 32)


def test_scheduler_option_names_another_folder(saved, tmp_path):
    copy = damaged(saved["sd"], tmp_path)
    (copy / "scheduler").rename(copy / "noise")
    with pytest.raises(MissingError, match="scheduler"):
        load("diffusers.unet", copy, part="unet")
    assert load("diffusers.unet", copy, part="unet", options={"scheduler": "noise"}).prediction_type == "epsilon"


def test_clip_gives_projected_embeddings(saved):
    clip = load("transformers.clip", saved["clip"])
    assert clip.image([PICTURE, PICTURE]).shape == clip.text(["a cat", "two dogs"]).shape == (2, 16)


def test_the_text_tower_of_a_whole_clip_is_a_text_encoder(saved):
    text = load("transformers.clip_text", saved["clip"])
    clip = load("transformers.clip", saved["clip"])
    tokens = text.tokenizer("a cat", padding="max_length", max_length=77, return_tensors="pt").input_ids
    assert torch.equal(text.encode(["a cat"]), clip.model.text_model(tokens).last_hidden_state)


def test_blip_captions(saved):
    captioner = load("transformers.blip", saved["blip"])
    assert captioner.caption(PICTURE, max_new_tokens=5)
    assert captioner.caption(PICTURE, prompt="a photo of", max_new_tokens=5, num_beams=2).startswith("a photo of")


def test_a_vision_language_model_is_asked_for_a_caption(saved):
    captioner = load("transformers.image_to_text", saved["llava"], options={"question": "What is it?"})
    assert captioner.question == "What is it?"
    assert captioner.caption(PICTURE, prompt="It is ", max_new_tokens=5).startswith("It is ")


def test_a_vision_language_model_without_a_chat_template_is_refused(tmp_path):
    with pytest.raises(GraphflowError, match="no chat template"):
        load("transformers.image_to_text", save_llava(tmp_path, chat=False))


def test_causal_lm_uses_a_chat_template_when_there_is_one(saved, tmp_path):
    assert load("transformers.causal_lm", saved["phi"]).continues
    assert not load("transformers.causal_lm", save_phi(tmp_path, chat=True)).continues
    ref = ModelRef("llm", "transformers.causal_lm", "tiny", path=tmp_path)
    assert "chat_template.jinja" in [p.name for p in model_files(ref, tmp_path)]


def test_sharded_weights_load(saved, tmp_path):
    folder = save_phi(tmp_path, shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    one, many = (
        load("transformers.causal_lm", f).complete("a", seed=3, max_new_tokens=8) for f in (saved["phi"], folder)
    )
    assert one == many


def test_seq2seq_takes_its_template_from_the_options(saved):
    assert load("transformers.seq2seq", saved["t5"], options={"template": "edit_pair"}).template == "edit_pair"
    with pytest.raises(UsageError, match="few_shot or edit_pair"):
        load("transformers.seq2seq", saved["t5"], options={"template": "haiku"})


def test_dtype_is_the_one_asked_for(saved):
    assert load("transformers.clip", saved["clip"], dtype=torch.bfloat16).model.dtype == torch.bfloat16
    assert load("diffusers.vae", saved["sd"], dtype=torch.float16, part="vae").model.dtype == torch.float16


PARTS = {
    "diffusers.vae": ("sd", "vae"),
    "diffusers.unet": ("sd", "unet"),
    "transformers.clip_text": ("sd", "text_encoder"),
    "transformers.clip": ("clip", ""),
    "transformers.blip": ("blip", ""),
    "transformers.image_to_text": ("llava", ""),
    "transformers.causal_lm": ("phi", ""),
    "transformers.seq2seq": ("t5", ""),
}
EVERY = pytest.mark.parametrize("name", PARTS)


def options_of(name: str) -> dict[str, str]:
    return {"tokenizer": "tokenizer"} if name == "transformers.clip_text" else {}


@EVERY
def test_missing_config_is_named(name, saved, tmp_path):
    source, part = PARTS[name]
    copy = damaged(saved[source], tmp_path)
    (copy / part / "config.json").unlink()
    with pytest.raises(MissingError, match=r"config\.json"):
        load(name, copy, part=part, options=options_of(name))


@EVERY
def test_pickled_weights_are_refused_by_name(name, saved, tmp_path):
    source, part = PARTS[name]
    copy = damaged(saved[source], tmp_path)
    weights = next((copy / part).glob("*.safetensors"))
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(MissingError, match=r"\.safetensors; it has pytorch_model\.bin, which is not loaded"):
        load(name, copy, part=part, options=options_of(name))


@EVERY
def test_another_architecture_is_refused(name, saved):
    wrong = ("t5", "") if PARTS[name][0] != "t5" else ("sd", "vae")
    folder = saved[wrong[0]] / wrong[1]
    with pytest.raises(GraphflowError):
        load(name, folder)


@EVERY
def test_truncated_weights_are_an_error(name, saved, tmp_path):
    source, part = PARTS[name]
    copy = damaged(saved[source], tmp_path)
    weights = next((copy / part).glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(GraphflowError, match="can't be loaded"):
        load(name, copy, part=part, options=options_of(name))


@pytest.mark.parametrize("name", ["diffusers.vae", "transformers.blip", "transformers.clip_text"])
def test_weights_that_are_missing_are_an_error_not_random_numbers(name, saved, tmp_path):
    from safetensors.torch import load_file, save_file

    source, part = PARTS[name]
    copy = damaged(saved[source], tmp_path)
    weights = next((copy / part).glob("*.safetensors"))
    tensors = load_file(weights)
    tensors.pop(sorted(k for k in tensors if "weight" in k)[0])
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(GraphflowError, match="1 weights are missing"):
        load(name, copy, part=part, options=options_of(name))


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("transformers.blip", "tokenizer.json"),
        ("transformers.blip", "preprocessor_config.json"),
        ("transformers.clip", "tokenizer.json"),
        ("transformers.causal_lm", "tokenizer.json"),
    ],
)
def test_missing_preprocessing_is_named(name, file, saved, tmp_path):
    copy = damaged(saved[PARTS[name][0]], tmp_path)
    (copy / file).unlink()
    with pytest.raises(MissingError, match=file.split(".")[0].replace("preprocessor_config", "preprocessor_config")):
        load(name, copy)


def test_code_of_a_checkpoint_is_never_run(saved, tmp_path):
    copy = damaged(saved["phi"], tmp_path)
    config = json.loads((copy / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(GraphflowError):
        load("transformers.causal_lm", copy)
    assert not (tmp_path / "ran").exists()


def test_missing_sub_folder_and_missing_folder(saved):
    with pytest.raises(MissingError, match="no sub-folder 'vea'"):
        load("diffusers.vae", saved["sd"], part="vea")
    with pytest.raises(MissingError, match="reads a folder"):
        load("diffusers.vae", None)


@EVERY
def test_a_snapshot_in_the_hubs_cache_loads_offline(name, saved, tmp_path, monkeypatch):
    source, part = PARTS[name]
    commit = "0123456789abcdef0123456789abcdef01234567"
    root = tmp_path / "models--org--tiny"
    shutil.copytree(saved[source], root / "blobs")
    for file in (p for p in (root / "blobs").rglob("*") if p.is_file()):
        link = root / "snapshots" / commit / file.relative_to(root / "blobs")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)  # the hub's cache links its snapshots to blobs
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    role = loaders()[name].role
    ref = ModelRef(role, name, "tiny", hub="org/tiny", revision=commit, part=part, options=options_of(name))
    folder = local_folder(ref)
    assert folder is not None
    assert any(p.suffix == ".safetensors" for p in model_files(ref, folder))
    assert loaders()[name].load(ref, folder, CPU, F32)


def test_patterns_leave_variants_and_other_formats_on_the_hub(saved, tmp_path):
    copy = damaged(saved["sd"], tmp_path)
    (copy / "text_encoder" / "pytorch_model.bin").touch()
    for extra in ("diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.non_ema.safetensors"):
        (copy / "unet" / extra).touch()
    unet = ModelRef("denoiser", "diffusers.unet", "tiny", path=copy, part="unet")
    text = ModelRef(
        "text_encoder", "transformers.clip_text", "tiny", path=copy, part="text_encoder",
        options={"tokenizer": "tokenizer"},
    )  # fmt: skip
    assert [p.relative_to(copy).as_posix() for p in model_files(unet, copy)] == [
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ]
    assert [p.relative_to(copy).as_posix() for p in model_files(text, copy)] == [
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/tokenizer_config.json",
        "tokenizer/vocab.json",
    ]
