"""The autoencoder's pixels and scaling, against diffusers' own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from tiny import random_tensor, tiny_vae

from graphflow.nodes.lib.vae import VAE, to_images, to_pixels

PICTURE = Image.effect_noise((64, 48), 80).convert("RGB")


def test_pixels_are_those_of_diffusers_processor():
    assert torch.equal(to_pixels([PICTURE]), VaeImageProcessor().preprocess(PICTURE))


def test_pictures_are_those_of_diffusers_processor():
    pixels = 1.2 * torch.tanh(random_tensor(2, 3, 16, 24, seed=0))
    theirs = VaeImageProcessor().postprocess(pixels, output_type="pil")
    assert [np.array(a).tolist() for a in to_images(pixels)] == [np.array(b).tolist() for b in theirs]


def test_every_level_survives_the_way_to_pixels_and_back():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    picture = Image.fromarray(np.stack([levels, levels[::-1], levels.T], axis=-1))
    assert to_images(to_pixels([picture]))[0].tobytes() == picture.tobytes()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_damaged_pixels_are_no_picture(value):
    with pytest.raises(ValueError, match="not finite"):
        to_images(torch.full((1, 3, 2, 2), value))


def test_latents_are_the_scaled_mode_and_decode_to_what_diffusers_decodes():
    vae, model = VAE(tiny_vae()), tiny_vae()
    pixels = to_pixels([PICTURE])
    with torch.no_grad():
        expected = model.encode(pixels).latent_dist.mode() * model.config.scaling_factor
        decoded = model.decode(expected / model.config.scaling_factor).sample
    latents = vae.encode(pixels)
    assert latents.shape == (1, 4, 6, 8)
    assert torch.equal(latents, expected)
    assert torch.allclose(vae.decode(latents), decoded, atol=1e-6)


def test_a_sample_is_drawn_with_the_generator():
    vae, model = VAE(tiny_vae()), tiny_vae()
    pixels = to_pixels([PICTURE])
    with torch.no_grad():
        posterior = model.encode(pixels).latent_dist
    expected = posterior.sample(torch.Generator().manual_seed(3)) * model.config.scaling_factor
    assert torch.equal(vae.encode(pixels, [torch.Generator().manual_seed(3)]), expected)
    assert not torch.equal(vae.encode(pixels), expected)


def configured(**config) -> VAE:
    torch.manual_seed(0)
    return VAE(AutoencoderKL(latent_channels=4, **config))


def test_shift_and_scale_of_the_config_are_applied():
    pixels = to_pixels([PICTURE])
    plain = configured(scaling_factor=1.0).encode(pixels)
    shifted = configured(scaling_factor=1.5, shift_factor=0.25)
    assert torch.allclose(shifted.encode(pixels), (plain - 0.25) * 1.5, atol=1e-6)
    mean, std = [0.1, 0.2, 0.3, 0.4], [1.0, 2.0, 3.0, 4.0]
    normalised = configured(scaling_factor=0.5, latents_mean=mean, latents_std=std)
    m, s = torch.tensor(mean).reshape(1, 4, 1, 1), torch.tensor(std).reshape(1, 4, 1, 1)
    assert torch.allclose(normalised.encode(pixels), (plain - m) * 0.5 / s, atol=1e-6)
    for vae in (shifted, normalised):
        assert torch.allclose(vae.decode(vae.encode(pixels)), configured(scaling_factor=1.0).decode(plain), atol=1e-5)


def test_a_side_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="60 × 48 pixels; both sides must be multiples of 8"):
        VAE(tiny_vae()).encode(torch.zeros(1, 3, 48, 60))


def test_half_precision_weights_take_and_give_float32():
    vae = VAE(tiny_vae().to(torch.bfloat16))
    latents = vae.encode(to_pixels([PICTURE]))
    assert latents.dtype == vae.decode(latents).dtype == torch.float32
