"""The nodes for pictures, captions, latents, text and scores."""

from __future__ import annotations

import logging
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tiny import tiny_text_encoder, tiny_tokenizer, tiny_vae

from graphflow.node import Context
from graphflow.nodes.caption import Caption
from graphflow.nodes.captions import BeforeAfter
from graphflow.nodes.image import Prepare
from graphflow.nodes.lib.text_encoder import TextEncoder
from graphflow.nodes.lib.vae import VAE
from graphflow.nodes.text import Direction, Encode
from graphflow.nodes.vae import Decode
from graphflow.nodes.vae import Encode as EncodeImage

PICTURE = Image.effect_noise((90, 60), 80).convert("RGB")


@pytest.fixture(scope="module")
def vae():
    return VAE(tiny_vae())


@pytest.fixture(scope="module")
def encoder():
    return TextEncoder(tiny_tokenizer(), tiny_text_encoder())


def test_families_and_loaders_import_no_heavy_library():
    code = (
        "import sys, pkgutil, importlib, graphflow.nodes as n\n"
        "names = [m.name for m in pkgutil.iter_modules(n.__path__) if not m.ispkg] + ['loaders']\n"
        "assert {'image', 'caption', 'captions', 'vae', 'text', 'score'} <= set(names), names\n"
        "for name in names: importlib.import_module(f'graphflow.nodes.{name}')\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'PIL', 'numpy', 'httpx'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("fit", ["crop", "stretch", "pad"])
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (3000, 2), (64, 64), (90, 60), (65, 64)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_any_picture_becomes_the_vaes_square(vae, fit, size, mode):
    picture = Image.effect_noise(size, 50).convert(mode)
    out = Prepare(fit=fit).run(Prepare.In(image=picture, model=vae), Context()).image
    assert (out.mode, out.size) == ("RGB", (64, 64))


def test_fits_differ_in_what_they_keep(vae):
    wide = Image.new("RGB", (128, 64), "black")
    wide.paste("red", (0, 0, 32, 64))
    crop, stretch, pad = (
        Prepare(fit=fit).run(Prepare.In(image=wide, model=vae), Context()).image for fit in ("crop", "stretch", "pad")
    )
    assert crop.getpixel((2, 32)) == (0, 0, 0)
    assert stretch.getpixel((2, 32))[0] > 240
    assert pad.getpixel((2, 32))[0] > 240
    assert pad.getpixel((32, 2)) == (255, 255, 255)


def test_a_square_of_the_right_size_stays_as_it_is(vae):
    picture = Image.effect_noise((64, 64), 80).convert("RGB")
    out = Prepare().run(Prepare.In(image=picture, model=vae), Context()).image
    assert out.tobytes() == picture.tobytes()


def test_encoding_is_the_mode_or_a_seeded_sample(vae):
    picture = PICTURE.resize((64, 64))
    source = EncodeImage.In(image=picture, model=vae)
    mode, sample, same, other = (
        EncodeImage(**how).run(source, Context()).latents
        for how in (
            {},
            {"posterior": "sample", "seed": 1},
            {"posterior": "sample", "seed": 1},
            {"posterior": "sample", "seed": 2},
        )
    )
    assert mode.shape == (1, 4, 8, 8)
    assert torch.equal(sample, same)
    assert not torch.equal(sample, other)
    assert not torch.equal(sample, mode)


def test_decoding_gives_one_picture(vae):
    decode = Decode()
    image = decode.run(Decode.In(latents=torch.zeros(1, 4, 8, 8), model=vae), Context()).image
    assert (image.mode, image.size) == ("RGB", (64, 64))
    with pytest.raises(ValueError, match="got 2 latents, expected one"):
        decode.run(Decode.In(latents=torch.zeros(2, 4, 8, 8), model=vae), Context())


def test_a_prompt_that_is_too_long_is_warned_of(encoder, caplog):
    caplog.set_level(logging.INFO, "graphflow.node")
    cond = Encode().run(Encode.In(text="x" * 75 + "lost", model=encoder), Context()).cond
    assert (cond.embeds.shape, cond.pooled) == ((1, 77, 32), None)
    assert "does not see the end 'lost'" in caplog.text
    caplog.clear()
    Encode().run(Encode.In(text="", model=encoder), Context())
    assert caplog.text == ""


def test_a_direction_needs_captions_on_both_sides(encoder):
    out = Direction().run(Direction.In(before=["a cat"], after=["a dog"], model=encoder), Context())
    assert out.direction.shape == (77, 32)
    for name in ("before", "after"):
        texts = {"before": ["a cat"], "after": ["a dog"]} | {name: []}
        with pytest.raises(ValueError, match=f"'{name}' has no captions"):
            Direction().run(Direction.In(**texts, model=encoder), Context())


def test_caption_passes_its_parameters_on():
    seen = {}

    def captions(images, prompt, max_new_tokens, num_beams):
        seen.update(prompt=prompt, max_new_tokens=max_new_tokens, num_beams=num_beams)
        return ["a photo of a cat"]

    node = Caption(prompt="a photo of", max_new_tokens=7, num_beams=2)
    out = node.run(Caption.In(image=PICTURE, model=SimpleNamespace(captions=captions)), Context())
    assert out.text == "a photo of a cat"
    assert seen == {"prompt": "a photo of", "max_new_tokens": 7, "num_beams": 2}


def writer(*answers):
    answers = list(answers)
    return SimpleNamespace(template="edit_pair", continues=False, complete=lambda *a, **k: [answers.pop(0)])


def test_captions_before_and_after(caplog):
    node = BeforeAfter(num_captions=1)
    out = node.run(BeforeAfter.In(caption="a cat", instruction="x", model=writer("before: cat after: dog")), Context())
    assert (out.before, out.after, out.target) == (["cat"], ["dog"], "dog")


def test_fewer_captions_than_wanted_are_warned_of(caplog):
    caplog.set_level(logging.INFO, "graphflow.node")
    node = BeforeAfter(num_captions=2, max_retries=1)
    model = writer("before: cat after: dog", "nothing")
    out = node.run(BeforeAfter.In(caption="a cat", instruction="x", model=model), Context())
    assert out.after == ["dog"]
    assert "gave 1 captions before and 1 after; 2 were wanted" in caplog.text


def test_an_empty_instruction_is_refused():
    with pytest.raises(ValueError, match="the instruction is empty; expected an edit"):
        BeforeAfter().run(BeforeAfter.In(caption="a cat", instruction=" ", model=writer()), Context())
