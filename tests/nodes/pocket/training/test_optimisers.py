import math

import pytest
import torch
from torch import nn

from graphflow.nodes.pocket.training.loop import Loop, all_steps, fit
from graphflow.nodes.pocket.training.optimisers import Optimiser

RATE, DECAY = 0.01, 0.1


def network(channels_last=False):
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {
            "conv_in": nn.Conv2d(3, 32, 3),
            "conv": nn.Conv2d(32, 16, 3),
            "norm": nn.GroupNorm(4, 16),
            "out": nn.Linear(16, 20),
        }
    )
    return model.to(memory_format=torch.channels_last) if channels_last else model


def loss_of(model, x):
    hidden = model["norm"](model["conv"](model["conv_in"](x).relu())).mean(dim=(2, 3))
    return model["out"](hidden).square().mean()


def trained(name, count, channels_last=False, state=None, model=None):
    model = model or network(channels_last)
    optimiser = Optimiser(name, dict(model.named_parameters()), RATE, DECAY)
    optimiser.load(state or {})
    x = torch.randn(32, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    for _ in range(count):
        loss_of(model, x).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # as the loop does
        optimiser.step()
    return model, optimiser


def orthogonal(matrix):
    """The quintic Newton-Schulz iteration of Jordan et al. 2024, on the wide orientation, in float64."""
    x = matrix.double()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / x.norm()
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if tall else x


def test_a_step_of_muon_moves_a_convolution_by_its_orthogonalised_gradient():
    model = network()
    before = model["conv"].weight.detach().clone()
    x = torch.randn(32, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    loss_of(model, x).backward()
    gradient = model["conv"].weight.grad.flatten(1).clone()
    after, _ = trained("muon", 1)
    # Momentum 0.95 from an empty buffer, with Nesterov's look ahead, is a multiple of the gradient.
    update = orthogonal(gradient) * 0.2 * math.sqrt(max(gradient.shape))
    expected = before.flatten(1) * (1 - RATE * DECAY) - RATE * update
    moved = after["conv"].weight.detach().flatten(1)
    assert (moved - expected).norm() < 0.1 * (expected - before.flatten(1)).norm()  # torch iterates in bfloat16


def test_first_layers_norms_and_biases_follow_adamw():
    muon, _ = trained("muon", 1)
    adamw, _ = trained("adamw", 1)
    same = {n for (n, a), (_, b) in zip(muon.named_parameters(), adamw.named_parameters(), strict=True) if a.equal(b)}
    assert same == {"conv_in.weight", "conv_in.bias", "conv.bias", "norm.weight", "norm.bias", "out.bias"}


def test_the_layout_in_memory_changes_nothing():
    before, (plain, _), (last, _) = network(), trained("muon", 3), trained("muon", 3, channels_last=True)
    for start, a, b in zip(before.parameters(), plain.parameters(), last.parameters(), strict=True):
        assert (a - b).norm() < 0.2 * (a - start).norm()  # torch iterates in bfloat16
    assert last["conv"].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_what_it_remembers_carries_over(name, channels_last):
    whole, _ = trained(name, 4, channels_last)
    half, optimiser = trained(name, 2, channels_last)
    resumed, _ = trained(name, 2, channels_last, {k: v.clone() for k, v in optimiser.state().items()}, half)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"'sgd'; expected one of adamw, muon"):
        Optimiser("sgd", {}, RATE, DECAY)


def test_the_loop_follows_the_optimiser_it_is_told(tmp_path):
    x = torch.randn(32, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    for name in ("adamw", "muon"):
        by_hand, _ = trained(name, 3)
        model = network()
        loop = Loop(3, 1, RATE, warmup=1, flat=0.99, weight_decay=DECAY, bfloat16=False, optimiser=name)
        fit(model, lambda step, model=model: loss_of(model, x), loop, tmp_path / name, all_steps, print)
        assert all(torch.allclose(a, b) for a, b in zip(by_hand.parameters(), model.parameters(), strict=True))
