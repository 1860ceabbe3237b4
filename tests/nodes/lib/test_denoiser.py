import pytest
import torch
from diffusers import DDIMScheduler
from tiny import SD_SCHEDULER, TOKENS, WIDTH, random_tensor, tiny_unet

from graphflow.nodes.lib.denoiser import Denoiser


@pytest.fixture(scope="module")
def denoiser():
    return Denoiser(tiny_unet(), SD_SCHEDULER)


@pytest.mark.parametrize("config", [{}, {"steps_offset": 0}, {"timestep_spacing": "trailing"}], ids=str)
@pytest.mark.parametrize("n", [1, 7, 50, 999])
def test_schedule_is_that_of_diffusers(config, n):
    config = SD_SCHEDULER | config
    reference = DDIMScheduler.from_config(config)
    reference.set_timesteps(n)
    ours = Denoiser(tiny_unet(), config)
    assert torch.equal(ours.timesteps(n), reference.timesteps)
    assert torch.equal(ours.alphas_cumprod, reference.alphas_cumprod)
    assert torch.equal(ours.alpha_cumprod(-19), reference.final_alpha_cumprod)


def test_reads_the_scheduler_config_of_another_class():
    sd15 = {name: value for name, value in SD_SCHEDULER.items() if name not in ("clip_sample", "timestep_spacing")}
    sd15 |= {"_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "skip_prk_steps": True}
    assert Denoiser(tiny_unet(), sd15).timesteps(50).tolist() == list(range(981, 0, -20))


@pytest.mark.parametrize("n", [0, 1000, 1001])
def test_refuses_steps_beyond_the_table(denoiser, n):
    with pytest.raises(ValueError, match=f"num_inference_steps is {n}.*1 to 999"):
        denoiser.timesteps(n)


def test_1000_steps_are_fine_when_the_schedule_begins_at_0():
    assert Denoiser(tiny_unet(), SD_SCHEDULER | {"steps_offset": 0}).timesteps(1000)[0] == 999


@pytest.mark.parametrize("clash", ["clip_sample", "thresholding", "rescale_betas_zero_snr"])
def test_refuses_a_schedule_that_it_would_get_wrong(clash):
    with pytest.raises(ValueError, match=clash):
        Denoiser(tiny_unet(), SD_SCHEDULER | {clash: True})
    with pytest.raises(ValueError, match="epsilon, v_prediction"):
        Denoiser(tiny_unet(), SD_SCHEDULER | {"prediction_type": "sample"})


def test_a_thread_that_comes_in_between_does_not_change_a_schedule(denoiser, monkeypatch):
    set_timesteps = DDIMScheduler.set_timesteps

    def interrupted(scheduler, n):
        set_timesteps(scheduler, n)
        if n == 50:
            assert len(denoiser.timesteps(7)) == 7  # as another thread would ask at this moment

    monkeypatch.setattr(DDIMScheduler, "set_timesteps", interrupted)
    assert len(denoiser.timesteps(50)) == 50


def test_v_prediction_becomes_epsilon(denoiser):
    z, embeds = random_tensor(2, 4, 8, 8, seed=0), random_tensor(2, TOKENS, WIDTH, seed=1)
    v = denoiser.predict(z, 401, embeds)
    eps = Denoiser(denoiser.unet, SD_SCHEDULER | {"prediction_type": "v_prediction"}).to_epsilon(v, z, 401)
    assert denoiser.to_epsilon(v, z, 401) is v
    alpha = denoiser.alphas_cumprod[401]
    z0 = (z - (1 - alpha).sqrt() * eps) / alpha.sqrt()
    torch.testing.assert_close(z0, alpha.sqrt() * z - (1 - alpha).sqrt() * v, atol=1e-5, rtol=1e-5)


def test_gradients_reach_latents_and_no_weight(denoiser):
    z = random_tensor(1, 4, 8, 8, seed=0).requires_grad_()
    denoiser.predict(z, 401, random_tensor(1, TOKENS, WIDTH, seed=1)).sum().backward()
    assert z.grad.abs().sum() > 0
    assert all(p.grad is None for p in denoiser.unet.parameters())


def test_latents_keep_their_dtype_when_the_network_computes_in_half_precision():
    half = Denoiser(tiny_unet().to(torch.bfloat16), SD_SCHEDULER)
    z, embeds = random_tensor(1, 4, 8, 8, seed=0), random_tensor(1, TOKENS, WIDTH, seed=1)
    eps = half.predict(z, 401, embeds)
    assert eps.dtype == torch.float32
    full = Denoiser(tiny_unet(), SD_SCHEDULER).predict(z, 401, embeds)
    assert (eps - full).norm() < 0.05 * full.norm()
