"""Ranges, resizing and masks, against torchvision and PIL."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from measures import half_mask, picture
from PIL import Image
from torchvision.transforms import v2 as tv

from graphflow.nodes.lib.metrics import pixels

SIZES = [(64, 64), (91, 64), (64, 93), (227, 131)]
EXACT = {"atol": 1e-6, "rtol": 0}


def compose(*steps):
    to_tensor = [tv.ToImage(), tv.ToDtype(torch.float32, scale=True)]
    return tv.Compose([s for step in steps for s in (to_tensor if step == "tensor" else [step])])


def test_ranges():
    white = Image.new("RGB", (2, 2), "white")
    assert pixels.to_unit(white).max() == 1
    assert pixels.to_bytes(white).max() == 255
    assert pixels.to_unit(Image.new("L", (2, 3), 51)).shape == (1, 3, 3, 2)


@pytest.mark.parametrize("size", SIZES)
def test_openai_preprocessing_is_that_of_clip_load(size):
    image = picture(*size)
    theirs = compose(
        tv.Resize(40, interpolation=tv.InterpolationMode.BICUBIC), tv.CenterCrop(40), "tensor",
        tv.Normalize(pixels.OPENAI_MEAN, pixels.OPENAI_STD),
    )  # fmt: skip
    torch.testing.assert_close(pixels.openai_pixels(image, 40)[0], theirs(image), **EXACT)


def test_an_odd_margin_is_cut_as_torchvision_cuts_it():
    image = picture(43, 40)
    assert np.array_equal(pixels.centre_crop(image, 40), tv.CenterCrop(40)(image))
    left = image.crop((1, 0, 41, 40))  # where transformers' own processors cut
    assert not np.array_equal(pixels.centre_crop(image, 40), left)


@pytest.mark.parametrize("size", SIZES)
def test_ip2p_preprocessing_stretches_without_antialiasing(size):
    image = picture(*size)
    theirs = compose(
        "tensor", tv.Resize((40, 40), interpolation=tv.InterpolationMode.BICUBIC, antialias=False),
        tv.Normalize(pixels.OPENAI_MEAN, pixels.OPENAI_STD),
    )  # fmt: skip
    torch.testing.assert_close(pixels.ip2p_pixels(image, 40)[0], theirs(image), atol=1e-5, rtol=0)
    assert (pixels.ip2p_pixels(image, 40) - pixels.openai_pixels(image, 40)).abs().max() > 0.1


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("size", [*SIZES, (40, 18), (18, 40), (300, 2)])
def test_hps_preprocessing_adds_black_margins(size, antialias):
    image = picture(*size)
    unit = compose("tensor")(image)
    scale = 40 / max(size)
    new = [max(1, round(side * scale)) for side in unit.shape[1:]]
    small = tv.Resize(new, interpolation=tv.InterpolationMode.BICUBIC, antialias=antialias)(unit)
    down, right = 40 - new[0], 40 - new[1]
    square = tv.Pad([right // 2, down // 2, right - right // 2, down - down // 2])(small)
    theirs = tv.Normalize(pixels.OPENAI_MEAN, pixels.OPENAI_STD)(square)
    torch.testing.assert_close(pixels.hps_pixels(image, 40, antialias)[0], theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_dino_preprocessing_is_that_of_magicbrush(size):
    image = picture(*size)
    theirs = compose(
        tv.Resize(48, interpolation=tv.InterpolationMode.BICUBIC), tv.CenterCrop(40), "tensor",
        tv.Normalize(pixels.IMAGENET_MEAN, pixels.IMAGENET_STD),
    )  # fmt: skip
    torch.testing.assert_close(pixels.dino_pixels(image, 48, 40)[0], theirs(image), **EXACT)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("size", [*SIZES, (300, 64), (64, 300)])
def test_structure_preprocessing_is_that_of_splice(size, antialias):
    unit = compose("tensor")(picture(*size))
    theirs = tv.Compose(
        [tv.Resize(32, max_size=80, antialias=antialias), tv.Normalize(pixels.IMAGENET_MEAN, pixels.IMAGENET_STD)]
    )
    ours = pixels.structure_pixels(unit[None], 32, 80, antialias)[0]
    torch.testing.assert_close(ours, theirs(unit), atol=1e-5, rtol=0)


def test_a_mask_is_split_at_128_and_fits_the_picture():
    mask = Image.new("L", (4, 1))
    for i, value in enumerate([0, 127, 128, 255]):
        mask.putpixel((i, 0), value)
    inside = pixels.mask_of(mask, (8, 2), "inside")
    assert inside[0, 0].tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]] * 2
    assert torch.equal(pixels.mask_of(mask, (8, 2), "outside"), 1 - inside)


@pytest.mark.parametrize("size", [(128, 96), (21, 16), (22, 16), (32, 24)])
def test_a_mask_of_the_same_proportions_is_taken_within_a_pixel(size):
    assert pixels.mask_of(half_mask(*size), (64, 48), "inside").shape[-2:] == (48, 64)


def test_a_mask_of_other_proportions_is_an_error_that_names_both_sizes():
    with pytest.raises(ValueError, match="the mask has 64x48 pixels and the picture 64x64"):
        pixels.mask_of(half_mask(64, 48), (64, 64), "inside")


def test_black_out_keeps_the_region_only():
    image, mask = picture(), half_mask()
    out = np.asarray(pixels.black_out(image, pixels.mask_of(mask, image.size, "inside")))
    assert np.array_equal(out[:, :21], np.asarray(image)[:, :21])
    assert not out[:, 21:].any()


def test_two_sizes_are_an_error_that_names_both():
    with pytest.raises(ValueError, match="64x48 pixels and the reference 64x64"):
        pixels.same_size(picture(64, 48), picture())
