"""No loop over timesteps makes the host wait for the device, and none asks the device for more than it needs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from checkpoints import tiny_sd3_transformer
from diffusers import UNet2DConditionModel
from tiny import SD_SCHEDULER, TOKENS, WIDTH, tiny_unet
from torch import Tensor
from traffic import Traffic

from graphflow.nodes.lib.ddim import ddim_inversion, ddim_sample
from graphflow.nodes.lib.denoiser import Denoiser
from graphflow.nodes.lib.injection import plug_and_play_injection
from graphflow.nodes.lib.instruct_pix2pix import InstructDenoiser, instruct_sample
from graphflow.nodes.lib.ip_adapter import ImagePrompt, IPAdapter
from graphflow.nodes.lib.pez import optimise_prompt
from graphflow.nodes.lib.pix2pix_zero import pix2pix_zero_sample, regularise_noise
from graphflow.nodes.lib.plug_and_play import Prompts, capture_features, injected_sample
from graphflow.nodes.lib.sources import LATENTS
from graphflow.nodes.lib.taps import Taps
from graphflow.nodes.lib.ultra_edit import InstructTransformer
from graphflow.nodes.lib.visii import Direction, Pair, optimise_instruction

Run = Callable[[int], object]
"""Runs a loop of so many steps."""


DEVICE = "meta"


def there(*shape: int) -> Tensor:
    return torch.zeros(shape, device=DEVICE)


Z, TEXT, ONE = there(1, 4, 16, 16), there(1, TOKENS, WIDTH), torch.Generator


class Stop(Exception):
    pass


def stopping_after(count: int) -> Callable:
    """Wraps the numbers of a loop: it is left after so many, before it looks at what it has found."""

    def steps(numbers):
        yield from numbers[:count]
        raise Stop

    return steps


def small_unet(**config) -> UNet2DConditionModel:
    """Two levels of one layer each: the loops are looked at, not the network."""
    blocks = {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "layers_per_block": 1}
    blocks |= {"up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "block_out_channels": (16, 32)}
    with torch.device(DEVICE):
        return tiny_unet(**blocks, **config).to(torch.bfloat16)


@pytest.fixture(scope="module")
def denoiser():
    return Denoiser(small_unet(), SD_SCHEDULER)


@pytest.fixture(scope="module")
def instruct():
    return InstructDenoiser(small_unet(in_channels=8), SD_SCHEDULER)


def counted(run: Run, steps: int) -> Traffic:
    with Traffic() as traffic:
        run(steps)
    return traffic


def per_step(run: Run, steps: int = 2) -> tuple[int, int, int]:
    """Kernels, reads and copies that one more step takes."""
    few, more = counted(run, steps), counted(run, steps + 1)
    return more.kernels - few.kernels, more.to_host - few.to_host, more.to_device - few.to_device


def kernels_of(model, rows: int) -> int:
    """Kernels of one call of a network on so many rows."""
    z, embeds = there(rows, 4, 16, 16), there(rows, TOKENS, WIDTH).bfloat16()
    with torch.inference_mode():
        return counted(lambda _: model.predict(z, 1, embeds), 0).kernels


def kernels_of_edit(model) -> int:
    seen, embeds = there(3, 4, 16, 16), there(3, TOKENS, WIDTH).bfloat16()
    with torch.inference_mode():
        return counted(lambda _: model.predict_edit(seen, seen.bfloat16(), 1.0, embeds), 0).kernels


def injected(denoiser: Denoiser, lockstep: bool, image: bool, steps: int) -> None:
    taps = Taps(denoiser.unet)
    injection = plug_and_play_injection(taps.places, steps, attention_threshold=1, feature_threshold=1)
    latents = {t: {LATENTS: Z} for t in denoiser.timesteps(steps).tolist()}
    source: dict = latents if lockstep else {}
    if not lockstep:
        capture_features(denoiser, dict.fromkeys(latents, Z), TEXT, injection, source.__setitem__)
    channels = [layer.to_q.out_features for name, layer in taps.attentions.items() if name.endswith("cross")]
    with torch.device(DEVICE):
        prompt = ImagePrompt(IPAdapter(16, WIDTH, channels), there(1, 16)) if image else None
    prompts = Prompts(TEXT, TEXT, image=prompt)
    injected_sample(denoiser, source, injection, prompts, steps, source_BLD=TEXT if lockstep else None)


LOOPS: dict[str, Callable[..., object]] = {
    "sampling": lambda d, n: ddim_sample(d, Z, TEXT, n, guidance_scale=7.5, negative_BLD=TEXT),
    "sampling along a direction": lambda d, n: ddim_sample(d, Z, TEXT, n, direction_BLD=TEXT[0]),
    "inversion": lambda d, n: ddim_inversion(d, Z, TEXT, n, guidance_scale=2.0, negative_BLD=TEXT),
    "pix2pix-zero": lambda d, n: pix2pix_zero_sample(d, Z, TEXT, TEXT[0], n),
    "pix2pix-zero with a negative prompt": lambda d, n: pix2pix_zero_sample(d, Z, TEXT, TEXT[0], n, negative_BLD=TEXT),
    "plug-and-play, stored": lambda d, n: injected(d, False, False, n),
    "plug-and-play, lock-step": lambda d, n: injected(d, True, False, n),
    "reedit": lambda d, n: injected(d, True, True, n),
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_step_reads_nothing_back_and_moves_nothing(denoiser, name):
    kernels, to_host, to_device = per_step(partial(LOOPS[name], denoiser))
    assert kernels > kernels_of(denoiser, 1), "the network was called"
    assert (to_host, to_device) == (0, 0)


@pytest.mark.parametrize("sampler", ["ddim", "euler_ancestral"])
def test_a_step_of_instruct_pix2pix_reads_nothing_back_and_moves_nothing(instruct, sampler):
    run = lambda n: instruct_sample(instruct, Z, TEXT, TEXT, ONE(), n, sampler=sampler)  # noqa: E731
    kernels, *moved = per_step(run)
    assert kernels > kernels_of_edit(instruct)
    assert moved == [0, 0]


def test_a_step_of_ultra_edit_reads_nothing_back_and_moves_nothing():
    with torch.device("meta"):
        model = InstructTransformer(tiny_sd3_transformer(8), {"num_train_timesteps": 1000, "shift": 3.0})
    text, pooled = there(1, 20, 32), there(1, 32)
    run = lambda n: instruct_sample(model, Z, text, text, ONE(), n, pooled=(pooled, pooled))  # noqa: E731
    kernels, *moved = per_step(run)
    assert kernels > 50
    assert moved == [0, 0]


def test_regularised_inversion_moves_the_shifts_of_a_step_at_once(denoiser):
    def run(steps: int) -> None:
        generator = ONE()
        ddim_inversion(denoiser, Z, TEXT, steps, regularise=lambda eta: regularise_noise(eta, generator))

    kernels, to_host, to_device = per_step(run)
    assert (to_host, to_device) == (0, 1)
    assert kernels < kernels_of(denoiser, 1) + 1000, "25 gradients over two levels, five of the divergence"


def test_a_step_of_visii_reads_nothing_back_and_moves_nothing(instruct):
    direction, pairs = Direction(there(WIDTH), lambda pooled: pooled, 0.1), [Pair(Z, Z)]

    def run(steps: int) -> None:
        with pytest.raises(Stop):
            optimise_instruction(
                instruct, pairs, TEXT, TEXT, 5, ONE(), 20, direction=direction, steps=stopping_after(steps)
            )

    kernels, *moved = per_step(run)
    assert kernels > 2 * kernels_of_edit(instruct)
    assert moved == [0, 0]


def test_a_step_of_pez_reads_nothing_back_and_moves_nothing():
    class Reader:
        def vocabulary(self):
            return there(50, WIDTH), [0]

        def words(self, ids):
            return "a"

        def text_of(self, embeds_BLW):
            return embeds_BLW.mean(1)

    def run(steps: int) -> None:
        with pytest.raises(Stop):
            optimise_prompt(Reader(), there(2, WIDTH), ONE(), 4, 20, steps=stopping_after(steps))

    kernels, *moved = per_step(run)
    assert kernels > 10
    assert moved == [0, 0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("name", LOOPS)
def test_on_a_gpu_no_step_waits_for_it(name, monkeypatch):
    """The same, asked of CUDA itself: from the second step on, a wait is an error."""
    monkeypatch.setitem(globals(), "DEVICE", "cuda")
    for tensor in ("Z", "TEXT"):
        monkeypatch.setitem(globals(), tensor, torch.randn(globals()[tensor].shape, device="cuda"))
    denoiser = Denoiser(small_unet(), SD_SCHEDULER)
    LOOPS[name](denoiser, 3)  # kernels are chosen, memory is there
    timesteps = denoiser.timesteps(3).tolist()

    class Strict(Denoiser):
        def predict(self, latents, timestep, embeds):
            strict = isinstance(timestep, Tensor) or timestep != timesteps[0]
            torch.cuda.set_sync_debug_mode("error" if strict else "default")
            return super().predict(latents, timestep, embeds)

    try:
        LOOPS[name](Strict(denoiser.unet, SD_SCHEDULER), 3)
    finally:
        torch.cuda.set_sync_debug_mode("default")


# --- what a step costs beside the network ---------------------------------------------------------------------------


def test_guided_sampling_is_one_call_of_the_network_and_a_handful_of_kernels(denoiser):
    kernels, *_ = per_step(partial(LOOPS["sampling"], denoiser))
    assert 0 < kernels - kernels_of(denoiser, 2) <= 11, "rows side by side, guidance, six of eq. 12"


def test_injection_in_lockstep_is_one_call_of_the_network_and_a_copy_for_each_place(denoiser):
    kernels, *_ = per_step(partial(LOOPS["plug-and-play, lock-step"], denoiser))
    places = len(plug_and_play_injection(Taps(denoiser.unet).places, 2).steps)
    assert 0 < kernels - kernels_of(denoiser, 3) <= 11 + places


def test_pix2pix_zero_calls_the_network_twice_a_step_and_once_before(denoiser):
    rows: list[int] = []
    hook = denoiser.unet.conv_in.register_forward_hook(lambda module, args, out: rows.append(len(out)))
    try:
        pix2pix_zero_sample(denoiser, Z, TEXT, TEXT[0], 3)
    finally:
        hook.remove()
    assert rows == [1, 2, 3, 2, 3, 2, 2], "the reference's row stands beside the edit's last prediction"


def test_taps_that_are_not_set_cost_nothing(denoiser):
    before = kernels_of(denoiser, 2)
    taps = Taps(denoiser.unet)
    with taps.replace({}):
        assert kernels_of(denoiser, 2) == before
        assert hooks_of(denoiser.unet) == 0
    with taps.record(["up.1.attn.1.self.q"]):
        assert hooks_of(denoiser.unet) == 1
        assert kernels_of(denoiser, 2) == before, "to look at what flows takes no kernel"
    assert hooks_of(denoiser.unet) == 0


@pytest.mark.parametrize("name", ["pix2pix-zero", "plug-and-play, lock-step", "reedit"])
def test_nothing_is_left_hooked_after_an_edit(denoiser, name):
    before = kernels_of(denoiser, 2)
    LOOPS[name](denoiser, 3)
    assert hooks_of(denoiser.unet) == 0
    assert kernels_of(denoiser, 2) == before


def hooks_of(model: torch.nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_traffic_sees_what_would_stop_a_device():
    def looks(steps: int) -> None:
        for _ in range(steps):
            if Z.sum() > 0:  # a number
                Z.cpu()
            Z[0, 0, 0].float().add_(torch.tensor([1.0]).to("meta"))

    assert per_step(looks)[1:] == (2, 1)
