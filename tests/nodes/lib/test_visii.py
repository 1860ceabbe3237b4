"""VISII against its formula, written out here on the whole tensor of three rows as its authors' loop has it."""

from __future__ import annotations

import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler
from tiny import SD_SCHEDULER, TOKENS, WIDTH, random_tensor, tiny_unet

from graphflow.nodes.lib import visii
from graphflow.nodes.lib.instruct_pix2pix import InstructDenoiser
from graphflow.nodes.lib.visii import (
    Direction,
    Pair,
    edit_direction,
    fixed_noises,
    hybrid_instruction,
    instruction_loss,
    noise_error,
    optimise_instruction,
    shuffled_timesteps,
)

COND, NEGATIVE = (random_tensor(1, TOKENS, WIDTH, seed=n) for n in (1, 2))
BEFORE, AFTER = (random_tensor(1, 4, 8, 8, seed=n) for n in (3, 4))
PROJECTION = random_tensor(WIDTH, 16, seed=5)
CHANGE = edit_direction(random_tensor(2, 16, seed=6), random_tensor(2, 16, seed=7))
END = 9


@pytest.fixture(scope="module")
def denoiser():
    return InstructDenoiser(tiny_unet(in_channels=8), SD_SCHEDULER)


def direction(change=CHANGE):
    return Direction(change, lambda hidden: hidden @ PROJECTION)


def reference_loss(unet, embeds_3LD, before, after, noise, t):
    """4·MSE - 0.1·clamp(cos, -1, 0.5), with the noising and scaling of the published checkpoint's own scheduler."""
    scheduler = EulerAncestralDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
    )
    at = torch.tensor([float(t)])
    noisy = scheduler.add_noise(after, noise, at)
    sigma = scheduler.sigmas[scheduler.timesteps.tolist().index(t)]
    seen = torch.cat([noisy] * 3) / (sigma**2 + 1) ** 0.5
    seen = torch.cat([seen, torch.cat([before, before, torch.zeros_like(before)])], dim=1)
    text, image, nothing = unet(seen, at, encoder_hidden_states=embeds_3LD).sample.chunk(3)
    eps = nothing + 7.5 * (text - image) + 1.5 * (image - nothing)
    mse = (eps - noise).square().mean()
    d_txt = embeds_3LD[0].mean(0) @ PROJECTION
    cosine = (d_txt / d_txt.norm() * CHANGE).sum()
    return 4 * mse - 0.1 * cosine.clamp(-1, 0.5), mse


@pytest.mark.parametrize("t", [0, 500, 999])
def test_the_loss_is_that_of_the_authors(denoiser, t):
    noise = random_tensor(1, 4, 8, 8, seed=8)
    with torch.no_grad():
        expected, expected_mse = reference_loss(
            denoiser.unet, torch.cat([COND, NEGATIVE, NEGATIVE]), BEFORE, AFTER, noise, t
        )
        mse = noise_error(denoiser, Pair(BEFORE, AFTER), COND, NEGATIVE, noise, t)
        loss = instruction_loss(mse, direction().similarity(COND), 4.0, 0.1)
    torch.testing.assert_close(mse, expected_mse, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)


def reference_steps(denoiser, seed, count):
    generator = torch.Generator().manual_seed(seed)
    noises = torch.randn(1000, 4, 8, 8, generator=generator)
    order = torch.randperm(1000, generator=generator)
    embeds = torch.cat([COND, NEGATIVE, NEGATIVE]).clone().requires_grad_()
    first, optimiser = embeds.detach().clone(), torch.optim.AdamW([embeds], lr=1e-3, weight_decay=0.01)
    best = (float("inf"), None)
    for t in order[:count].tolist():
        loss, mse = reference_loss(denoiser.unet, embeds, BEFORE, AFTER, noises[t, None], t)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_value_([embeds], first.max().item())
        optimiser.step()
        with torch.no_grad():
            embeds[1:] = first[1:]
            embeds[0, 0] = first[0, 0]
            embeds[0, END:] = first[0, END:]
        best = min(best, (mse.item(), embeds[:1].detach().clone()), key=lambda pair: pair[0])
    return embeds[:1].detach(), best[1]


def learn(denoiser, count, seed=11, **how):
    generator, pairs = torch.Generator().manual_seed(seed), [Pair(BEFORE, AFTER)]
    how = {"direction": direction(), **how}
    return optimise_instruction(denoiser, pairs, COND, NEGATIVE, END, generator, count, **how)


def test_three_steps_are_those_of_the_authors(denoiser):
    last, best = reference_steps(denoiser, 11, 3)
    torch.testing.assert_close(learn(denoiser, 3, keep_last=True).cond, last, rtol=1e-6, atol=1e-6)
    learned = learn(denoiser, 3)
    torch.testing.assert_close(learned.cond, best, rtol=1e-6, atol=1e-6)
    assert learned.best == int(learned.mse[:, 0].argmin())
    assert torch.equal(learned.cond[:, [0, *range(END, TOKENS)]], COND[:, [0, *range(END, TOKENS)]])
    assert (learned.cond[:, 1:END] - COND[:, 1:END]).abs().max() > 1e-4


