"""Loaders of what scores need, on tiny checkpoints in the hub's own layouts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from checkpoints import save_clip, save_llava
from measures import (
    OPEN_CLIP,
    lpips_network,
    picture,
    save_dinov2,
    save_inception,
    save_lpips,
    save_open_clip,
    save_qwen_vl,
    save_timm_vit,
    save_vit,
)
from safetensors.torch import load_file, save_file

from graphflow.errors import GraphflowError, MissingError, UsageError
from graphflow.models.files import model_files
from graphflow.models.refs import ModelRef, loaders
from graphflow.node import Context
from graphflow.nodes.lib.metrics import pixels
from graphflow.nodes.score import Hps

CPU, F32 = torch.device("cpu"), torch.float32
IMAGES = [picture(50, 41, seed) for seed in (1, 2)]
OPTIONS = {"lpips": {"net": "squeeze"}}
MAKERS = {
    "transformers.hps": save_clip, "open_clip": save_open_clip, "open_clip.hps": save_open_clip,
    "transformers.dino": save_vit, "transformers.structure": save_dinov2, "timm.dino": save_timm_vit,
    "timm.structure": save_timm_vit, "lpips": save_lpips, "inception.fid": save_inception,
    "transformers.vlm": save_llava,
}  # fmt: skip
EVERY = pytest.mark.parametrize("name", MAKERS)


def ref_of(name: str, folder: Path | None, **ref) -> ModelRef:
    return ModelRef(loaders()[name].role, name, "tiny", path=folder, **{"options": OPTIONS.get(name, {})} | ref)


def load(name: str, folder: Path | None, run_in: torch.dtype = F32, **ref):
    return loaders()[name].load(ref_of(name, folder, **ref), folder, CPU, run_in)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("saved")
    made: dict = {}
    for make in MAKERS.values():
        if make not in made:
            made[make] = make(root / make.__name__)
    return {name: made[make] for name, make in MAKERS.items()}


def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@EVERY
def test_every_loader_loads_and_names_its_weights_without_the_place(name, saved):
    model = load(name, saved[name])
    assert model.name == saved[name].name
    hub = ModelRef(loaders()[name].role, name, "x", hub="org/tiny", revision="0" * 40, options=OPTIONS.get(name, {}))
    named = loaders()[name].load(hub, saved[name], CPU, F32).name
    assert named == "org/tiny@000000000000"
    assert any(p.suffix == ".safetensors" for p in model_files(ref_of(name, saved[name]), saved[name]))


@EVERY
def test_pickled_weights_are_refused_by_name(name, saved, tmp_path):
    copy = copied(saved[name], tmp_path)
    weights = next(copy.glob("*.safetensors"))
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(MissingError, match=r"\.safetensors; it has pytorch_model\.bin, which is not loaded"):
        load(name, copy)


@EVERY
def test_weights_that_are_missing_are_an_error_not_random_numbers(name, saved, tmp_path):
    copy = copied(saved[name], tmp_path)
    weights = next(copy.glob("*.safetensors"))
    tensors = load_file(weights)
    wanted = [k for k in tensors if "weight" in k and not k.startswith("fc.")]
    tensors.pop(sorted(wanted)[0])
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(GraphflowError, match="1 weights are missing"):
        load(name, copy)


@EVERY
def test_truncated_weights_are_an_error(name, saved, tmp_path):
    copy = copied(saved[name], tmp_path)
    weights = next(copy.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(GraphflowError, match="can't be loaded"):
        load(name, copy)


@EVERY
def test_another_architecture_is_refused(name, saved):
    other = "inception.fid" if name == "lpips" else "lpips"
    with pytest.raises(GraphflowError):
        load(name, saved[other])


@pytest.mark.parametrize("name", ["lpips", "inception.fid", "transformers.dino", "timm.dino"])
def test_scores_are_computed_in_float32_whatever_the_edit_is_computed_in(name, saved):
    def kind(model):
        return next(model.model.parameters()).dtype

    assert kind(load(name, saved[name], torch.bfloat16)) == torch.float32
    assert kind(load(name, saved[name], torch.bfloat16, dtype="bfloat16")) == torch.bfloat16


# --- one by one -----------------------------------------------------------------------------------------------------


def test_lpips_has_the_weights_of_the_file(saved):
    model = load("lpips", saved["lpips"])
    a, b = (pixels.to_unit(i) * 2 - 1 for i in IMAGES)
    with torch.no_grad():
        expected = lpips_network("squeeze")(a, b).item()
    assert (model.net, model.distance(a, b).item()) == ("squeeze", pytest.approx(expected, abs=1e-6))


def test_lpips_needs_to_know_its_backbone(saved):
    for options in ({}, {"net": "resnet"}):
        with pytest.raises(UsageError, match="needs the option 'net': squeeze, alex, vgg"):
            load("lpips", saved["lpips"], options=options)
    with pytest.raises(GraphflowError, match="weights are missing or misshapen"):
        load("lpips", saved["lpips"], options={"net": "alex"})


def test_weights_of_another_model_beside_the_right_ones_are_refused(saved, tmp_path):
    copy = copied(saved["lpips"], tmp_path)
    tensors = load_file(copy / "model.safetensors")
    save_file(tensors | {"lin9.model.1.weight": torch.zeros(1)}, copy / "model.safetensors")
    with pytest.raises(GraphflowError, match=r"it has other weights too: lin9\.model\.1\.weight"):
        load("lpips", copy)


def test_inception_needs_neither_classifier_nor_counters(saved, tmp_path):
    copy = copied(saved["inception.fid"], tmp_path)
    tensors = load_file(copy / "model.safetensors")
    old = {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked") and not k.startswith("fc.")}
    assert len(old) < len(tensors) - 2
    save_file(old, copy / "model.safetensors", {"format": "pt"})
    found = [load("inception.fid", f).features(IMAGES[0], 64, "clean") for f in (saved["inception.fid"], copy)]
    assert torch.equal(*found)


def test_open_clip_agrees_with_open_clip_itself(saved):
    import open_clip

    ours = load("open_clip", saved["open_clip"])
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{saved['open_clip']}", load_weights=False)
    model.load_state_dict(load_file(saved["open_clip"] / "open_clip_model.safetensors"))
    model.eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{saved['open_clip']}")
    texts = ["a photo of a cat", "x " * 200]
    with torch.no_grad():
        pictures = torch.stack([preprocess(image) for image in IMAGES])
        torch.testing.assert_close(ours.image(IMAGES), model.encode_image(pictures), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(ours.text(texts), model.encode_text(tokenizer(texts)), atol=1e-6, rtol=1e-5)
    assert (ours.size, ours.max_tokens) == (32, 77)
    assert "bicubic" in ours.preprocessing.lower()


def test_hps_is_what_its_authors_script_computes(saved):
    import open_clip
    from torchvision.transforms import v2 as tv

    node = Hps()
    found = node.run(
        node.In(image=IMAGES[0], text="a cat", model=load("open_clip.hps", saved["open_clip.hps"])), Context()
    )
    model = open_clip.CLIP(**OPEN_CLIP, output_dict=True)
    model.load_state_dict(load_file(saved["open_clip"] / "open_clip_model.safetensors"))
    unit = tv.ToDtype(torch.float32, scale=True)(tv.ToImage()(IMAGES[0]))  # 50 x 41 pixels, to 32 x 26
    small = tv.Resize((26, 32), interpolation=tv.InterpolationMode.BICUBIC, antialias=True)(unit)
    ready = tv.Normalize(pixels.OPENAI_MEAN, pixels.OPENAI_STD)(tv.Pad([0, 3, 0, 3])(small))
    with torch.no_grad():
        out = model.eval()(ready[None], open_clip.SimpleTokenizer()(["a cat"]))
    expected = torch.diagonal(out["image_features"] @ out["text_features"].T).item()
    assert found.scores == {"hps": pytest.approx(expected, abs=1e-5)}


def test_open_clips_activation_is_that_of_its_config(saved, tmp_path):
    usual = save_open_clip(tmp_path, quick_gelu=False)
    assert OPEN_CLIP["quick_gelu"]
    images = [load("open_clip", f).image(IMAGES) for f in (saved["open_clip"], usual)]
    assert (images[0] - images[1]).abs().max() > 1e-4


@pytest.mark.parametrize("tower", [{"hf_model_name": "org/model"}, {"timm_model_name": "resnet50"}])
def test_open_clip_towers_of_other_libraries_are_refused(saved, tmp_path, tower):
    copy = copied(saved["open_clip"], tmp_path)
    config = json.loads((copy / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] |= tower
    (copy / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(GraphflowError, match="towers of other libraries"):
        load("open_clip", copy)


def test_dino_needs_no_pooler_and_refuses_other_models(saved, tmp_path):
    assert (
        load("transformers.dino", save_vit(tmp_path / "pooled", pooler=True))
        .embed(torch.zeros(1, 3, 32, 32))
        .isfinite()
        .all()
    )
    with pytest.raises(GraphflowError, match="describes a clip, expected a vit or a dinov2"):
        load("transformers.dino", save_clip(tmp_path / "clip"))


def test_dinov2_gives_keys(saved):
    model = load("transformers.structure", saved["transformers.structure"])
    assert model.keys(torch.zeros(1, 3, 32, 40)).shape == (1, 1 + 4 * 5, 32)


def test_a_timm_architecture_that_is_no_vit_is_refused(saved, tmp_path):
    copy = copied(saved["timm.dino"], tmp_path)
    (copy / "config.json").write_text(json.dumps({"architecture": "resnet18"}))
    with pytest.raises(GraphflowError, match="architecture is 'resnet18', expected a vit"):
        load("timm.dino", copy)


def test_a_vision_language_model_answers_about_several_pictures(saved):
    model = load("transformers.vlm", saved["transformers.vlm"])
    how = {"max_new_tokens": 6, "temperature": 0.9}
    first, same, other = (model.ask(IMAGES, "What changed?", seed=s, **how) for s in (1, 1, 2))
    assert first == same
    assert first != other


def test_a_model_that_takes_videos_too_sees_pictures_through_pil(tmp_path):
    folder = save_qwen_vl(tmp_path)
    model = load("transformers.vlm", folder)
    assert type(model._processor.image_processor).__name__.endswith("Pil")
    assert isinstance(model.ask(IMAGES, "What changed?", max_new_tokens=4), str)
    small = load("transformers.vlm", folder, options={"min_pixels": 28 * 28, "max_pixels": 28 * 28 * 4})
    grid = small._processor.image_processor(images=[picture(512, 512)], return_tensors="pt").image_grid_thw
    assert grid.tolist() == [[1, 4, 4]]


def test_a_vision_language_model_without_a_chat_template_is_refused(tmp_path):
    with pytest.raises(GraphflowError, match="no chat template"):
        load("transformers.vlm", save_llava(tmp_path, chat=False))


def test_a_service_is_bound_by_its_endpoint():
    ref = ModelRef("vlm", "openai.vlm", "x", endpoint="https://host/v1", options={"model": "judge-1"})
    assert loaders()["openai.vlm"].load(ref, None, CPU, F32).name == "judge-1 at host"
    nameless = ModelRef("vlm", "openai.vlm", "x", endpoint="https://host/v1")
    with pytest.raises(UsageError, match=r"loader openai\.vlm needs 'endpoint:' and the option 'model'"):
        loaders()["openai.vlm"].load(nameless, None, CPU, F32)


def test_a_library_that_is_not_installed_is_named(saved, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(
        MissingError, match=r"loader lpips needs the package lpips: pip install 'graphflow-diffusion\[metrics\]'"
    ):
        load("lpips", saved["lpips"])
