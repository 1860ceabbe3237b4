"""Plug-and-Play against a literal reading of the published algorithm: patched modules, every row in one batch."""

import copy

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from tiny import SD_SCHEDULER, TOKENS, WIDTH, random_tensor, tiny_unet

from graphflow.nodes.lib.ddim import ddim_inversion, ddim_sample
from graphflow.nodes.lib.denoiser import Denoiser
from graphflow.nodes.lib.injection import Injection, decoder_places, plug_and_play_injection
from graphflow.nodes.lib.plug_and_play import Prompts, capture_features, injected_epsilon, injected_sample
from graphflow.nodes.lib.sources import LATENTS, source_latents
from graphflow.nodes.lib.taps import Taps

N = 50
SCALE = 2.0  # of guidance, which multiplies the differences between two ways to add up
ATTENTION = [f"up.1.attn.{i}.self" for i in (1, 2)] + [f"up.{b}.attn.{i}.self" for b in (2, 3) for i in (0, 1, 2)]


def sharp_unet():
    """A random UNet attends evenly, so that injected queries change nothing; this one attends sharply."""
    unet = tiny_unet()
    for name, layer in Taps(unet).attentions.items():
        if name.endswith(".self"):
            layer.to_q.weight.data *= 3
    return unet


@pytest.fixture(scope="module")
def denoiser():
    return Denoiser(sharp_unet(), SD_SCHEDULER)


@pytest.fixture(scope="module")
def taps(denoiser):
    return Taps(denoiser.unet)


def embeds(rows=1, seed=1):
    return random_tensor(rows, TOKENS, WIDTH, seed=seed)


EMPTY, TARGET, NEGATIVE = embeds(seed=1), embeds(seed=2), embeds(seed=3)


@pytest.fixture(scope="module")
def source(denoiser):
    """Latents at the timesteps of 50 and of 10 steps; any would do for parity."""
    timesteps = [*denoiser.timesteps(N).tolist(), *denoiser.timesteps(10).tolist()]
    return {t: {LATENTS: random_tensor(1, 4, 8, 8, seed=t)} for t in timesteps}


def patched(unet, attention_on, features_on):
    """A copy of a UNet whose first third of rows overwrites the queries, keys and features of the other two."""
    unet = copy.deepcopy(unet)

    class SharedAttention:
        def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None):
            q, k, v = attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states)
            if attention_on:
                n = len(q) // 3
                q, k = (torch.cat([x[:n], x[:n], x[:n]]) for x in (q, k))
            q, k, v = (x.reshape(*x.shape[:2], attn.heads, -1).permute(0, 2, 1, 3) for x in (q, k, v))
            weights = torch.softmax(torch.einsum("bnpk,bnlk->bnpl", q, k) / q.shape[-1] ** 0.5, -1)
            out = torch.einsum("bnpl,bnlk->bpnk", weights, v).flatten(2)
            return attn.to_out[0](out)

    for block, indices in ((1, (1, 2)), (2, (0, 1, 2)), (3, (0, 1, 2))):
        for index in indices:
            unet.up_blocks[block].attentions[index].transformer_blocks[0].attn1.set_processor(SharedAttention())
    resnet = unet.up_blocks[1].resnets[1]

    def forward(x, temb):
        h = resnet.conv1(F.silu(resnet.norm1(x))) + resnet.time_emb_proj(F.silu(temb))[:, :, None, None]
        h = resnet.conv2(F.silu(resnet.norm2(h)))
        if features_on:
            n = len(h) // 3
            h = torch.cat([h[:n], h[:n], h[:n]])
        return (resnet.conv_shortcut(x) + h) / resnet.output_scale_factor

    resnet.forward = forward
    return unet


def reference(denoiser, z_source, z, t, attention_on, features_on):
    """The network as pnp-diffusers calls it: source, negative and conditional rows in one batch; the last two."""
    rows = torch.cat([EMPTY, NEGATIVE, TARGET])
    with torch.no_grad():
        unet = patched(denoiser.unet, attention_on, features_on)
        return unet(torch.cat([z_source, z, z]), t, rows).sample[1:].split(1)


def sampled(denoiser, source, injection, steps=10, **how):
    """The latents before each step and after the last."""
    prompts = Prompts(TARGET, NEGATIVE, **how.pop("prompts", {"guidance_scale": SCALE}))
    latents = [source[denoiser.timesteps(steps).tolist()[0]][LATENTS]]
    injected_sample(denoiser, source, injection, prompts, steps, on_step=latents.append, **{"source_BLD": EMPTY} | how)
    return latents


def distance(a, b):
    """The difference's norm as part of the norm: random networks let latents grow."""
    return float((a - b).norm() / b.norm())


def close(a, b, tolerance=1e-6):
    assert distance(a, b) < tolerance


# --- where and when -------------------------------------------------------------------------------------------------


def test_the_papers_layers_are_the_default(taps):
    assert decoder_places(taps.places) == (["up.1.res.1"], ATTENTION)
    injection = plug_and_play_injection(taps.places, N)
    assert injection.steps == {"up.1.res.1.conv2": 40} | {f"{n}.{part}": 25 for n in ATTENTION for part in "qk"}
    assert injection.last == 40


