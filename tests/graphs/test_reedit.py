"""ReEdit as shipped, on tiny models in the layouts of the published ones: what an edit reuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkpoints import VISION, save_llava, save_sd
from PIL import Image
from safetensors.torch import save_file
from tiny import WIDTH, tiny_unet
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

import graphflow
from graphflow.nodes.lib.ip_adapter import IPAdapter
from graphflow.nodes.lib.taps import Taps

PICTURES = [Image.effect_noise((64, 64), 40 + 20 * n).convert("RGB") for n in range(4)]


@pytest.fixture(scope="module")
def preset(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for name, save in {"sd": save_sd, "llava": save_llava}.items():
        save(root / name)
    (root / "ip").mkdir()
    torch.manual_seed(0)
    channels = [layer.to_q.out_features for name, layer in Taps(tiny_unet()).attentions.items() if "cross" in name]
    save_file(IPAdapter(16, WIDTH, channels).to_tensors(), root / "ip" / "ip-adapter_sd15.safetensors")
    vision = CLIPVisionConfig(**VISION, projection_dim=16)
    CLIPVisionModelWithProjection(vision).save_pretrained(root / "ip" / "image_encoder")
    (root / "tiny.yaml").write_text(
        """
graphflow-preset: 1
space: tiny
models:
  vae: {loader: diffusers.vae, path: sd, part: vae}
  denoiser: {loader: diffusers.unet, path: sd, part: unet}
  text_encoder: {loader: transformers.clip_text, path: sd, part: text_encoder, options: {tokenizer: tokenizer}}
  ip_adapter: {loader: ip_adapter, path: ip, options: {file: ip-adapter_sd15.safetensors}}
  image_encoder: {loader: transformers.clip_vision, path: ip, part: image_encoder, space: tiny-clip}
  vlm: {loader: transformers.vlm, path: llava}
"""
    )
    return root / "tiny.yaml"


@pytest.fixture(scope="module")
def session(preset, tmp_path_factory):
    settings = {"describe.max_new_tokens": 4, "caption.max_new_tokens": 4, "capture.storage": "stored"}
    return graphflow.load(
        "reedit", models=str(preset), settings=settings, store=tmp_path_factory.mktemp("store"), device="cpu"
    )


def statuses(session, **inputs) -> dict[str, str]:
    return {name: node.status for name, node in session.plan(**inputs).nodes.items()}


INPUTS = {"before": PICTURES[0], "after": PICTURES[1], "image": PICTURES[2], "steps": 4, "inversion_steps": 4}


def test_the_edit_runs_and_each_prompt_counts(session):
    images = {p: session.run(**INPUTS, prompts=p)["image"] for p in ("both", "text", "image")}
    assert {image.size for image in images.values()} == {(64, 64)}
    assert len({image.tobytes() for image in images.values()}) == 3


def test_a_second_picture_reuses_what_belongs_to_the_pair(session):
    session.run(**INPUTS)
    found = statuses(session, **INPUTS | {"image": PICTURES[3]})
    for name in ("first", "second", "describe", "embed_first", "embed_second", "source", "negative"):
        assert found[name] == "cached", name
    assert found["prepare"] == "run"


def test_another_pair_reuses_what_belongs_to_the_picture(session):
    session.run(**INPUTS)
    found = statuses(session, **INPUTS | {"after": PICTURES[3]})
    for name in ("prepare", "encode", "invert", "capture", "embed_image", "embed_first"):
        assert found[name] == "cached", name
    assert found["second"] == "run"
