"""InstructPix2Pix against diffusers' pipeline, and against eq. 3 of the paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler, StableDiffusionInstructPix2PixPipeline
from measures import picture
from PIL import Image
from tiny import SD_SCHEDULER, TOKENS, WIDTH, random_tensor, tiny_text_encoder, tiny_tokenizer, tiny_unet, tiny_vae

from graphflow.nodes.lib.instruct_pix2pix import (
    InstructDenoiser,
    dual_guidance,
    edit_size,
    fit_for_edit,
    instruct_sample,
    picture_rows,
    text_rows,
)
from graphflow.nodes.lib.text_encoder import TextEncoder
from graphflow.nodes.lib.vae import VAE, to_pixels

# What the published repository has in its scheduler_config.json: settings of several schedulers, no spacing.
PUBLISHED = {k: v for k, v in SD_SCHEDULER.items() if k != "timestep_spacing"} | {"skip_prk_steps": True}
PICTURE = picture(96, 64)


@pytest.fixture(scope="module")
def unet():
    return tiny_unet(in_channels=8)


def pipeline(unet, scheduler):
    return StableDiffusionInstructPix2PixPipeline(
        vae=tiny_vae(),
        text_encoder=tiny_text_encoder(),
        tokenizer=tiny_tokenizer(),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def ours(unet, config, prompt="make it blue", seed=3, source=PICTURE, **how):
    texts = TextEncoder(tiny_tokenizer(), tiny_text_encoder())
    image = VAE(tiny_vae()).encode_unscaled(to_pixels([source]))
    generator = torch.Generator().manual_seed(seed)
    cond, negative = texts.encode([prompt]), texts.encode([""])
    return instruct_sample(InstructDenoiser(unet, config), image, cond, negative, generator, **how)


@pytest.mark.parametrize(
    ("sampler", "cls", "config"),
    [
        ("euler_ancestral", EulerAncestralDiscreteScheduler, PUBLISHED),
        ("euler_ancestral", EulerAncestralDiscreteScheduler, SD_SCHEDULER),
        ("euler_ancestral", EulerAncestralDiscreteScheduler, SD_SCHEDULER | {"prediction_type": "v_prediction"}),
        ("ddim", DDIMScheduler, SD_SCHEDULER),
        ("ddim", DDIMScheduler, SD_SCHEDULER | {"prediction_type": "v_prediction"}),
    ],
    ids=["euler as published", "euler", "euler v", "ddim", "ddim v"],
)
def test_a_seed_gives_the_latents_of_diffusers_pipeline(unet, sampler, cls, config):
    pipe = pipeline(unet, cls.from_config(config))
    pipe.set_progress_bar_config(disable=True)
    how = {"num_inference_steps": 4, "guidance_scale": 7.5, "image_guidance_scale": 1.5}
    expected = pipe(
        "make it blue", image=PICTURE, generator=torch.Generator().manual_seed(3), output_type="latent", **how
    ).images
    found = ours(unet, config, sampler=sampler, **how)
    assert expected.shape == (1, 4, 8, 12)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_the_picture_counts_and_so_does_the_instruction(unet):
    how = {"num_inference_steps": 2, "sampler": "ddim"}
    same = ours(unet, SD_SCHEDULER, **how)
    assert torch.equal(same, ours(unet, SD_SCHEDULER, **how))
    for change in ({"prompt": "make it red"}, {"source": PICTURE.rotate(180)}, {"seed": 4}):
        assert (same - ours(unet, SD_SCHEDULER, **how, **change)).abs().max() > 1e-4, change


def test_guidance_of_one_is_the_prediction_under_both_conditions(unet):
    denoiser = InstructDenoiser(unet, SD_SCHEDULER)
    z, image = random_tensor(1, 4, 8, 8, seed=0), random_tensor(1, 4, 8, 8, seed=1)
    cond, negative = (random_tensor(1, TOKENS, WIDTH, seed=n) for n in (2, 3))
    images, embeds = picture_rows(image), text_rows(1, cond, negative)
    with torch.no_grad():
        outputs = denoiser.predict_edit(torch.cat([z] * 3), images, 401, embeds)
        alone = denoiser.predict_edit(z, image, 401, cond)
        neither = denoiser.predict_edit(z, torch.zeros_like(image), 401, negative)
    torch.testing.assert_close(dual_guidance(outputs, 1.0, 1.0), alone, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(dual_guidance(outputs, 0.0, 0.0), neither, rtol=1e-6, atol=1e-6)
    assert (alone - neither).abs().max() > 1e-3
    guided = ours(unet, SD_SCHEDULER, num_inference_steps=2, guidance_scale=1, image_guidance_scale=1)
    almost = ours(unet, SD_SCHEDULER, num_inference_steps=2, guidance_scale=1 + 1e-7, image_guidance_scale=1)
    torch.testing.assert_close(guided, almost, rtol=1e-5, atol=1e-5)


def test_guidance_of_the_noise_is_guidance_of_the_clean_latents():
    z, outputs, alpha = random_tensor(1, 4, 8, 8, seed=0), random_tensor(3, 4, 8, 8, seed=1), 0.3

    def clean(eps):
        return (z - (1 - alpha) ** 0.5 * eps) / alpha**0.5

    torch.testing.assert_close(
        clean(dual_guidance(outputs, 7.5, 1.5)), dual_guidance(clean(outputs), 7.5, 1.5), rtol=1e-5, atol=1e-5
    )


def test_a_batch_gives_each_picture_what_it_gets_alone(unet):
    denoiser = InstructDenoiser(unet, SD_SCHEDULER)
    z, image, texts = (random_tensor(2, *rest, seed=5) for rest in ((4, 8, 8), (4, 8, 8), (TOKENS, WIDTH)))
    empty = random_tensor(1, TOKENS, WIDTH, seed=6)

    def predict(rows):
        images, embeds = picture_rows(image[rows]), text_rows(len(image[rows]), texts[rows], empty)
        with torch.no_grad():
            return dual_guidance(denoiser.predict_edit(torch.cat([z[rows]] * 3), images, 301, embeds), 7.5, 1.5)

    torch.testing.assert_close(predict(slice(0, 2)), torch.cat([predict([0]), predict([1])]), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="3 rows for 2 pictures; give 1 or 2"):
        text_rows(2, random_tensor(3, TOKENS, WIDTH, seed=7), empty)


def test_only_a_unet_with_room_for_a_picture_is_accepted(unet):
    with pytest.raises(ValueError, match="reads 4 channels, expected 8"):
        InstructDenoiser(tiny_unet(), SD_SCHEDULER)
    denoiser = InstructDenoiser(unet, SD_SCHEDULER)
    assert denoiser.channels == 4
    for number in (0, 1000, 2000):
        with pytest.raises(ValueError, match=f"num_inference_steps is {number}"):
            denoiser.sampler("ddim", number)
    assert len(denoiser.sampler("euler_ancestral", 999).timesteps) == 999


def test_the_pictures_latents_are_the_unscaled_mode():
    vae, pixels = VAE(tiny_vae()), to_pixels([PICTURE])
    with torch.no_grad():
        expected = tiny_vae().encode(pixels).latent_dist.mode()
    assert torch.equal(vae.encode_unscaled(pixels), expected)
    torch.testing.assert_close(vae.encode_unscaled(pixels) * 0.18215, vae.encode(pixels))
    with pytest.raises(ValueError, match="60 × 60 pixels"):
        vae.encode_unscaled(to_pixels([PICTURE.resize((60, 60))]))


@pytest.mark.parametrize(
    ("size", "expected"),
    [((512, 512), (512, 512)), ((1920, 1080), (512, 320)), ((1080, 1920), (320, 512)), ((100, 100), (512, 512)),
     ((640, 480), (512, 384)), ((1000, 333), (576, 192)), ((3000, 2999), (512, 512))],
)  # fmt: skip
def test_sizes_are_those_of_the_authors_command_line(size, expected):
    assert edit_size(*size, 512) == expected
    fitted = fit_for_edit(Image.new("L", size, 7), 512)
    assert (fitted.mode, fitted.size) == ("RGB", expected)
    assert np.asarray(fitted).min() == 7


def test_a_picture_of_the_right_size_stays_and_a_ribbon_is_refused():
    right = picture(128, 64)
    assert fit_for_edit(right, 128, 32).tobytes() == right.tobytes()
    with pytest.raises(ValueError, match="3 × 900 pixels, too long and narrow"):
        edit_size(3, 900, 512)
