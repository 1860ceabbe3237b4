"""LPIPS against torchmetrics and the paper's formula, with the same random weights."""

from __future__ import annotations

import re

import pytest
import torch
from measures import lpips_network, picture
from torchmetrics.functional.image.lpips import _LPIPS

from graphflow.nodes.lib.metrics.perceptual import LPIPS, SMALLEST
from graphflow.nodes.lib.metrics.pixels import to_unit

A, B = (to_unit(picture(80, 72, seed)) * 2 - 1 for seed in (1, 2))


@pytest.fixture(scope="module")
def networks():
    return {net: LPIPS(lpips_network(net), net) for net in SMALLEST}


@pytest.mark.parametrize("net", SMALLEST)
def test_agrees_with_torchmetrics(networks, net):
    theirs = _LPIPS(pretrained=False, net=net, pnet_rand=True)
    weights = {k: v for k, v in networks[net].model.state_dict().items() if not k.startswith("scaling_layer.")}
    if net == "squeeze":  # torchmetrics calls its slices otherwise
        weights = {re.sub(r"slice(\d)", lambda m: f"slices.{int(m[1]) - 1}", k): v for k, v in weights.items()}
    theirs.load_state_dict(weights, strict=True)
    with torch.no_grad():
        expected = theirs(A, B).item()
    ours = networks[net].distance(A, B).item()
    assert ours == pytest.approx(expected, abs=1e-5, rel=1e-5)
    assert ours > 1e-3


def test_is_the_formula_of_the_paper(networks):
    model = networks["squeeze"].model
    with torch.no_grad():
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        features = [model.net(((x + 1) / 2 - mean[:, None, None]) / std[:, None, None]) for x in (A, B)]
        expected = 0.0
        for one, two, head in zip(*features, model.lins, strict=True):
            one, two = (f / f.square().sum(1, keepdim=True).sqrt() for f in (one, two))
            expected += (head.model[-1].weight * (one - two) ** 2).sum(1).mean().item()
    assert networks["squeeze"].distance(A, B).item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("net", SMALLEST)
def test_a_wrong_range_gives_another_number(networks, net):
    right, wrong = (networks[net].distance(*pair).item() for pair in ((A, B), ((A + 1) / 2, (B + 1) / 2)))
    assert abs(right - wrong) / right > 0.02


def test_the_same_picture_has_distance_zero(networks):
    assert networks["alex"].distance(A, A).item() == 0


@pytest.mark.parametrize("net", SMALLEST)
def test_pictures_that_are_too_small_are_refused(networks, net):
    side = SMALLEST[net]
    assert networks[net].distance(A[..., :side, :side], B[..., :side, :side]).isfinite()
    with pytest.raises(ValueError, match=f"LPIPS with {net} needs {side} pixels a side, there are {side - 1}"):
        networks[net].distance(A[..., : side - 1, :], B[..., : side - 1, :])
