"""What makes a denoiser faster changes its results by rounding only, and taps see the same as without."""

from __future__ import annotations

import os

import pytest
import torch
from checkpoints import save_instruct, save_sd, tiny_sd3_transformer
from tiny import SD_SCHEDULER, TOKENS, WIDTH, random_tensor, tiny_unet

from graphflow.errors import GraphflowError
from graphflow.models.files import fingerprint
from graphflow.models.refs import ModelRef, loaders
from graphflow.nodes.lib.ddim import ddim_sample
from graphflow.nodes.lib.denoiser import Denoiser, tuned
from graphflow.nodes.lib.pix2pix_zero import pix2pix_zero_sample
from graphflow.nodes.lib.taps import Taps

Z, TEXT = random_tensor(1, 4, 8, 8, seed=0), random_tensor(1, TOKENS, WIDTH, seed=1)
DIRECTION = 0.3 * random_tensor(TOKENS, WIDTH, seed=2)


def sampled(unet: torch.nn.Module) -> torch.Tensor:
    return ddim_sample(Denoiser(unet, SD_SCHEDULER), Z, TEXT, 3, guidance_scale=3.0, negative_BLD=-TEXT)


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_channels_last_changes_nothing_but_the_order_in_memory() -> None:
    unet = tuned(tiny_unet(), channels_last=True)
    assert unet.down_blocks[0].resnets[0].conv2.weight.is_contiguous(memory_format=torch.channels_last)
    assert_close(sampled(unet), sampled(tiny_unet()))


@pytest.fixture
def compiled() -> torch.nn.Module:
    """Traced and guarded as ever, but without the code that takes a minute to make."""
    unet = tiny_unet()
    unet.compile_repeated_blocks(backend="eager")
    return unet


def test_taps_go_round_what_was_compiled(compiled: torch.nn.Module) -> None:
    """Hooks that are set after compiling are not seen by it: maps would silently be missing."""
    expected = pix2pix_zero_sample(Denoiser(tiny_unet(), SD_SCHEDULER), Z, TEXT, DIRECTION, 2)
    calls = [module._compiled_call_impl for module in compiled.modules()]
    assert sum(call is not None for call in calls) == 16
    sampled(compiled)
    assert_close(pix2pix_zero_sample(Denoiser(compiled, SD_SCHEDULER), Z, TEXT, DIRECTION, 2), expected)
    assert [module._compiled_call_impl for module in compiled.modules()] == calls


def test_without_edits_the_compiled_blocks_stay(compiled: torch.nn.Module) -> None:
    taps = Taps(compiled)
    with taps.replace({}):
        assert any(module._compiled_call_impl is not None for module in compiled.modules())
    with taps.record(["mid.attn.0.self.q"]):
        assert all(module._compiled_call_impl is None for module in compiled.modules())


@pytest.mark.skipif(not os.environ.get("GRAPHFLOW_TEST_COMPILE"), reason="takes a minute; GRAPHFLOW_TEST_COMPILE=1")
def test_compiled_blocks_give_the_same_but_for_rounding() -> None:
    assert_close(sampled(tuned(tiny_unet(), compile=True)), sampled(tiny_unet()))


def test_a_network_without_repeated_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="names no repeated blocks to compile"):
        tuned(tiny_sd3_transformer(8), compile=True)


@pytest.mark.parametrize(
    ("name", "part", "save"),
    [
        ("diffusers.unet", "unet", save_sd),
        ("diffusers.vae", "vae", save_sd),
        ("diffusers.instruct_unet", "unet", save_instruct),
    ],
)
def test_a_preset_asks_for_it_by_options_which_count_for_the_key(tmp_path, name, part, save) -> None:
    folder, loader = save(tmp_path), loaders()[name]

    def ref(**options: object) -> ModelRef:
        return ModelRef(loader.role, name, "tiny", path=folder, part=part, options=options)

    def load(**options: object) -> object:
        return loader.load(ref(**options), folder, torch.device("cpu"), torch.float32)

    wrapper = load(channels_last=True)
    network = wrapper.unet if part == "unet" else wrapper.model
    weights = [p for p in network.parameters() if p.ndim == 4 and p.shape[2] == 3 and p.shape[1] > 1]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    digest = lambda path, read: path.name  # noqa: E731
    assert fingerprint(ref(channels_last=True), digest) != fingerprint(ref(), digest)
    with pytest.raises(GraphflowError, match="channels_last of .* is 'yes', expected true or false"):
        load(channels_last="yes")
