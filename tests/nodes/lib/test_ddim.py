import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler, StableDiffusionPipeline
from tiny import (
    SD_SCHEDULER,
    TOKENS,
    WIDTH,
    random_tensor,
    tiny_text_encoder,
    tiny_tokenizer,
    tiny_unet,
    tiny_vae,
)

from graphflow.nodes.lib.ddim import ddim_inversion, ddim_sample
from graphflow.nodes.lib.denoiser import Denoiser

V_PREDICTION = SD_SCHEDULER | {"prediction_type": "v_prediction"}


@pytest.fixture(scope="module")
def denoiser():
    return Denoiser(tiny_unet(), SD_SCHEDULER)


def latents(batch=1, height=8, width=8, seed=0):
    return random_tensor(batch, 4, height, width, seed=seed)


def embeds(batch=1, seed=1):
    return random_tensor(batch, TOKENS, WIDTH, seed=seed)


@torch.no_grad()
def invert_with_diffusers(predict, z, n, config=SD_SCHEDULER):
    scheduler = DDIMInverseScheduler.from_config(config)
    scheduler.set_timesteps(n)
    trajectory = [z]
    for t in scheduler.timesteps:
        trajectory.append(scheduler.step(predict(trajectory[-1], t), t, trajectory[-1]).prev_sample)
    return [-1, *scheduler.timesteps.tolist()], torch.stack(trajectory)


@torch.no_grad()
def sample_with_diffusers(denoiser, z, cond, negative, n, guidance_scale, config=SD_SCHEDULER):
    scheduler = DDIMScheduler.from_config(config)
    scheduler.set_timesteps(n)
    for t in scheduler.timesteps:
        uncond, text = denoiser.unet(torch.cat([z, z]), t, torch.cat([negative, cond])).sample.chunk(2)
        z = scheduler.step(uncond + guidance_scale * (text - uncond), t, z).prev_sample
    return z


def test_inversion_equals_the_inverse_scheduler_bit_for_bit_on_all_50_levels(denoiser):
    timesteps, trajectory = ddim_inversion(denoiser, latents(), embeds(), 50)
    expected_timesteps, expected = invert_with_diffusers(
        lambda z, t: denoiser.unet(z, t, embeds()).sample, latents(), 50
    )
    assert timesteps == expected_timesteps
    assert trajectory.shape == (51, 1, 4, 8, 8)
    assert torch.equal(trajectory, expected)


