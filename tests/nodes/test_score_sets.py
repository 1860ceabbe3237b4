"""The nodes for FID and KID: features a picture at a time, then the distance of two lists."""

from __future__ import annotations

import logging

import pytest
import torch
from measures import fid_inception, picture
from torchmetrics.image import FrechetInceptionDistance, KernelInceptionDistance

from graphflow.node import Context
from graphflow.nodes.lib.metrics.inception import Inception, pil_bilinear
from graphflow.nodes.sets import Features, Fid, Kid

OURS, THEIRS = ([picture(48, 40, seed) for seed in seeds] for seeds in (range(12), range(20, 31)))


@pytest.fixture(scope="module")
def model():
    return Inception(fid_inception(), "tiny")


def mapped(node, images, model=None):
    outs = [node.run(node.In(image=image, model=model), Context()) for image in images]
    return [o.features for o in outs], [o.how for o in outs]


@pytest.fixture(scope="module")
def small(model):
    """Both sets with the 64 features of ReEdit."""
    node = Features(feature=64, compat="reedit")
    (a, how_a), (b, how_b) = mapped(node, OURS, model), mapped(node, THEIRS, model)
    return {"features": a, "reference": b, "how": how_a, "reference_how": how_b}


class First64(torch.nn.Module):
    num_features = 64

    def __init__(self, inception):
        super().__init__()
        self.inception = inception

    def forward(self, x):
        return self.inception.model.features(x.float(), 64)


def theirs_of(metric, images):
    for side, real in ((OURS, False), (THEIRS, True)):
        for image in side:
            metric.update(pil_bilinear(image).byte(), real=real)
    return metric.compute()


def test_reedits_fid_is_that_of_torchmetrics_over_the_same_pictures(model, small):
    out = Fid().run(Fid.In(**small), Context())
    metric = FrechetInceptionDistance(feature=First64(model)).set_dtype(torch.float64)
    assert out.scores == {"fid_64": pytest.approx(theirs_of(metric, OURS).item(), rel=1e-5, abs=1e-5)}
    row = out.how[0]
    assert (row["backbone"], row["weights"]) == ("FID Inception, 64 features", "tiny")
    assert row["resize"] == "PIL bilinear to 299x299, rounded to bytes"
    assert row["reduction"] == "12 and 11 pictures"


def test_kid_is_that_of_torchmetrics_over_the_same_pictures(model, small):
    out = Kid(subsets=4, subset_size=8, seed=3).run(Kid.In(**small), Context())
    metric = KernelInceptionDistance(feature=First64(model), subsets=4, subset_size=8)
    torch.manual_seed(3)
    mean, deviation = (v.item() for v in theirs_of(metric, OURS))
    assert out.scores == {
        "kid": pytest.approx(mean, rel=1e-4, abs=1e-5), "kid_std": pytest.approx(deviation, rel=1e-3, abs=1e-5)
    }  # fmt: skip


def test_the_interim_script_is_another_number(small):
    pairs = {k: v[:11] for k, v in small.items()}
    interim, plain = (
        Fid(compat=c).run(Fid.In(**pairs), Context()).scores["fid_64"] for c in ("reedit_interim", "none")
    )
    assert interim != pytest.approx(plain, rel=0.01)


def test_the_default_is_fid_of_2048_features(model):
    node = Features()
    out = node.run(node.In(image=OURS[0], model=model), Context())
    assert out.features.shape == (1, 2048)
    assert out.how[0]["resize"].startswith("PIL bicubic to 299x299, antialiased, not rounded")
    pair = [torch.randn(1, 2048) for _ in range(4)]
    assert list(Fid().run(Fid.In(features=pair[:2], reference=pair[2:]), Context()).scores) == ["fid"]


def test_few_pictures_are_warned_of(small, caplog):
    caplog.set_level(logging.INFO, "graphflow.node")
    Fid().run(Fid.In(**small), Context())
    assert "FID over 11 pictures with 64 features: a small sample makes it too large" in caplog.text


def test_kid_of_a_small_set_takes_all_of_it(small):
    out = Kid().run(Kid.In(**small), Context())
    assert out.how[0]["reduction"] == "12 and 11 pictures; mean over 100 subsets of 11"
    even = {k: v[:11] for k, v in small.items()}
    assert Kid().run(Kid.In(**even), Context()).how[0]["reduction"] == "11 and 11 pictures; mean over 1 subsets of 11"


def test_without_weights_there_are_no_features_and_no_distance():
    features, how = mapped(Features(), OURS[:2])
    assert [f.shape for f in features] == [(0, 2048)] * 2
    assert how[0][0]["missing"].startswith("there is no inception")
    for node, names in ((Fid(), ["fid"]), (Kid(), ["kid", "kid_std"])):
        out = node.run(node.In(features=features, reference=features), Context())
        assert out.scores == dict.fromkeys(names)
        assert out.how[0]["missing"].startswith("there is no inception: the preset binds none")


def test_one_picture_has_no_spread(small):
    one = {k: v[:1] for k, v in small.items()}
    out = Fid().run(Fid.In(**one), Context())
    assert out.scores == {"fid_64": None}
    assert out.how[0]["missing"] == "a spread needs 2 pictures at least, 'features' has 1"


def test_features_made_in_two_ways_have_no_distance(model, small):
    features, how = mapped(Features(feature=64), THEIRS[:2], model)
    mixed = small | {"reference": features, "reference_how": how}
    with pytest.raises(ValueError, match="made with a different resize: PIL bicubic .*; PIL bilinear"):
        Fid().run(Fid.In(**mixed), Context())
