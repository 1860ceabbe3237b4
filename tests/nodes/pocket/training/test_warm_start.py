"""Models that begin as trained ones: the same function, or nearly, and an error where that can't be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from torch.nn.functional import avg_pool2d, interpolate
from transformers import CLIPTokenizer

from graphflow.nodes.lib import int8
from graphflow.nodes.pocket.catalogue import POCKET_64, POCKET_128
from graphflow.nodes.pocket.models import WEIGHTS
from graphflow.nodes.pocket.training.autoencoder import new_autoencoder, started, train_autoencoder
from graphflow.nodes.pocket.training.captioner import new_captioner, new_word_tokenizer
from graphflow.nodes.pocket.training.clip import new_clip
from graphflow.nodes.pocket.training.denoiser import Size, new_denoiser
from graphflow.nodes.pocket.training.loop import Loop, all_steps
from graphflow.nodes.pocket.training.pictures import pixels_of
from graphflow.nodes.pocket.training.tokenizer import TOKENIZER
from graphflow.nodes.pocket.training.warm_start import add_latents, add_level, begin_as, wake_channels, widen
from graphflow.nodes.pocket.world import Mixture, Split, sample_scene


def quiet(message: str) -> None:
    pass


@pytest.fixture(scope="module")
def small() -> AutoencoderKL:
    """The shipped one, for pictures of 128 pixels."""
    return int8.from_pretrained(AutoencoderKL, WEIGHTS / "vae", torch_dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def x_BCHW() -> torch.Tensor:
    import random

    rng = random.Random(0)
    scenes = [sample_scene(rng, POCKET_64, Split.HELD_OUT, Mixture(empty=0)) for _ in range(6)]
    return pixels_of(scenes, 256)


@torch.no_grad()
def test_a_level_more_keeps_the_latents_of_the_halved_picture(small: AutoencoderKL, x_BCHW: torch.Tensor) -> None:
    torch.manual_seed(0)
    large = add_level(small, 16)
    expected = small.encode(avg_pool2d(x_BCHW, 2)).latent_dist.mean
    found = large.encode(x_BCHW).latent_dist.mean
    assert found.shape == expected.shape == (6, 8, 16, 16)
    assert (found - expected).square().mean() < 0.02 * expected.square().mean()
    drawn, doubled = large.decode(expected).sample, interpolate(small.decode(expected).sample, scale_factor=2)
    assert (drawn - doubled).square().mean() < 0.01
    assert large.config.sample_size == 256


@torch.no_grad()
def test_a_wider_autoencoder_is_the_same_function(small: AutoencoderKL, x_BCHW: torch.Tensor) -> None:
    narrow = add_level(small, 16)
    widths = (16, 16, 32, 128, 256)
    wide = widen(narrow, widths)
    assert tuple(wide.config.block_out_channels) == widths
    expected, found = (model.encode(x_BCHW).latent_dist.mean for model in (narrow, wide))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    drawn, again = (model.decode(expected).sample for model in (narrow, wide))
    torch.testing.assert_close(again, drawn, atol=1e-4, rtol=1e-4)
    [first, second] = wide.encoder.conv_out.weight[0, :2, 1, 1].tolist()
    assert first != second, "copies that take part alike would learn the same for ever"


@torch.no_grad()
def test_more_latent_channels_are_the_same_function_and_are_woken(small: AutoencoderKL, x_BCHW: torch.Tensor) -> None:
    torch.manual_seed(0)
    x_BCHW = avg_pool2d(x_BCHW, 2)
    wide = add_latents(small, 10).eval()
    before, after = (model.encode(x_BCHW).latent_dist for model in (small, wide))
    torch.testing.assert_close(after.mean[:, :8], before.mean)
    torch.testing.assert_close(after.logvar[:, :8], before.logvar)
    assert not after.mean[:, 8:].any()
    torch.testing.assert_close(wide.decode(after.mean).sample, small.decode(before.mean).sample)
    assert wake_channels(wide, x_BCHW) == [8, 9]
    std = wide.encode(x_BCHW).latent_dist.mean.std(dim=(0, 2, 3))
    torch.testing.assert_close(std[8:], torch.ones(2), atol=0.01, rtol=0)


def test_latent_channels_can_not_be_dropped(small: AutoencoderKL) -> None:
    with pytest.raises(ValueError, match="with 2 latent channels can't begin as one with 8"):
        started(small, (16, 32, 64, 128), 128, 2)


@torch.no_grad()
def test_a_latent_channel_that_carries_nothing_is_woken(small: AutoencoderKL, x_BCHW: torch.Tensor) -> None:
    torch.manual_seed(0)
    model, x_BCHW = started(small, (16, 32, 64, 128), 128), avg_pool2d(x_BCHW, 2)
    assert wake_channels(model, x_BCHW) == []
    model.quant_conv.weight[9], model.quant_conv.bias[9] = 0, 3.0  # noise of deviation 4.5 in channel 1
    model.post_quant_conv.weight[:, 1] = 0
    before = model.encode(x_BCHW).latent_dist
    drawn = model.decode(before.mean).sample
    assert wake_channels(model, x_BCHW) == [1]
    after = model.encode(x_BCHW).latent_dist
    others = [0, 2, 3, 4, 5, 6, 7]
    torch.testing.assert_close(after.mean[:, others], before.mean[:, others])
    torch.testing.assert_close(after.std[:, others], before.std[:, others])
    assert after.mean[:, 1].std() == pytest.approx(1, abs=1e-3)
    assert after.std[:, 1].max() < 0.05
    moved = model.decode(after.mean).sample - drawn
    assert 0 < moved.square().mean() < 0.01
    assert wake_channels(model, x_BCHW) == []


def test_widths_that_do_not_fit_are_an_error(small: AutoencoderKL) -> None:
    with pytest.raises(ValueError, match=r"channels \[24, 32, 64, 128\] are no multiples of \[16, 32, 64, 128\]"):
        widen(small, (24, 32, 64, 128))
    with pytest.raises(ValueError, match="as wide as the outermost one, 16, and at least 12"):
        add_level(small, 32)
    with pytest.raises(ValueError, match=r"channels \[16, 32, 64\] can't begin as one with \[16, 32, 64, 128\]"):
        started(small, (16, 32, 64), 64)


def test_the_start_leaves_no_trace_of_where_it_lay(small: AutoencoderKL, tmp_path: Path) -> None:
    small.save_pretrained(tmp_path)
    start = AutoencoderKL.from_pretrained(tmp_path)
    assert str(tmp_path) in str(dict(start.config))
    assert str(tmp_path) not in str(dict(started(start, (16, 16, 32, 64, 128), 256).config))


def test_training_the_decoder_alone_leaves_the_latents(tmp_path: Path, x_BCHW: torch.Tensor) -> None:
    torch.manual_seed(0)
    start = new_autoencoder((8, 8, 16), 1, 64)
    loop = Loop(count=2, batch_size=2, learning_rate=1e-2, warmup=1, bfloat16=False)
    how: dict[str, Any] = {"channels": (8, 8, 16), "layers": 1, "kl_weight": 0.0, "start": start, "decoder_only": True}
    train_autoencoder(tmp_path, POCKET_64, loop, **how, checkpoint=None, steps=all_steps, log=quiet)
    after = AutoencoderKL.from_pretrained(tmp_path, torch_dtype=torch.float32)
    x_BCHW = avg_pool2d(x_BCHW, 4)
    with torch.no_grad():
        z, again = (model.encode(x_BCHW).latent_dist.mean for model in (start, after))
        moved = (after.decode(z).sample - start.decode(z).sample).abs().mean()
    torch.testing.assert_close(again, z, atol=5e-3, rtol=5e-3)  # float16 on the way
    assert moved > 0.01


@torch.no_grad()
def test_coarser_patches_see_the_averaged_picture(x_BCHW: torch.Tensor) -> None:
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    fine, coarse = (new_clip(size, tokenizer, 32, patch, 1, 1).eval() for size, patch in ((64, 8), (128, 16)))
    begin_as(coarse, fine)
    x_BCHW = avg_pool2d(x_BCHW, 2)
    expected = fine.vision_model(avg_pool2d(x_BCHW, 2)).pooler_output
    torch.testing.assert_close(coarse.vision_model(x_BCHW).pooler_output, expected, atol=1e-5, rtol=1e-4)

    words = new_word_tokenizer()
    fine, coarse = (new_captioner(size, words, 32, patch, 1, 1).eval() for size, patch in ((64, 8), (128, 16)))
    begin_as(coarse, fine)
    expected = fine.vision_model(avg_pool2d(x_BCHW, 2)).pooler_output
    torch.testing.assert_close(coarse.vision_model(x_BCHW).pooler_output, expected, atol=1e-5, rtol=1e-4)


def test_another_shape_is_an_error_that_names_it() -> None:
    narrow, wide = (new_denoiser(Size((width, 32), 1, 2, 32, 1), 4, 16) for width in (16, 32))
    with pytest.raises(ValueError, match=r"a UNet2DConditionModel of this size can't begin as .* for \(32, 4, 3, 3\)"):
        begin_as(wide, narrow)


def test_the_larger_world_has_all_of_the_smaller() -> None:
    for field in ("kinds", "backgrounds", "colours", "accessories", "styles"):
        assert set(getattr(POCKET_64, field)) <= set(getattr(POCKET_128, field))
