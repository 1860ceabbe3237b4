import pytest
import torch
from tiny import SD_SCHEDULER, TOKENS, WIDTH, random_tensor, tiny_unet
from watcher import Watcher

from graphflow.node import Context
from graphflow.nodes.invert import InvertDDIM
from graphflow.nodes.lib.ddim import ddim_inversion
from graphflow.nodes.lib.denoiser import Denoiser
from graphflow.nodes.lib.pix2pix_zero import regularise_noise
from graphflow.ports import TextCond


@pytest.fixture(scope="module")
def denoiser():
    return Denoiser(tiny_unet(), SD_SCHEDULER)


def inputs(denoiser, **more):
    cond = TextCond(random_tensor(1, TOKENS, WIDTH, seed=1))
    return InvertDDIM.In(latents=random_tensor(1, 4, 8, 16, seed=0), cond=cond, model=denoiser, **more)


@pytest.mark.parametrize("convention", ["diffusers", "pix2pix_zero"])
def test_gives_the_trajectory_and_its_end(denoiser, convention):
    x, watcher = inputs(denoiser), Watcher()
    out = InvertDDIM(num_inference_steps=4, convention=convention).run(x, watcher)
    timesteps, trajectory = ddim_inversion(denoiser, x.latents, x.cond.embeds, 4, convention=convention)
    assert out.trajectory.timesteps == timesteps
    assert torch.equal(out.trajectory.latents, trajectory)
    assert torch.equal(out.noise, trajectory[-1])
    calls = len(timesteps) - 1
    assert watcher.loops == [(calls, "inversion")]
    assert torch.equal(torch.stack(watcher.previews), trajectory[1:])


def test_regularises_with_the_seed_of_the_node(denoiser):
    x = inputs(denoiser)
    settings = {"lambda_ac": 15.0, "lambda_kl": 5.0, "num_reg_steps": 2, "num_ac_rolls": 3}
    out = InvertDDIM(num_inference_steps=3, regularise=True, seed=11, **settings).run(x, Context())
    rng = torch.Generator().manual_seed(11)
    _, expected = ddim_inversion(
        denoiser, x.latents, x.cond.embeds, 3, regularise=lambda eta: regularise_noise(eta, rng, **settings)
    )
    assert torch.equal(out.noise, expected[-1])
    other = InvertDDIM(num_inference_steps=3, regularise=True, seed=12, **settings).run(x, Context())
    assert not torch.equal(out.noise, other.noise)


def test_guidance_uses_the_negative_port(denoiser):
    node = InvertDDIM(num_inference_steps=3, guidance_scale=3.0)
    with pytest.raises(ValueError, match="negative prompt"):
        node.run(inputs(denoiser), Context())
    negative = TextCond(random_tensor(1, TOKENS, WIDTH, seed=2))
    x = inputs(denoiser, negative=negative)
    _, expected = ddim_inversion(
        denoiser, x.latents, x.cond.embeds, 3, guidance_scale=3.0, negative_BLD=negative.embeds
    )
    assert torch.equal(node.run(x, Context()).noise, expected[-1])


def test_latents_come_back_in_float32_from_a_half_precision_model():
    half = Denoiser(tiny_unet().to(torch.bfloat16), SD_SCHEDULER)
    x = inputs(half)
    out = InvertDDIM(num_inference_steps=3).run(
        InvertDDIM.In(latents=x.latents.bfloat16(), cond=x.cond, model=half), Context(dtype="bfloat16")
    )
    assert out.noise.dtype == out.trajectory.latents.dtype == torch.float32
