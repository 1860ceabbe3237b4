"""The nodes that score one picture."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from checkpoints import VISION
from measures import half_mask, lpips_network, picture
from PIL import Image
from torch.nn.functional import cosine_similarity

from graphflow.node import Context
from graphflow.nodes.lib.metrics import pixels, vit
from graphflow.nodes.lib.metrics.catalogue import metric
from graphflow.nodes.lib.metrics.perceptual import LPIPS
from graphflow.nodes.score import ClipScore, ClipTextScore, Dino, Hps, Lpips, Pixels, Structure, SVisual

IMAGE, REFERENCE, MASK = picture(64, 48, 1), picture(64, 48, 2), half_mask(64, 48)
BOTH = {"image": IMAGE, "reference": REFERENCE}
PLACES = {
    "new": [1.0, 2.0, 0.5], "old": [0.5, -1.0, 2.0], "goal": [1.0, 1.5, 1.0], "dog": [2.0, 1.0, 1.0],
    "cat": [-1.0, 1.0, 0.0], "turn it": [0.3, 0.9, -0.2],
}  # fmt: skip


class Points:
    """A CLIP whose embeddings are looked up."""

    name, size, preprocessing = "points", 8, "looked up"

    def image(self, images):
        return torch.tensor([PLACES[i.info["name"]] for i in images])

    def text(self, texts):
        return torch.tensor([PLACES[t] for t in texts])


def named(name):
    image = Image.new("RGB", (2, 2))
    image.info["name"] = name
    return image


def run(node, **ports):
    out = node.run(node.In(**ports), Context())
    assert [row["score"] for row in out.how] == list(out.scores)
    assert [row["value"] for row in out.how] == list(out.scores.values())
    json.dumps([out.scores, out.how], allow_nan=False)
    return out


def scores(node, **ports):
    return run(node, **ports).scores


def clip(**ports):
    return scores(ClipScore(), image=named("new"), model=Points(), **ports)


# --- score.clip -----------------------------------------------------------------------------------------------------


def test_scores_follow_their_formulas():
    new, old, goal, dog, cat, turn = (torch.tensor(PLACES[k]) for k in ("new", "old", "goal", "dog", "cat", "turn it"))
    cos = cosine_similarity(new, dog, dim=0).item()
    step, wish = new / new.norm() - old / old.norm(), dog / dog.norm() - cat / cat.norm()
    found = clip(source=named("old"), text="dog", source_text="cat", target=named("goal"), instruction="turn it")
    assert found == pytest.approx(
        {
            "clip_text": cos,
            "clip_text_distance": 1 - cos,
            "clip_image": cosine_similarity(new, old, dim=0).item(),
            "clip_target": cosine_similarity(new, goal, dim=0).item(),
            "clip_direction": (step @ wish / step.norm() / wish.norm()).item(),
            "clip_instruction": (step @ turn / step.norm() / turn.norm()).item(),
        }
    )


def test_only_what_is_given_is_scored():
    assert set(clip(text="dog")) == {"clip_text", "clip_text_distance"}
    assert set(clip(source=named("old"))) == {"clip_image"}
    assert set(clip(source=named("old"), text="dog")) == {"clip_text", "clip_text_distance", "clip_image"}
    with pytest.raises(ValueError, match="nothing to compare"):
        clip()


def test_an_unchanged_picture_has_no_direction():
    assert clip(source=named("new"), text="dog", source_text="cat")["clip_direction"] == 0


def test_clip_score_is_a_hundredfold_and_blacks_out_what_is_not_in_the_region():
    cos = cosine_similarity(torch.tensor(PLACES["new"]), torch.tensor(PLACES["dog"]), dim=0).item()
    assert scores(ClipTextScore(), image=named("new"), text="dog", model=Points()) == {
        "clip_score": pytest.approx(100 * cos)
    }

    class Seen(Points):
        def image(self, images):
            self.seen = np.asarray(images[0])
            return torch.ones(1, 3)

    model = Seen()
    node = ClipTextScore(region="inside")
    out = run(node, image=IMAGE, text="dog", mask=MASK, model=model)
    assert list(out.scores) == ["clip_score_inside"]
    assert np.array_equal(model.seen, np.asarray(pixels.black_out(IMAGE, pixels.mask_of(MASK, IMAGE.size, "inside"))))


def test_s_visual_compares_two_changes():
    before, after, source, image = (torch.tensor(PLACES[k]) for k in ("cat", "dog", "old", "new"))
    PLACES.update({f"{k} picture": PLACES[k] for k in ("cat", "dog")})
    ports = {"before": named("cat picture"), "after": named("dog picture"), "source": named("old")}
    expected = cosine_similarity(after - before, image - source, dim=0).item()
    found = scores(SVisual(), **ports, image=named("new"), model=Points())
    assert found == {"s_visual": pytest.approx(expected)}


# --- score.pixels, score.lpips --------------------------------------------------------------------------------------


def test_pixels_gives_four_scores_and_how_they_were_made():
    out = run(Pixels(), **BOTH)
    assert list(out.scores) == ["l1", "l2", "psnr", "ssim"]
    row = out.how[2]
    assert (row["unit"], row["higher_is_better"], row["input_range"], row["region"]) == ("dB", True, "[0, 1]", "whole")


def test_magicbrush_resizes_the_picture_to_the_reference():
    small = IMAGE.resize((40, 30))
    with pytest.raises(ValueError, match="40x30 pixels and the reference 64x48"):
        run(Pixels(), image=small, reference=REFERENCE)
    found = scores(Pixels(compat="magicbrush"), image=small, reference=REFERENCE)
    a, b = (np.asarray(i) / 255 for i in (small.resize((64, 48)), REFERENCE))  # PIL's default filter is bicubic
    assert found["l1"] == pytest.approx(np.abs(a - b).mean())
    assert found["l2"] == pytest.approx(((a - b) ** 2).mean())
    assert np.abs(np.asarray(small.resize((64, 48), Image.Resampling.BILINEAR)) / 255 - b).mean() != found["l1"]


def test_regions_carry_their_name():
    outside, inside = (scores(Pixels(region=r), **BOTH, mask=MASK) for r in ("outside", "inside"))
    assert list(outside) == ["l1_outside", "l2_outside", "psnr_outside", "ssim_outside"]
    assert outside["l1_outside"] != inside["l1_inside"]
    multiplied = scores(Pixels(region="outside", compat="pie_bench"), **BOTH, mask=MASK)
    assert multiplied["psnr_outside"] > outside["psnr_outside"]
    with pytest.raises(ValueError, match="region is outside, but the port 'mask' is not connected"):
        run(Pixels(region="outside"), **BOTH)


def test_an_empty_region_has_no_score():
    nothing = Image.new("L", (64, 48))
    out = run(Pixels(region="inside"), **BOTH, mask=nothing)
    assert set(out.scores.values()) == {None}
    assert {r["missing"] for r in out.how} == {"the region has no pixels"}
    for node, ports in (
        (Lpips(region="inside"), BOTH | {"model": LPIPS(lpips_network("alex"), "alex")}),
        (ClipTextScore(region="inside"), {"image": IMAGE, "text": "dog", "model": Points()}),
    ):
        out = run(node, **ports, mask=nothing)
        assert set(out.scores.values()) == {None}
        assert [r["missing"] for r in out.how] == ["the region has no pixels"]


def test_equal_pictures_have_no_psnr_unless_one_is_agreed_on():
    same = {"image": IMAGE, "reference": IMAGE}
    out = run(Pixels(), **same)
    assert out.scores["psnr"] is None
    assert out.how[2]["missing"] == "the value is not finite: inf"
    assert scores(Pixels(identical_psnr=100), **same)["psnr"] == 100


def test_lpips_is_given_minus_one_to_one():
    model = LPIPS(lpips_network("squeeze"), "squeeze", "tiny")
    out = run(Lpips(), **BOTH, model=model)
    expected = model.distance(*(pixels.to_unit(i) * 2 - 1 for i in (IMAGE, REFERENCE))).item()
    assert out.scores == {"lpips": expected}
    row = out.how[0]
    assert (row["backbone"], row["weights"], row["input_range"]) == ("squeeze", "tiny", "[-1, 1]")


def test_reedits_lpips_stretches_both_pictures_to_224():
    model = LPIPS(lpips_network("squeeze"), "squeeze")
    ready = [pixels.to_unit(i.resize((224, 224), Image.Resampling.BILINEAR)) * 2 - 1 for i in (IMAGE, REFERENCE)]
    found = scores(Lpips(compat="reedit"), **BOTH, model=model)["lpips"]
    assert found == pytest.approx(model.distance(*ready).item(), abs=1e-6)
    assert abs(found - scores(Lpips(), **BOTH, model=model)["lpips"]) > 1e-4


def test_lpips_of_a_region_is_that_of_pictures_black_elsewhere():
    model = LPIPS(lpips_network("squeeze"), "squeeze")
    mask = pixels.mask_of(MASK, IMAGE.size, "outside")
    ready = [pixels.to_unit(i) * mask * 2 - 1 for i in (IMAGE, REFERENCE)]
    found = scores(Lpips(region="outside"), **BOTH, mask=MASK, model=model)
    assert found == {"lpips_outside": pytest.approx(model.distance(*ready).item(), abs=1e-6)}


# --- score.hps, score.dino, score.structure -------------------------------------------------------------------------


def test_hps_sees_the_whole_picture_with_black_margins():
    class Seen(Points):
        def embed(self, pixels_BCHW):
            self.seen = pixels_BCHW
            return torch.tensor([PLACES["new"]])

    model = Seen()
    found = scores(Hps(), image=IMAGE, text="dog", model=model)
    assert found == {"hps": pytest.approx(clip(text="dog")["clip_text"])}
    black = (0 - torch.tensor(pixels.OPENAI_MEAN)) / torch.tensor(pixels.OPENAI_STD)
    assert torch.allclose(model.seen[0, :, 0, 0], black)
    assert torch.equal(model.seen, pixels.hps_pixels(IMAGE, 8, True))


@pytest.fixture(scope="module")
def dino():
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    return vit.ViT(ViTModel(ViTConfig(**VISION), add_pooling_layer=False), 8, "tiny")


def test_dino_compares_class_tokens_of_crops(dino):
    out = run(Dino(resize=40, crop=32), **BOTH, model=dino)
    a, b = (dino.embed(pixels.dino_pixels(i, 40, 32)) for i in (IMAGE, REFERENCE))
    assert out.scores == {"dino_image": pytest.approx(cosine_similarity(a, b).item())}
    assert out.how[0]["resize"] == "PIL bicubic to the shorter side 40, centre crop 32x32"
    assert scores(Dino(resize=32, crop=32), **BOTH, model=dino) != out.scores


def test_structure_distance_and_the_range_of_pie_bench(dino):
    right = scores(Structure(size=32), **BOTH, model=dino)["structure_distance"]
    out = run(Structure(size=32, compat="pie_bench"), **BOTH, model=dino)
    keys = [dino.keys(pixels.structure_pixels(pixels.to_bytes(i), 32, 480, True)) for i in (IMAGE, REFERENCE)]
    assert out.scores["structure_distance"] == pytest.approx(vit.structure_distance(*keys).item())
    assert abs(right - out.scores["structure_distance"]) / right > 0.05
    assert out.how[0]["input_range"].startswith("0 … 255")
    assert list(scores(Structure(size=32, region="outside"), **BOTH, mask=MASK, model=dino)) == [
        "structure_distance_outside"
    ]


# --- without weights ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "ports", "names"),
    [
        (Lpips(), BOTH, ["lpips"]),
        (Lpips(region="inside"), BOTH | {"mask": MASK}, ["lpips_inside"]),
        (ClipScore(), {"image": IMAGE, "text": "a"}, ["clip_text", "clip_text_distance"]),
        (ClipTextScore(), {"image": IMAGE, "text": "a"}, ["clip_score"]),
        (SVisual(), {"before": IMAGE, "after": IMAGE, "source": IMAGE, "image": IMAGE}, ["s_visual"]),
        (Dino(), BOTH, ["dino_image"]),
        (Structure(), BOTH, ["structure_distance"]),
        (Hps(), {"image": IMAGE, "text": "a"}, ["hps"]),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_without_a_model_a_score_is_not_available_and_no_number(node, ports, names):
    out = run(node, **ports)
    assert out.scores == dict.fromkeys(names)
    role = next(iter(node.model_ports().values()))
    for row in out.how:
        assert row["missing"] == f"there is no {role}: the preset binds none, or its files are not on this machine"
        assert metric(row["score"]).title