def test_other_decoders_are_tapped_in_proportion():
    unet = tiny_unet(
        block_out_channels=(16, 32, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
    )
    assert decoder_places(Taps(unet).places) == (["up.1.res.0"], ["up.1.attn.0.self", "up.1.attn.1.self"])


@pytest.mark.parametrize(
    ("inclusive", "on", "off"),
    [(False, (24, 39), (25, 40)), (True, (25, 40), (26, 41))],
    ids=["half_open", "inclusive"],
)
def test_the_published_variants_differ_by_one_step(taps, inclusive, on, off):
    injection = plug_and_play_injection(taps.places, N, inclusive=inclusive)
    query, feature = "up.2.attn.0.self.q", "up.1.res.1.conv2"
    for step in (0, on[0]):
        assert {query, feature} <= set(injection.at(step))
    assert query not in injection.at(off[0])
    assert feature in injection.at(on[1])
    assert injection.at(off[1]) == []


@pytest.mark.parametrize(
    ("steps", "threshold", "count"), [(100, 0.29, 29), (50, 0.29, 14), (4, 0.8, 3), (50, 0, 0), (50, 1, 50)]
)
def test_thresholds_are_parts_of_the_steps(taps, steps, threshold, count):
    injection = plug_and_play_injection(taps.places, steps, attention_threshold=0, feature_threshold=threshold)
    assert injection.steps == ({"up.1.res.1.conv2": count} if count else {})


def test_layers_can_be_named(taps):
    injection = plug_and_play_injection(taps.places, 10, attention=["mid.attn.0.self"], features=["up.2.res.0"])
    assert injection.steps == {"up.2.res.0.conv2": 8, "mid.attn.0.self.q": 5, "mid.attn.0.self.k": 5}
    with pytest.raises(ValueError, match=r"no place 'up\.1\.res\.7\.conv2'; did you mean"):
        plug_and_play_injection(taps.places, 10, features=["up.1.res.7"])


def test_latents_are_taken_at_the_sampling_timesteps(denoiser):
    z = random_tensor(1, 4, 8, 8, seed=0)
    timesteps, trajectory = ddim_inversion(denoiser, z, EMPTY, 10)
    wanted = denoiser.timesteps(5).tolist()
    found = source_latents(timesteps, trajectory, wanted)
    assert list(found) == wanted == [801, 601, 401, 201, 1]
    assert torch.equal(found[801], trajectory[9])
    with pytest.raises(ValueError, match="no latents at timestep 751, where sampling with 4 steps"):
        source_latents(timesteps, trajectory, denoiser.timesteps(4).tolist())


# --- parity ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inclusive", [False, True], ids=["half_open", "inclusive"])
def test_every_step_equals_the_patched_reference(denoiser, taps, source, inclusive):
    injection, captured = plug_and_play_injection(taps.places, N, inclusive=inclusive), {}
    capture_features(
        denoiser,
        {t: source[t][LATENTS] for t in denoiser.timesteps(N).tolist()},
        EMPTY,
        injection,
        captured.__setitem__,
    )
    last_attention, last_feature = 24 + inclusive, 39 + inclusive
    assert list(captured) == denoiser.timesteps(N).tolist()[: last_feature + 1]
    z = random_tensor(1, 4, 8, 8, seed=0)
    for step in (0, 24, 25, 26, 39, 40, 41):
        t, on = denoiser.timesteps(N).tolist()[step], (step <= last_attention, step <= last_feature)
        references = reference(denoiser, source[t][LATENTS], z, t, *on)
        for expected, cond in zip(references, (NEGATIVE, TARGET), strict=True):
            arguments = denoiser, taps, z, t, [(cond, 1.0)]
            close(injected_epsilon(*arguments, source[t], injection.at(step), source_BLD=EMPTY), expected)
            close(injected_epsilon(*arguments, captured.get(t, {}), injection.at(step)), expected)
        for other in ((not on[0], on[1]), (on[0], not on[1])):
            wrong = reference(denoiser, source[t][LATENTS], z, t, *other)
            assert distance(wrong[1], references[1]) > 3e-6, "the reference tells both injections apart"


def test_sampling_is_ddim_with_those_predictions(denoiser, taps, source):
    latents = sampled(denoiser, source, plug_and_play_injection(taps.places, 10))
    scheduler = DDIMScheduler.from_config(SD_SCHEDULER)
    scheduler.set_timesteps(10)
    for step in (0, 4, 5, 7, 8, 9):
        t, z = denoiser.timesteps(10).tolist()[step], latents[step]
        negative, cond = reference(denoiser, source[t][LATENTS], z, t, step < 5, step < 8)
        expected = negative + SCALE * (cond - negative)
        close(latents[step + 1], scheduler.step(expected, t, z).prev_sample, 5e-6)


def test_captured_and_lockstep_give_the_same_picture(denoiser, taps, source):
    injection, captured = plug_and_play_injection(taps.places, 10), {}
    latents = {t: source[t][LATENTS] for t in denoiser.timesteps(10).tolist()}
    capture_features(denoiser, latents, EMPTY, injection, captured.__setitem__)
    assert captured[901].keys() == {LATENTS, *injection.steps}
    assert captured[201].keys() == {LATENTS, "up.1.res.1.conv2"}
    stored = sampled(denoiser, captured, injection, source_BLD=None)
    close(stored[-1], sampled(denoiser, source, injection)[-1])


def test_injecting_the_resnets_output_would_be_another_method(denoiser, taps, source):
    before = sampled(denoiser, source, Injection({"up.1.res.1.conv2": 8}))[-1]
    after = sampled(denoiser, source, Injection({"up.1.res.1": 8}))[-1]
    assert (before - after).abs().max() > 1e-2


def test_without_injection_it_is_plain_sampling(denoiser, taps, source):
    z = source[901][LATENTS]
    expected = ddim_sample(denoiser, z, TARGET, 10, guidance_scale=SCALE, negative_BLD=NEGATIVE)
    assert torch.equal(sampled(denoiser, source, Injection({}))[-1], expected)
    injected = sampled(denoiser, source, plug_and_play_injection(taps.places, 10))[-1]
    assert distance(injected, expected) > 0.01


def test_the_picture_itself_comes_back_under_its_own_prompt(denoiser, taps):
    """Source rows and edited rows see the same: injection must change nothing at all."""
    z = random_tensor(1, 4, 8, 8, seed=0)
    timesteps, trajectory = ddim_inversion(denoiser, z, EMPTY, 10)
    latents = source_latents(timesteps, trajectory, denoiser.timesteps(10).tolist())
    injection = plug_and_play_injection(taps.places, 10)
    source = {t: {LATENTS: z} for t, z in latents.items()}
    first = []
    injected_sample(
        denoiser, source, injection, Prompts(EMPTY, guidance_scale=1), 10, source_BLD=EMPTY, on_step=first.append
    )
    plain = []
    ddim_sample(denoiser, trajectory[-1], EMPTY, 10, on_step=plain.append)
    close(first[0], plain[0], 1e-5)


def test_a_batch_gives_each_picture_what_it_gets_alone(denoiser, taps):
    timesteps = denoiser.timesteps(5).tolist()
    both = {t: {LATENTS: random_tensor(2, 4, 8, 8, seed=t)} for t in timesteps}
    injection = plug_and_play_injection(taps.places, 5)
    prompts = [Prompts(TARGET, NEGATIVE), Prompts(embeds(2, seed=4), NEGATIVE)]
    for given in prompts:
        together = injected_sample(denoiser, both, injection, given, 5, source_BLD=EMPTY)
        for i in range(2):
            one = {t: {LATENTS: s[LATENTS][i : i + 1]} for t, s in both.items()}
            cond = given.cond_BLD[i : i + 1] if len(given.cond_BLD) == 2 else given.cond_BLD
            alone = injected_sample(denoiser, one, injection, Prompts(cond, NEGATIVE), 5, source_BLD=EMPTY)
            close(together[i : i + 1], alone, 2e-5)


# --- the original code's negative prompts ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        ("constant", [0.75] * 5),
        ("linear", [0.75, 0.5625, 0.375, 0.1875, 0]),
        ("exp", [0.75, 0.16735, 0.03734, 0.00833, 0.00186]),
    ],
)
def test_the_share_of_the_empty_prompt_follows_its_schedule(schedule, shares):
    prompts = Prompts(TARGET, NEGATIVE, unconditional_BLD=EMPTY, alpha=0.75, schedule=schedule)
    assert [prompts.alpha_at(i, 5) for i in range(5)] == pytest.approx(shares, abs=1e-5)