def test_beyond_half_way_the_direction_pulls_no_longer():
    mse, towards = torch.tensor(0.5), torch.tensor([-1.0, 0.3, 0.5, 0.9])
    losses = [instruction_loss(mse, cosine, 4.0, 0.1).item() for cosine in towards]
    assert losses == pytest.approx([2.1, 1.97, 1.95, 1.95])
    assert instruction_loss(mse, None, 4.0, 0.1).item() == 2.0
    beyond = torch.tensor(0.7, requires_grad=True)
    assert torch.autograd.grad(instruction_loss(mse, beyond, 4.0, 0.1), beyond)[0] == 0


def test_gradients_are_clipped_to_the_largest_initial_value(denoiser, monkeypatch):
    seen = []
    monkeypatch.setattr(torch.nn.utils, "clip_grad_value_", lambda parameters, value: seen.append(value))
    learn(denoiser, 1)
    assert seen == [max(COND.max().item(), NEGATIVE.max().item())]


def test_each_timestep_has_its_noise_and_comes_once():
    one, other = (torch.Generator().manual_seed(0) for _ in range(2))
    noises = fixed_noises((1, 4, 2, 2), 10, one)
    assert torch.equal(noises, fixed_noises((1, 4, 2, 2), 10, other))
    assert noises.shape == (10, 4, 2, 2)
    order = shuffled_timesteps(10, 25, one)
    assert sorted(order[:10].tolist()) == sorted(order[10:20].tolist()) == list(range(10))
    assert order[:10].tolist() != order[10:20].tolist()
    assert len(order) == 25


def test_several_pairs_take_turns_by_timestep(denoiser, monkeypatch):
    seen = []

    def error(denoiser, pair, cond, negative, noise, timestep, *scales):
        seen.append((timestep % 2, pair.before.mean().item()))
        return cond.mean() ** 2

    monkeypatch.setattr(visii, "noise_error", error)
    pairs = [Pair(torch.full((1, 4, 8, 8), float(n)), AFTER) for n in (0, 1)]
    optimise_instruction(denoiser, pairs, COND, NEGATIVE, END, torch.Generator().manual_seed(0), 12)
    assert {turn for turn, _ in seen} == {0, 1}
    assert all(turn == which for turn, which in seen)


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", [1, 4, 7])
def test_a_killed_run_ends_with_the_same_bits(denoiser, tmp_path, monkeypatch, at):
    monkeypatch.setattr(visii, "SAVE_EVERY", 2)
    whole = learn(denoiser, 8)

    def killed(numbers):
        for number in numbers:
            if number == at:
                raise Killed
            yield number

    with pytest.raises(Killed):
        learn(denoiser, 8, checkpoint=tmp_path, steps=killed)
    ran = []
    resumed = learn(denoiser, 8, checkpoint=tmp_path, steps=lambda numbers: ran.extend(numbers) or numbers)
    assert ran == list(range(at // 2 * 2, 8))
    assert torch.equal(resumed.cond, whole.cond)
    assert torch.equal(resumed.mse, whole.mse)
    assert resumed.best == whole.best


def test_a_damaged_checkpoint_is_not_resumed_from(denoiser, tmp_path, monkeypatch):
    monkeypatch.setattr(visii, "SAVE_EVERY", 1)
    whole = learn(denoiser, 2)
    learn(denoiser, 2, checkpoint=tmp_path)
    [file] = tmp_path.iterdir()
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    again = learn(denoiser, 2, checkpoint=tmp_path)
    assert torch.equal(again.cond, whole.cond)
    file.write_bytes(bytes(data[:40]))
    assert torch.equal(learn(denoiser, 2, checkpoint=tmp_path).cond, whole.cond)


def test_learning_lowers_the_error_where_it_was_learned(denoiser):
    def error(cond):
        noises = fixed_noises((1, 4, 8, 8), 1000, torch.Generator().manual_seed(0))
        with torch.no_grad():
            return sum(
                noise_error(denoiser, Pair(BEFORE, AFTER), cond, NEGATIVE, noises[t, None], t).item()
                for t in range(50, 1000, 100)
            )

    learned = learn(denoiser, 40, seed=0, learning_rate=0.05, keep_last=True)
    assert error(learned.cond) < 0.99 * error(COND)


def test_nothing_to_learn_is_said(denoiser):
    generator = torch.Generator()
    with pytest.raises(ValueError, match="no pair to learn from"):
        optimise_instruction(denoiser, [], COND, NEGATIVE, END, generator)
    with pytest.raises(ValueError, match="has no words"):
        optimise_instruction(denoiser, [Pair(BEFORE, AFTER)], COND, NEGATIVE, 1, generator)


def test_a_hybrid_has_the_words_behind_the_learned_end():
    text = random_tensor(1, TOKENS, WIDTH, seed=9)
    joined, lost = hybrid_instruction(COND, END, text, 6)
    assert lost == 0
    expected = COND.clone()
    expected[0, END + 2 : END + 2 + 6] = text[0, 0:6]  # its begin token, and up to before its end token
    assert torch.equal(joined, expected)
    assert not torch.equal(joined, COND)
    joined, lost = hybrid_instruction(COND, TOKENS - 5, text, 6)
    assert lost == 3
    assert torch.equal(joined[0, -3:], text[0, :3])
    assert hybrid_instruction(COND, TOKENS - 1, text, 6)[1] == 6
