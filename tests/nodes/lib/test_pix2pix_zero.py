import copy

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler, StableDiffusionPix2PixZeroPipeline
from diffusers.pipelines.deprecated.stable_diffusion_variants.pipeline_stable_diffusion_pix2pix_zero import (
    Pix2PixZeroL2Loss,
    prepare_unet,
)
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
from graphflow.nodes.lib.pix2pix_zero import (
    auto_correlation_gradient,
    cross_attention_guidance_step,
    cross_attention_loss,
    draw_shifts,
    edit_direction,
    kl_divergence_gradient,
    pix2pix_zero_sample,
    regularise_noise,
    roll_indices,
)
from graphflow.nodes.lib.taps import Taps

T = 981  # the first timestep of 50
STRENGTH = 0.3  # of the edit directions below


@pytest.fixture(scope="module")
def denoiser():
    """A random UNet attends evenly, so that guiding its attention changes nothing; this one attends sharply."""
    unet = tiny_unet()
    for name, layer in Taps(unet).attentions.items():
        layer.to_q.weight.data *= 10 if name.endswith(".cross") else 1
    return Denoiser(unet, SD_SCHEDULER)


@pytest.fixture(scope="module")
def pipeline(denoiser):
    pipeline = StableDiffusionPix2PixZeroPipeline(
        vae=tiny_vae(),
        text_encoder=tiny_text_encoder(),
        tokenizer=tiny_tokenizer(),
        unet=copy.deepcopy(denoiser.unet),  # the pipeline replaces processors for good
        scheduler=DDIMScheduler.from_config(SD_SCHEDULER),
        inverse_scheduler=DDIMInverseScheduler.from_config(SD_SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        caption_generator=None,
        caption_processor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def latents(batch=1, height=8, width=8, seed=0):
    return random_tensor(batch, 4, height, width, seed=seed)


def embeds(batch=1, seed=1):
    return random_tensor(batch, TOKENS, WIDTH, seed=seed)


def direction(seed=3):
    return STRENGTH * random_tensor(TOKENS, WIDTH, seed=seed)


def assert_same(ours, expected, tolerance=1e-5):
    """Equal but for rounding, by the largest difference: sampling has made the values as large as 10."""
    assert (ours - expected).abs().max() < tolerance * expected.abs().max()


def generator(seed=7):
    return torch.Generator().manual_seed(seed)


# Noise regularisation


def auto_correlation_loss(eta, shifts):
    """Eq. 2 as the authors' code has it; `shifts` for each channel and level."""
    loss = 0.0
    for level in range(len(shifts[0])):
        for channel, of_channel in enumerate(shifts):
            plane = eta[:, channel]
            for dim in (1, 2):
                loss = loss + (plane * plane.roll(of_channel[level], dim)).mean((1, 2)).square().sum()
        eta = torch.nn.functional.avg_pool2d(eta, 2)
    return loss


def kl_divergence_loss(eta):
    """What the authors' code calls so."""
    var, mean = eta.var((1, 2, 3)), eta.mean((1, 2, 3))
    return (var + mean**2 - 1 - torch.log(var + 1e-7)).sum()


def gradient_of(loss, eta, *arguments):
    leaf = eta.clone().requires_grad_()
    return torch.autograd.grad(loss(leaf, *arguments), leaf)[0]


@pytest.mark.parametrize(("height", "width"), [(8, 8), (64, 64), (32, 48), (24, 16), (36, 20)])
def test_gradients_are_those_of_diffusers_losses(pipeline, height, width):
    eta = latents(height=height, width=width)
    ours = auto_correlation_gradient(eta, *roll_indices([draw_shifts(4, height, generator(), smallest=0)], eta))
    assert_same(ours, gradient_of(pipeline.auto_corr_loss, eta, generator()), 2e-6)
    eta = 1.3 * eta + 0.2
    assert_same(kl_divergence_gradient(eta), gradient_of(pipeline.kl_divergence, eta), 2e-6)


def test_auto_correlation_of_a_hand_made_case():
    eta = torch.arange(16.0).reshape(1, 1, 4, 4)
    total = torch.zeros_like(eta)
    for rolled, back in ((eta[:, :, [3, 0, 1, 2]], eta[:, :, [1, 2, 3, 0]]), (eta[..., [3, 0, 1, 2]], eta.roll(-1, 3))):
        total += 2 * (eta * rolled).mean() * (rolled + back) / 16
    torch.testing.assert_close(auto_correlation_gradient(eta, *roll_indices([[[1]]], eta)), total)


def test_shifts_keep_to_their_range():
    def drawn(smallest):
        sides = zip(*(shifts for _ in range(200) for shifts in draw_shifts(4, 64, rng, smallest)), strict=True)
        return [(min(side), max(side)) for side in sides]

    rng = generator()
    assert drawn(1) == [(1, 31), (1, 15), (1, 7), (1, 3)]
    assert drawn(0) == [(0, 31), (0, 15), (0, 7), (0, 3)]
    assert draw_shifts(2, 32, None) == [[1, 1, 1]] * 2
    with pytest.raises(ValueError, match="too small"):
        draw_shifts(4, 2, generator())


@pytest.mark.parametrize("weights", [{}, {"lambda_ac": 0.0}, {"lambda_kl": 0.0}, {"num_ac_rolls": 2}], ids=str)
def test_regularisation_equals_the_authors_update_written_out(weights):
    settings = {"lambda_ac": 20.0, "lambda_kl": 20.0, "num_ac_rolls": 5} | weights
    eta = expected = 1.2 * latents(height=16, width=16) + 0.1
    rng = generator()
    for _ in range(5):
        for _ in range(settings["num_ac_rolls"]) if settings["lambda_ac"] else ():
            leaf = expected.clone().requires_grad_()
            auto_correlation_loss(leaf, draw_shifts(4, 16, rng)).backward()
            expected = expected - settings["lambda_ac"] * leaf.grad / settings["num_ac_rolls"]
        if settings["lambda_kl"]:
            leaf = expected.clone().requires_grad_()
            kl_divergence_loss(leaf).backward()
            expected = expected - settings["lambda_kl"] * leaf.grad
    ours = regularise_noise(eta, generator(), **weights)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    assert not torch.equal(ours, eta)


def test_regularisation_brings_noise_closer_to_white():
    smooth = torch.nn.functional.avg_pool2d(latents(height=34, width=34), 3, stride=1) * 2 + 0.3
    white = regularise_noise(smooth, generator())
    shifts = draw_shifts(4, 32, None)
    assert auto_correlation_loss(white, shifts) < 0.9 * auto_correlation_loss(smooth, shifts)
    assert kl_divergence_loss(white) < 0.9 * kl_divergence_loss(smooth)


def test_regularisation_works_inside_inference_mode_and_leaves_its_input_alone():
    eta = latents()
    expected = regularise_noise(eta, None)
    assert torch.equal(eta, latents())
    with torch.inference_mode():
        assert torch.equal(regularise_noise(latents(), None), expected)
    assert not expected.requires_grad


def test_a_batch_is_regularised_as_each_image_alone():
    eta = latents(2, 16, 24)
    both = regularise_noise(eta, generator())
    for i in range(2):
        torch.testing.assert_close(both[i : i + 1], regularise_noise(eta[i : i + 1], generator()), atol=1e-5, rtol=1e-5)


def test_regularised_inversion_equals_diffusers(pipeline, denoiser):
    z = latents(height=16, width=8)
    rng = generator()
    _, trajectory = ddim_inversion(
        denoiser, z, embeds(), 5, regularise=lambda eta: regularise_noise(eta, rng, smallest_shift=0)
    )
    expected = pipeline.invert(
        prompt_embeds=embeds(), image=z, num_inference_steps=5, generator=generator(), output_type="np"
    ).latents
    torch.testing.assert_close(trajectory[-1], expected, atol=1e-5, rtol=1e-5)


# The edit


def test_the_direction_is_the_difference_of_means():
    source, target = embeds(2), embeds(3, seed=2)
    expected = (target[0] + target[1] + target[2]) / 3 - (source[0] + source[1]) / 2
    torch.testing.assert_close(edit_direction(source, target), expected)


class FirstStep:
    """The guidance step of diffusers' pipeline at the first timestep, its parts kept."""

    def __init__(self, unet, z_ref, z):
        unet = prepare_unet(copy.deepcopy(unet))
        t, rows = torch.tensor(T), torch.cat([embeds(), embeds()])
        with torch.no_grad():
            unet(torch.cat([z_ref, z_ref]), t, rows, cross_attention_kwargs={"timestep": t})
        layers = {name: p for name, p in unet.attn_processors.items() if "attn2" in name}
        self.maps_ref = {name: p.reference_cross_attn_map[T].clone() for name, p in layers.items()}
        rows[1:] += direction()
        self.x = torch.cat([z, z]).requires_grad_()
        loss = Pix2PixZeroL2Loss()
        unet(self.x, t, rows, cross_attention_kwargs={"timestep": t, "loss": loss})
        self.loss = loss.loss
        self.loss.backward()


def our_step(denoiser, z_ref, z, step_size):
    taps = Taps(denoiser.unet)
    names = taps.cross_attention_maps()
    rows = torch.cat([embeds(), embeds()])
    with torch.no_grad(), taps.record(names) as maps_ref:
        denoiser.predict(torch.cat([z_ref, z_ref]), T, rows)
    rows[1:] += direction()
    x = cross_attention_guidance_step(denoiser, taps, z, T, rows, maps_ref, step_size)
    with torch.no_grad(), taps.record(names) as maps:
        denoiser.predict(torch.cat([z, z]), T, rows)
    return x, maps_ref, cross_attention_loss(maps, maps_ref)


@pytest.mark.parametrize("same_latents", [True, False])
def test_maps_loss_and_gradient_equal_diffusers(denoiser, same_latents):
    z_ref = latents(height=8, width=16)
    z = z_ref if same_latents else latents(height=8, width=16, seed=4)
    expected = FirstStep(denoiser.unet, z_ref, z)
    x, maps_ref, loss = our_step(denoiser, z_ref, z, step_size=1.0)
    names = {"down_blocks.0.attentions.1": "down.0.attn.1", "mid_block.attentions.0": "mid.attn.0"}
    names |= {"up_blocks.3.attentions.2": "up.3.attn.2"}
    for module, name in names.items():
        theirs = expected.maps_ref[f"{module}.transformer_blocks.0.attn2.processor"]
        torch.testing.assert_close(maps_ref[f"{name}.cross.probs"].flatten(0, 1), theirs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(loss, expected.loss.detach(), atol=1e-5, rtol=1e-5)
    gradient = torch.cat([z, z]) - x
    assert gradient[1].norm() > 1e-3
    torch.testing.assert_close(gradient, expected.x.grad, atol=1e-5, rtol=1e-4)
    if same_latents:  # the negative half sees the very same text and latents in both passes
        assert torch.equal(x[:1], z)
        assert expected.x.grad[0].abs().max() == 0
    else:
        assert gradient[0].norm() > 1e-3


@pytest.mark.parametrize("negative", [None, embeds(seed=2)], ids=["caption", "negative"])
@pytest.mark.parametrize(("height", "width", "n"), [(8, 8, 6), (16, 8, 3)])
def test_the_edit_equals_diffusers(denoiser, pipeline, height, width, n, negative):
    z = latents(height=height, width=width)
    expected = pipeline(
        prompt_embeds=embeds(),
        negative_prompt_embeds=embeds() if negative is None else negative,
        source_embeds=torch.zeros(1, TOKENS, WIDTH),
        target_embeds=direction()[None],
        latents=z,
        height=8 * height,
        width=8 * width,
        num_inference_steps=n,
        guidance_scale=5.0,
        cross_attention_guidance_amount=0.15,
        output_type="latent",
    ).images
    ours = pix2pix_zero_sample(denoiser, z, embeds(), direction(), n, negative_BLD=negative)
    assert_same(ours, expected)
    plain = pix2pix_zero_sample(
        denoiser, z, embeds(), direction(), n, negative_BLD=negative, cross_attention_guidance=0.0
    )
    assert (ours - plain).norm() > 0.05 * plain.norm()


def test_the_source_caption_is_the_negative_prompt_unless_another_is_given(denoiser):
    default = pix2pix_zero_sample(denoiser, latents(), embeds(), direction(), 3)
    assert_same(pix2pix_zero_sample(denoiser, latents(), embeds(), direction(), 3, negative_BLD=embeds()), default)


def test_without_attention_guidance_it_is_plain_sampling(denoiser):
    ours = pix2pix_zero_sample(
        denoiser, latents(), embeds(), direction(), 4, cross_attention_guidance=0.0, negative_BLD=embeds(seed=2)
    )
    plain = ddim_sample(
        denoiser,
        latents(),
        embeds(),
        4,
        guidance_scale=5.0,
        negative_BLD=embeds(seed=2),
        direction_BLD=direction(),
    )
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)


def test_guidance_brings_the_maps_closer_to_the_reference(denoiser):
    _, _, before = our_step(denoiser, latents(), latents(), step_size=0.0)
    x, maps_ref, _ = our_step(denoiser, latents(), latents(), step_size=0.05)
    rows = torch.cat([embeds(), embeds() + direction()])
    taps = Taps(denoiser.unet)
    with torch.no_grad(), taps.record(taps.cross_attention_maps()) as maps:
        denoiser.predict(x, T, rows)
    assert cross_attention_loss(maps, maps_ref) < before


def test_a_batch_gives_each_image_what_it_gets_alone(denoiser):
    z, cond = latents(2, 8, 16), embeds(2)
    both = pix2pix_zero_sample(denoiser, z, cond, direction(), 3)
    for i in range(2):
        alone = pix2pix_zero_sample(denoiser, z[i : i + 1], cond[i : i + 1], direction(), 3)
        assert_same(both[i : i + 1], alone)


def test_v_prediction_edits_as_diffusers_does(denoiser, pipeline, monkeypatch):
    config = SD_SCHEDULER | {"prediction_type": "v_prediction"}
    monkeypatch.setattr(pipeline, "scheduler", DDIMScheduler.from_config(config))
    expected = pipeline(
        prompt_embeds=embeds(),
        negative_prompt_embeds=embeds(),
        source_embeds=torch.zeros(1, TOKENS, WIDTH),
        target_embeds=direction()[None],
        latents=latents(),
        height=64,
        width=64,
        num_inference_steps=4,
        guidance_scale=1.5,
        cross_attention_guidance_amount=0.1,
        output_type="latent",
    ).images
    ours = pix2pix_zero_sample(
        Denoiser(denoiser.unet, config),
        latents(),
        embeds(),
        direction(),
        4,
        guidance_scale=1.5,
        cross_attention_guidance=0.1,
    )
    assert_same(ours, expected, tolerance=1e-4)


def test_results_do_not_depend_on_what_ran_before_or_on_the_callers_mode(denoiser):
    def edit():
        return pix2pix_zero_sample(denoiser, latents(), embeds(), direction(), 2)

    first = edit()
    with pytest.raises(KeyboardInterrupt):
        pix2pix_zero_sample(denoiser, latents(), embeds(), direction(), 7, on_step=interrupt)
    ddim_sample(denoiser, latents(2, 16, 8), embeds(), 5)
    assert torch.equal(edit(), first)
    with torch.inference_mode():
        inside = edit()
    assert torch.equal(inside, first)
    assert not first.requires_grad
    assert all(p.grad is None for p in denoiser.unet.parameters())


def interrupt(latents_BChw):
    raise KeyboardInterrupt


def test_1000_steps_are_refused(denoiser):
    with pytest.raises(ValueError, match="999"):
        pix2pix_zero_sample(denoiser, latents(), embeds(), direction(), 1000)
