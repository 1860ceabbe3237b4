"""The nodes that edit by instructions, their loader, and the graph."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkpoints import save_instruct, save_sd
from measures import picture
from tiny import SD_SCHEDULER, TOKENS, WIDTH, random_tensor, tiny_unet, tiny_vae
from watcher import Watcher

from graphflow.check import check
from graphflow.errors import GraphflowError, InvalidError
from graphflow.models.refs import ModelRef, loaders
from graphflow.node import Context
from graphflow.nodes.instruct import Denoise, Phrase, Prepare
from graphflow.nodes.lib.instruct_pix2pix import InstructDenoiser, instruct_sample
from graphflow.nodes.lib.vae import VAE, to_pixels
from graphflow.ports import TextCond
from graphflow.spec import parse_spec

PICTURE = picture(96, 64)


@pytest.fixture(scope="module")
def vae():
    return VAE(tiny_vae())


@pytest.fixture(scope="module")
def denoiser():
    return InstructDenoiser(tiny_unet(in_channels=8), SD_SCHEDULER)


def test_a_suffix_follows_the_instruction_after_a_comma():
    said = Phrase.In(instruction="make it snow")
    assert Phrase(suffix="image quality is five out of five").run(said, Context()).text == (
        "make it snow, image quality is five out of five"
    )
    assert Phrase().run(said, Context()).text == Phrase(suffix=" ").run(said, Context()).text == "make it snow"


def test_prepare_keeps_proportions_and_takes_the_size_from_the_models(vae):
    wide = picture(200, 100)
    assert Prepare().run(Prepare.In(image=wide, model=vae), Context()).image.size == (128, 64)
    assert Prepare(resolution=256).run(Prepare.In(image=wide, model=vae), Context()).image.size == (256, 128)
    large = VAE(tiny_vae(), native_size=256)
    assert Prepare().run(Prepare.In(image=wide, model=large), Context()).image.size == (256, 128)


def test_denoise_passes_every_port_and_parameter_on(vae, denoiser):
    cond, negative = (random_tensor(1, TOKENS, WIDTH, seed=n) for n in (1, 2))
    x = Denoise.In(image=PICTURE, cond=TextCond(cond), negative=TextCond(negative), vae=vae, model=denoiser)
    how = {"guidance_scale": 5.0, "image_guidance_scale": 1.2, "sampler": "ddim"}
    watcher = Watcher()
    found = Denoise(num_inference_steps=3, seed=7, **how).run(x, watcher).latents
    image, generator = vae.encode_unscaled(to_pixels([PICTURE])), torch.Generator().manual_seed(7)
    assert torch.equal(found, instruct_sample(denoiser, image, cond, negative, generator, 3, **how))
    assert watcher.loops == [(3, "editing")]
    assert torch.equal(watcher.previews[-1], found)


def test_latents_come_back_in_float32_from_a_half_precision_model(vae):
    half = InstructDenoiser(tiny_unet(in_channels=8).to(torch.bfloat16), SD_SCHEDULER)
    cond = TextCond(random_tensor(1, TOKENS, WIDTH, seed=1))
    x = Denoise.In(image=PICTURE, cond=cond, negative=cond, vae=vae, model=half)
    latents = Denoise(num_inference_steps=2).run(x, Context(dtype="bfloat16")).latents
    assert latents.dtype == torch.float32
    assert latents.isfinite().all()


def load(folder: Path, **ref):
    name = "diffusers.instruct_unet"
    ref = ModelRef("instruct_denoiser", name, "tiny", path=folder, part="unet", **ref)
    return loaders()[name].load(ref, folder, torch.device("cpu"), torch.float32)


def test_the_loader_reads_a_repository_and_refuses_a_plain_unet(tmp_path):
    denoiser = load(save_instruct(tmp_path / "ip2p"))
    assert (denoiser.channels, denoiser.scheduler_config["_class_name"]) == (4, "EulerAncestralDiscreteScheduler")
    assert torch.equal(denoiser.unet.conv_in.weight, tiny_unet(in_channels=8).conv_in.weight)
    with pytest.raises(GraphflowError, match="reads 4 channels, expected 8"):
        load(save_sd(tmp_path / "sd"))


def test_a_preset_can_say_what_the_vaes_config_does_not(tmp_path):
    save_sd(tmp_path)
    how = loaders()["diffusers.vae"]

    def load_vae(**options):
        ref = ModelRef("vae", "diffusers.vae", "tiny", path=tmp_path, part="vae", options=options)
        return how.load(ref, tmp_path, torch.device("cpu"), torch.float32)

    plain, shifted = load_vae(), load_vae(native_size=512, shift_factor=0.5)
    assert (plain.native_size, shifted.native_size) == (64, 512)
    pixels = to_pixels([PICTURE])
    torch.testing.assert_close(shifted.encode(pixels), plain.encode(pixels) - 0.5 * 0.18215)
    torch.testing.assert_close(
        shifted.decode(shifted.encode(pixels)), plain.decode(plain.encode(pixels)), rtol=1e-4, atol=1e-4
    )


def test_text_of_another_models_space_is_refused():
    text = """
graphflow: 1
inputs: {image: Image, say: Text}
models:
  vae: {loader: diffusers.vae, path: x, space: a}
  instruct_denoiser: {loader: diffusers.instruct_unet, path: x, space: a}
  text_encoder: {loader: transformers.clip_text, path: x, space: b}
nodes:
  cond: {uses: text.encode, in: {text: inputs.say}}
  edit: {uses: instruct.denoise, in: {image: inputs.image, cond: cond.cond, negative: cond.cond}}
outputs: {latents: edit.latents}
"""
    with pytest.raises(InvalidError, match="GF1") as caught:
        check(parse_spec(text, "g.yaml", None))
    assert "instruct_denoiser" in str(caught.value)
