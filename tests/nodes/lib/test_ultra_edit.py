"""UltraEdit against the loop of its authors' pipeline, written out here; its text encoders against diffusers' own."""

from __future__ import annotations

import pytest
import torch
from checkpoints import save_ultra_edit, tiny_sd3_transformer
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from measures import picture
from PIL import Image, ImageOps
from tiny import SD_SCHEDULER, random_tensor, tiny_unet, tiny_vae

from graphflow.errors import GraphflowError
from graphflow.models.refs import ModelRef, loaders
from graphflow.node import Context
from graphflow.nodes.instruct import Denoise
from graphflow.nodes.lib.instruct_pix2pix import InstructDenoiser, instruct_sample
from graphflow.nodes.lib.ultra_edit import InstructTransformer
from graphflow.nodes.lib.vae import VAE, to_pixels
from graphflow.nodes.text import Direction, Encode

PICTURE = picture(96, 64)
MASK = Image.new("L", (48, 32), 0)
MASK.paste(255, (0, 0, 24, 32))
SCHEDULE = {"num_train_timesteps": 1000, "shift": 3.0}
COND, NEGATIVE = (random_tensor(1, 20, 32, seed=n) for n in (1, 2))
POOLED = tuple(random_tensor(1, 32, seed=n) for n in (3, 4))


def reference(transformer, source, mask, steps, seed):
    """Three rows: text and picture, picture, nothing; the mask is encoded as a picture and left out with it."""
    vae, scheduler = tiny_vae(), FlowMatchEulerDiscreteScheduler(**SCHEDULE)
    beside = [vae.encode(to_pixels([image])).latent_dist.mode() for image in (source, mask) if image is not None]
    beside = [torch.cat([latents, latents, torch.zeros_like(latents)]) for latents in beside]
    texts, pooled = torch.cat([COND, NEGATIVE, NEGATIVE]), torch.cat([POOLED[0], POOLED[1], POOLED[1]])
    scheduler.set_timesteps(steps)
    latents = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(seed))
    for t in scheduler.timesteps:
        seen = torch.cat([torch.cat([latents] * 3), *beside], dim=1)
        out = transformer(seen, texts, pooled, t.expand(3)).sample
        text, image, nothing = out.chunk(3)
        guided = nothing + 7.5 * (text - image) + 1.5 * (image - nothing)
        latents = scheduler.step(guided, t, latents).prev_sample
    return latents


@pytest.mark.parametrize("with_mask", [True, False])
def test_a_seed_gives_the_latents_of_the_authors_loop(with_mask):
    transformer = tiny_sd3_transformer(12 if with_mask else 8)
    model = InstructTransformer(transformer, SCHEDULE)
    assert (model.channels, model.reads_mask) == (4, with_mask)
    mask = MASK.resize((96, 64), Image.Resampling.NEAREST) if with_mask else None
    with torch.no_grad():
        expected = reference(transformer, PICTURE, mask, 4, seed=5)
    seen = model.condition(VAE(tiny_vae()), PICTURE, MASK if with_mask else None)
    generator = torch.Generator().manual_seed(5)
    found = instruct_sample(model, seen, COND, NEGATIVE, generator, 4, pooled=POOLED)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_no_mask_is_a_white_one_and_only_where_masks_are_read():
    model, vae = InstructTransformer(tiny_sd3_transformer(12), SCHEDULE), VAE(tiny_vae())
    white = Image.new("L", PICTURE.size, 255)
    assert torch.equal(model.condition(vae, PICTURE), model.condition(vae, PICTURE, white))
    assert model.condition(vae, PICTURE).shape == (1, 8, 8, 12)
    for unmasked in (
        InstructTransformer(tiny_sd3_transformer(8), SCHEDULE),
        InstructDenoiser(tiny_unet(in_channels=8), SD_SCHEDULER),
    ):
        assert unmasked.condition(vae, PICTURE).shape == (1, 4, 8, 12)
        with pytest.raises(ValueError, match="reads no mask"):
            unmasked.condition(vae, PICTURE, white)


def test_a_mask_of_other_proportions_is_cut_as_its_picture_is():
    model, vae = InstructTransformer(tiny_sd3_transformer(12), SCHEDULE), VAE(tiny_vae())
    fitted, mask = ImageOps.fit(picture(128, 64), (64, 64)), Image.new("L", (128, 64), 0)
    mask.paste(255, (0, 0, 64, 64))
    left = Image.new("L", fitted.size, 0)
    left.paste(255, (0, 0, 32, 64))
    assert torch.equal(model.condition(vae, fitted, mask), model.condition(vae, fitted, left))
    mask.paste(0, (0, 0, 32, 64))
    assert torch.equal(model.condition(vae, fitted, mask), model.condition(vae, fitted, left))


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match="reads 4 channels, expected 8, or 12 for a mask"):
        InstructTransformer(tiny_sd3_transformer(4), SCHEDULE)
    model = InstructTransformer(tiny_sd3_transformer(8), SCHEDULE)
    with pytest.raises(ValueError, match="sampler 'ddim' is for models that predict noise"):
        model.sampler("ddim", 4)
    seen, generator = model.condition(VAE(tiny_vae()), PICTURE), torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match="needs pooled text embeddings"):
        instruct_sample(model, seen, COND, NEGATIVE, generator, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_ultra_edit(tmp_path_factory.mktemp("ultra"))


def load(name, folder, **ref):
    how = loaders()[name]
    return how.load(ModelRef(how.role, name, "tiny", path=folder, **ref), folder, torch.device("cpu"), torch.float32)


def test_the_text_is_that_of_diffusers_pipeline(folder):
    pipe = StableDiffusion3Pipeline.from_pretrained(folder, transformer=tiny_sd3_transformer(4))
    encoder = load("transformers.sd3_text", folder, options={"t5_tokens": 16})
    with torch.no_grad():
        expected, _, pooled, _ = pipe.encode_prompt(
            "a cat", None, None, do_classifier_free_guidance=False, max_sequence_length=16
        )
    found, found_pooled = encoder.conditioning(["a cat"])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found_pooled, pooled, rtol=1e-6, atol=1e-6)
    assert encoder.cut_off(["x" * 77]) == ["xx"]
    with pytest.raises(GraphflowError, match="t5_tokens of text_encoder is 'many'"):
        load("transformers.sd3_text", folder, options={"t5_tokens": "many"})


def test_a_direction_between_captions_needs_another_text_encoder(folder):
    x = Direction.In(before=["a cat"], after=["a dog"], model=load("transformers.sd3_text", folder))
    with pytest.raises(ValueError, match="bind a single CLIP text encoder"):
        Direction().run(x, Context())


def test_the_nodes_edit_with_a_saved_repository(folder):
    text = load("transformers.sd3_text", folder)
    model = load("diffusers.instruct_sd3", folder, part="transformer")
    vae = load("diffusers.vae", folder, part="vae", options={"shift_factor": 0})
    assert isinstance(model.transformer, SD3Transformer2DModel)
    cond, negative = (Encode().run(Encode.In(text=said, model=text), Context()).cond for said in ("make it blue", ""))
    assert cond.pooled.shape == (1, 32)
    x = {"image": PICTURE, "cond": cond, "negative": negative, "vae": vae, "model": model}
    everywhere, inside = (
        Denoise(num_inference_steps=2, seed=1).run(Denoise.In(**x, mask=mask), Context()).latents
        for mask in (None, MASK)
    )
    assert everywhere.shape == (1, 4, 8, 12)
    assert (everywhere - inside).abs().max() > 1e-4
