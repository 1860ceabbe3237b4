"""Sizes and costs of captured features, known from the config alone."""

import pytest
import torch
from tiny import TOKENS, WIDTH, tiny_unet
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from graphflow.nodes.lib.injection import cheaper_to_store, plug_and_play_injection, unet_costs
from graphflow.nodes.lib.taps import Taps

SD15 = {
    "sample_size": 64,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}
OTHERS = {
    "sd1": {},
    "pocket": {
        "block_out_channels": (16, 32, 40),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
    },
    "deep": {"transformer_layers_per_block": (1, 1, 2, 1)},
}


@pytest.mark.parametrize("name", OTHERS)
def test_the_costs_are_those_of_the_network(name):
    unet = tiny_unet(**OTHERS[name])
    costs, taps, inputs = (
        unet_costs(unet.config),
        Taps(unet),
        (torch.zeros(1, 4, 16, 16), 1, torch.zeros(1, TOKENS, WIDTH)),
    )
    with torch.no_grad(), taps.record(costs.places) as seen:
        unet(*inputs)
    assert {place: value.numel() for place, value in seen.items()} == costs.places
    decoder = [n for n in taps.places if n.startswith("up.") and n.endswith(("conv2", ".self.q", ".self.k"))]
    assert set(decoder) == costs.places.keys()
    # The counter knows matrix products, not fused attention.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        unet(*inputs)
    assert 2 * costs.macs == pytest.approx(counter.get_total_flops(), rel=0.03)


def test_a_fast_device_computes_again_what_a_slow_one_stores():
    injection = plug_and_play_injection(unet_costs(SD15).places, 50)
    assert (injection.last, len(injection.steps)) == (40, 17)
    stored, why = cheaper_to_store(SD15, injection, "cpu", 4)
    assert stored
    assert why.startswith("stored: 1.3 GiB to read in about 3.4 s, or ")
    stored, why = cheaper_to_store(SD15, injection, "cuda", 2)
    assert not stored
    assert why.startswith("lock-step: 650.0 MiB to read in about 1.7 s, or ")
