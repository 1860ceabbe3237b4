"""The weights that come with the package: they load without a network, and know the pocket world."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphflow.nodes.lib.ddim import ddim_sample
from graphflow.nodes.lib.vae import to_pixels
from graphflow.nodes.pocket.captions import caption, describe, read
from graphflow.nodes.pocket.catalogue import SHIPPED
from graphflow.nodes.pocket.examples import EXAMPLES
from graphflow.nodes.pocket.gates import Counts, decode, encode, judged, paint, psnr
from graphflow.nodes.pocket.models import WEIGHTS, PocketModels, load_models
from graphflow.nodes.pocket.world import render

SCENES = [example.scene for example in EXAMPLES.values()]
PICTURES = [render(scene, SHIPPED.size) for scene in SCENES]


@pytest.fixture(scope="module")
def models() -> PocketModels:
    return load_models()


def test_weights_are_small_safetensors_in_readable_files() -> None:
    files = [file for file in WEIGHTS.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".jinja"}
    assert max(file.stat().st_size for file in files) <= 15e6
    assert sum(file.stat().st_size for file in files) <= 60e6
    assert not [file for file in WEIGHTS.rglob("*config.json") if '"/' in file.read_text(encoding="utf-8")], "a path"


def test_pictures_survive_the_autoencoder(models: PocketModels) -> None:
    decoded = decode(models, encode(models, PICTURES))
    assert np.mean([psnr(a, b) for a, b in zip(PICTURES, decoded, strict=True)]) > 29
    assert models.vae.encode(to_pixels(PICTURES)).shape == (len(PICTURES), 8, 16, 16)


def test_clip_prefers_true_captions(models: PocketModels) -> None:
    right = judged(models, SHIPPED, [describe(scene) for scene in SCENES], PICTURES)
    assert right == dict.fromkeys(("object", "background", "style", "colour"), 1.0)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_captioner_reads_the_examples(models: PocketModels, name: str) -> None:
    scene = EXAMPLES[name].scene
    assert models.captioner.caption(render(scene, SHIPPED.size)) == caption(scene)


def test_the_caption_writer_understands_requests(models: PocketModels) -> None:
    prompt = "caption: a cat on the beach instruction: turn the cat into a dog"
    for answer in models.caption_writer.complete(prompt, 4, temperature=1.0, max_new_tokens=64):
        before, _, after = answer.removeprefix("before: ").partition(" after: ")
        assert read(before) == read("a cat on the beach")
        assert read(after) == read("a dog on the beach")


def test_a_prompt_becomes_its_picture(models: PocketModels) -> None:
    texts = ["a dog on the beach", "a cake in a meadow", "an apple on a blue background", "a house in the snow"]
    counts = Counts(num_inference_steps=25)
    pictures = paint(models, texts, seed=0, counts=counts)
    said = [read(text) for text in texts]
    right = judged(models, SHIPPED, [d for d in said if d], pictures)
    assert right["background"] == 1
    assert right["object"] >= 0.75


def test_sampling_is_deterministic(models: PocketModels) -> None:
    noise = torch.randn((1, 8, 16, 16), generator=torch.Generator().manual_seed(0))
    cond = models.text_encoder.encode(["a cat on the beach"])
    first, second = (ddim_sample(models.denoiser, noise, cond, 5) for _ in range(2))
    assert torch.equal(first, second)