@pytest.mark.parametrize("alpha", [1.0, 0.75])
def test_the_negative_side_is_a_mixture(denoiser, source, alpha):
    prompts = {"unconditional_BLD": EMPTY, "alpha": alpha, "schedule": "linear", "guidance_scale": 10.0}
    latents = sampled(denoiser, source, Injection({}), prompts=prompts)
    scheduler = DDIMScheduler.from_config(SD_SCHEDULER)
    scheduler.set_timesteps(10)
    for step in (0, 4, 9):
        t, z = denoiser.timesteps(10).tolist()[step], latents[step]
        negative, empty, cond = (denoiser.predict(z, t, e) for e in (NEGATIVE, EMPTY, TARGET))
        share = alpha * (1 - step / 9)
        base = share * empty + (1 - share) * negative
        expected = scheduler.step(base + 10.0 * (cond - base), t, z).prev_sample
        close(latents[step + 1], expected, 1e-5)


def test_missing_prompts_are_named():
    with pytest.raises(ValueError, match=r"guidance_scale=7\.5 needs a negative prompt"):
        Prompts(TARGET)
    with pytest.raises(ValueError, match=r"negative_prompt_alpha=0\.5 needs the empty prompt"):
        Prompts(TARGET, NEGATIVE, alpha=0.5)
    assert Prompts(TARGET, guidance_scale=1).rows(0, 50) == [(TARGET, 1)]