@torch.no_grad()
def authors_inversion(unet, z, cond, n):
    """The authors' loop, from the description of their code: own betas, own grid, no helper of ours."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alphas = torch.cumprod(1 - betas, 0)
    stride = 1000 // n
    grid = [1 + i * stride for i in range(n)]
    calls = 0
    for t in grid[1:-1]:
        eps = unet(z, t, cond).sample
        a, a_next = alphas[t - 1], alphas[t + stride - 1]
        z = a_next.sqrt() * (z - (1 - a).sqrt() * eps) / a.sqrt() + (1 - a_next).sqrt() * eps
        calls += 1
    return z, calls


@pytest.mark.parametrize("n", [50, 12, 7])
def test_inversion_of_pix2pix_zero_equals_the_authors_formula(denoiser, n):
    timesteps, trajectory = ddim_inversion(denoiser, latents(), embeds(), n, convention="pix2pix_zero")
    expected, calls = authors_inversion(denoiser.unet, latents(), embeds(), n)
    assert calls == n - 2 == len(trajectory) - 1
    torch.testing.assert_close(trajectory[-1], expected, atol=1e-6, rtol=1e-6)
    if n == 50:
        assert timesteps[:3] == [-1, 40, 60]
        assert timesteps[-1] == 980


def test_the_two_conventions_differ(denoiser):
    _, a = ddim_inversion(denoiser, latents(), embeds(), 20)
    _, b = ddim_inversion(denoiser, latents(), embeds(), 20, convention="pix2pix_zero")
    assert (a[-1] - b[-1]).norm() > 0.01 * a[-1].norm()


def test_sampling_equals_the_stable_diffusion_pipeline(denoiser):
    pipeline = StableDiffusionPipeline(
        vae=tiny_vae(),
        text_encoder=tiny_text_encoder(),
        tokenizer=tiny_tokenizer(),
        unet=denoiser.unet,
        scheduler=DDIMScheduler.from_config(SD_SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        prompt_embeds=embeds(2),
        negative_prompt_embeds=embeds(2, seed=2),
        latents=latents(2, 8, 16),
        height=64,
        width=128,
        num_inference_steps=10,
        guidance_scale=7.5,
        output_type="latent",
    ).images
    ours = ddim_sample(denoiser, latents(2, 8, 16), embeds(2), 10, guidance_scale=7.5, negative_BLD=embeds(2, seed=2))
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_v_prediction_samples_as_diffusers_does(denoiser):
    ours = ddim_sample(
        Denoiser(denoiser.unet, V_PREDICTION),
        latents(),
        embeds(),
        20,
        guidance_scale=3.0,
        negative_BLD=embeds(seed=2),
    )
    expected = sample_with_diffusers(denoiser, latents(), embeds(), embeds(seed=2), 20, 3.0, V_PREDICTION)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def test_the_direction_moves_only_the_conditional_half(denoiser):
    direction = random_tensor(TOKENS, WIDTH, seed=3)
    ours = ddim_sample(
        denoiser, latents(), embeds(), 3, guidance_scale=5.0, negative_BLD=embeds(), direction_BLD=direction
    )
    expected = sample_with_diffusers(denoiser, latents(), embeds() + direction, embeds(), 3, 5.0)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_inversion_then_sampling_returns_when_the_noise_is_known(denoiser, monkeypatch):
    noise = latents(seed=5)
    monkeypatch.setattr(denoiser, "predict", lambda z, t, e: noise)
    _, trajectory = ddim_inversion(denoiser, latents(), embeds(), 50)
    torch.testing.assert_close(ddim_sample(denoiser, trajectory[-1], embeds(), 50), latents(), atol=1e-5, rtol=1e-5)


def network(z, t):
    """Stands in for the UNet where many steps would take long."""
    return z.tanh() * (1 - int(t) / 2000)


def test_999_steps_give_every_level_and_1000_are_refused(denoiser, monkeypatch):
    monkeypatch.setattr(denoiser, "predict", lambda z, t, embeds_BLD: network(z, t))
    timesteps, trajectory = ddim_inversion(denoiser, latents(), embeds(), 999)
    assert timesteps == [-1, *range(1, 1000)]
    expected_timesteps, expected = invert_with_diffusers(network, latents(), 999)
    assert timesteps == expected_timesteps
    assert torch.equal(trajectory, expected)
    for loop in (ddim_inversion, ddim_sample):
        with pytest.raises(ValueError, match="999"):
            loop(denoiser, latents(), embeds(), 1000)


@pytest.mark.parametrize(
    "config", [{"set_alpha_to_one": True}, {"steps_offset": 0}, {"timestep_spacing": "trailing"}], ids=str
)
def test_other_schedules_of_diffusers_are_followed_too(denoiser, monkeypatch, config):
    config = SD_SCHEDULER | config
    other = Denoiser(denoiser.unet, config)
    monkeypatch.setattr(other, "predict", lambda z, t, embeds_BLD: network(z, t))
    _, trajectory = ddim_inversion(other, latents(), embeds(), 30)
    assert torch.equal(trajectory, invert_with_diffusers(network, latents(), 30, config)[1])
    scheduler = DDIMScheduler.from_config(config)
    scheduler.set_timesteps(30)
    z = latents()
    for t in scheduler.timesteps:
        z = scheduler.step(network(z, t), t, z).prev_sample
    assert torch.equal(ddim_sample(other, latents(), embeds(), 30), z)


@pytest.mark.parametrize("convention", ["diffusers", "pix2pix_zero"])
def test_a_batch_gives_each_image_what_it_gets_alone(denoiser, convention):
    z, cond = latents(2, 8, 16), embeds(2)
    _, both = ddim_inversion(denoiser, z, cond, 5, convention=convention)
    for i in range(2):
        _, alone = ddim_inversion(denoiser, z[i : i + 1], cond[i : i + 1], 5, convention=convention)
        torch.testing.assert_close(both[:, i : i + 1], alone, atol=1e-5, rtol=1e-5)


def test_one_row_of_text_serves_a_batch(denoiser):
    _, one = ddim_inversion(denoiser, latents(2), embeds(), 3)
    _, two = ddim_inversion(denoiser, latents(2), embeds().expand(2, -1, -1), 3)
    assert torch.equal(one, two)
    with pytest.raises(ValueError, match="3 rows for 2 latents"):
        ddim_inversion(denoiser, latents(2), embeds(3), 3)


def test_guided_inversion_steps_with_the_combined_noise(denoiser):
    _, trajectory = ddim_inversion(denoiser, latents(), embeds(), 1, guidance_scale=3.0, negative_BLD=embeds(seed=2))
    with torch.no_grad():
        text, uncond = (denoiser.unet(latents(), 1, e).sample for e in (embeds(), embeds(seed=2)))
    scheduler = DDIMInverseScheduler.from_config(SD_SCHEDULER)
    scheduler.set_timesteps(1)
    expected = scheduler.step(uncond + 3.0 * (text - uncond), 1, latents()).prev_sample
    torch.testing.assert_close(trajectory[-1], expected, atol=1e-5, rtol=1e-5)


def test_guidance_without_a_negative_prompt_is_refused(denoiser):
    for loop in (ddim_inversion, ddim_sample):
        with pytest.raises(ValueError, match="needs a negative prompt"):
            loop(denoiser, latents(), embeds(), 3, guidance_scale=2.0)


def test_the_short_convention_needs_three_steps(denoiser):
    with pytest.raises(ValueError, match="at least 3"):
        ddim_inversion(denoiser, latents(), embeds(), 2, convention="pix2pix_zero")


def test_the_regularised_noise_is_what_counts(denoiser):
    zero = torch.zeros_like
    _, trajectory = ddim_inversion(denoiser, latents(), embeds(), 4, regularise=zero)
    alpha = denoiser.alphas_cumprod[751] / denoiser.final_alpha_cumprod
    torch.testing.assert_close(trajectory[-1], alpha.sqrt() * latents())


def test_hooks_see_every_step_and_may_stop_the_loop(denoiser):
    seen = []

    def two_steps(timesteps):
        yield from timesteps[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ddim_sample(denoiser, latents(), embeds(), 5, steps=two_steps, on_step=seen.append)
    assert [z.shape for z in seen] == [(1, 4, 8, 8)] * 2
    assert not torch.equal(*seen)


def test_results_can_take_part_in_autograd(denoiser):
    _, trajectory = ddim_inversion(denoiser, latents(), embeds(), 2)
    z = ddim_sample(denoiser, latents(), embeds(), 2)
    for result in (trajectory, z):
        assert not result.is_inference()
        assert not result.requires_grad
