import pytest
import torch
from tiny import SD_SCHEDULER, TOKENS, WIDTH, random_tensor, tiny_unet
from watcher import Watcher

from graphflow.node import Context
from graphflow.nodes.denoise import DenoiseDDIM, DenoisePix2PixZero
from graphflow.nodes.lib.ddim import ddim_sample
from graphflow.nodes.lib.denoiser import Denoiser
from graphflow.nodes.lib.pix2pix_zero import pix2pix_zero_sample
from graphflow.ports import TextCond

NEGATIVE = TextCond(random_tensor(1, TOKENS, WIDTH, seed=2))
DIRECTION = random_tensor(TOKENS, WIDTH, seed=3)


@pytest.fixture(scope="module")
def denoiser():
    return Denoiser(tiny_unet(), SD_SCHEDULER)


def inputs(node, denoiser, **more):
    cond = TextCond(random_tensor(1, TOKENS, WIDTH, seed=1))
    return node.In(noise=random_tensor(1, 4, 8, 16, seed=0), cond=cond, model=denoiser, **more)


def test_ddim_passes_every_port_on(denoiser):
    x, watcher = inputs(DenoiseDDIM, denoiser, negative=NEGATIVE, direction=DIRECTION), Watcher()
    out = DenoiseDDIM(num_inference_steps=3, guidance_scale=4.0).run(x, watcher)
    expected = ddim_sample(
        denoiser,
        x.noise,
        x.cond.embeds,
        3,
        guidance_scale=4.0,
        negative_BLD=NEGATIVE.embeds,
        direction_BLD=DIRECTION,
    )
    assert torch.equal(out.latents, expected)
    assert watcher.loops == [(3, "sampling")]
    assert len(watcher.previews) == 3
    assert torch.equal(watcher.previews[-1], out.latents)


def test_ddim_needs_no_optional_port_without_guidance(denoiser):
    x = inputs(DenoiseDDIM, denoiser)
    out = DenoiseDDIM(num_inference_steps=3, guidance_scale=1.0).run(x, Context())
    assert torch.equal(out.latents, ddim_sample(denoiser, x.noise, x.cond.embeds, 3))
    with pytest.raises(ValueError, match="negative prompt"):
        DenoiseDDIM(num_inference_steps=3, guidance_scale=2.0).run(x, Context())


@pytest.mark.parametrize("negative", [None, NEGATIVE], ids=["caption", "negative"])
def test_pix2pix_zero_passes_every_port_on(denoiser, negative):
    x, watcher = inputs(DenoisePix2PixZero, denoiser, negative=negative, direction=DIRECTION), Watcher()
    node = DenoisePix2PixZero(num_inference_steps=2, guidance_scale=4.0, cross_attention_guidance=5.0)
    out = node.run(x, watcher)
    expected = pix2pix_zero_sample(
        denoiser,
        x.noise,
        x.cond.embeds,
        DIRECTION,
        2,
        guidance_scale=4.0,
        cross_attention_guidance=5.0,
        negative_BLD=None if negative is None else negative.embeds,
    )
    assert torch.equal(out.latents, expected)
    assert watcher.loops == [(2, "editing")]
    assert torch.equal(watcher.previews[-1], out.latents)


def test_latents_come_back_in_float32_from_a_half_precision_model():
    half = Denoiser(tiny_unet().to(torch.bfloat16), SD_SCHEDULER)
    for node, x in (
        (DenoiseDDIM(num_inference_steps=2, guidance_scale=1.0), inputs(DenoiseDDIM, half)),
        (DenoisePix2PixZero(num_inference_steps=2), inputs(DenoisePix2PixZero, half, direction=DIRECTION)),
    ):
        latents = node.run(x, Context(dtype="bfloat16")).latents
        assert latents.dtype == torch.float32
        assert latents.isfinite().all()
