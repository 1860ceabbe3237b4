"""The pocket benchmark: fixed, balanced, held out, exact; and scores that tell a right edit from a wrong one."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from graphflow.node import Context
from graphflow.nodes.pocket import benchmark
from graphflow.nodes.pocket.benchmark import Entry, alternatives, edit_scores, entries, entry
from graphflow.nodes.pocket.captions import describe, phrase, read
from graphflow.nodes.pocket.edits import EDITS
from graphflow.nodes.pocket.world import ATLAS, Split, held_out
from graphflow.nodes.pocket_score import PocketEdit

ALL = entries()


def test_a_version_fixes_every_edit() -> None:
    """Results are compared over years: when this fails, the drawing of edits has changed, and needs a new version."""
    text = "\n".join(f"{e.name} {e.edit!r}" for e in ALL)
    assert benchmark.VERSION == "pocket-64-v1"
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "2481bdc785c40b4ef2243fbd8252372cb9bd0a4c846d1987cb062cd832e18c00"
    )


def test_a_version_fixes_every_picture() -> None:
    """By the sprites, and by the mean of some pictures: another Pillow may round some pixels in another way."""
    atlas = hashlib.sha256(b"".join((ATLAS / name).read_bytes() for name in ("noto.png", "fluent.png", "index.json")))
    assert atlas.hexdigest() == "7f42e36454fcd3bc7e685caba5f8dc8315bf9baefec4f1cbc14c159027cc3db7"
    means = [float(np.asarray(e.after).mean()) for e in ALL[:21]]
    assert means == pytest.approx(
        [
            185.9,
            220.1,
            191.7,
            171.0,
            76.4,
            172.7,
            164.9,
            174.0,
            174.9,
            175.0,
            171.2,
            160.5,
            172.9,
            161.0,
            203.2,
            177.0,
            175.5,
            165.2,
            184.1,
            183.7,
            54.1,
        ],
        abs=0.3,
    )


def test_every_type_of_edit_is_there_equally_often_from_the_start() -> None:
    assert set(benchmark.TYPES) == set(EDITS)
    assert len(ALL) >= 200
    for count in (len(benchmark.TYPES), 70, len(ALL)):
        assert set(Counter(e.edit.kind for e in ALL[:count]).values()) == {count // len(benchmark.TYPES)}
    assert len({(e.edit.before, e.edit.after) for e in ALL}) == len({e.name for e in ALL}) == len(ALL)


def test_training_saw_no_picture_of_it_and_no_combination_of_half() -> None:
    for e in ALL:
        scenes = (e.edit.before, e.edit.after)
        assert all(scene.instance in Split.HELD_OUT.value for scene in scenes)
        unseen = any(held_out(item, scene.background) for scene in scenes for item in scene.items)
        assert unseen == (int(e.name[-2:]) % 2 == 0), e.name


def test_ground_truth_is_exact() -> None:
    for e in ALL[::4]:
        before, after, inside = np.asarray(e.before), np.asarray(e.after), np.asarray(e.mask) > 0
        changed = (before != after).any(axis=-1)
        assert changed.any(), e.name
        assert not changed[~inside].any(), e.name
    for row in benchmark.rows():
        assert read(row["source_caption"]) is not None
        assert row["source_caption"] != row["target_caption"]
        assert row["instruction"].strip()


def test_an_edit_is_found_by_its_name() -> None:
    assert entry(ALL[100].name) == ALL[100]
    for name in (
        "pocket-64-v1/replace/32",
        "pocket-64-v1/replace/1",
        "pocket-64-v0/replace/01",
        "cat",
        "pocket-64-v1/turn/00",
    ):
        with pytest.raises(ValueError, match=rf"'{name}' is no edit of the pocket benchmark; expected 'pocket-64-v1/"):
            entry(name)


def test_alternatives_differ_in_what_was_edited_only() -> None:
    for e in ALL:
        after, others = describe(e.edit.after), alternatives(e.edit)
        assert len({phrase(d) for d in others} | {phrase(after)}) == len(others) + 1, "all different"
        assert any(d.same_as(describe(e.edit.before)) for d in others), "doing nothing is one of them"
        if e.edit.kind == "style":
            assert {d.style for d in others} == {"picture", "sketch", "sepia"} - {after.style}
        elif e.edit.kind == "background":
            assert all(d.things == after.things for d in others)
        else:
            assert all((d.background, d.style) == (after.background, after.style) for d in others)


class Reader:
    """A CLIP that knows which caption belongs to which picture."""

    def __init__(self, captions: dict[bytes, str]) -> None:
        self.captions, self.seen = captions, ""

    def image(self, pictures: list[Image.Image]) -> torch.Tensor:
        self.seen = self.captions.get(pictures[0].tobytes(), "")
        return torch.ones(1, 1)

    def text(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([[1.0] if text == self.seen else [-1.0] for text in texts])


def reader(e: Entry) -> Any:
    return Reader(
        {e.after.tobytes(): phrase(describe(e.edit.after)), e.before.tobytes(): phrase(describe(e.edit.before))}
    )


@pytest.mark.parametrize("e", ALL[: len(benchmark.TYPES)], ids=lambda e: e.edit.kind)
def test_the_truth_scores_best_and_doing_nothing_worst(e: Entry) -> None:
    truth, nothing = (edit_scores(picture, e.name, reader(e)) for picture in (e.after, e.before))
    assert (truth["clip_success"], truth["truth_success"], truth["psnr_inside"]) == (1, 1, 60)
    assert (nothing["clip_success"], nothing["truth_success"]) == (0, 0)
    assert nothing["psnr_inside"] < 25
    assert truth.keys() == nothing.keys()
    assert ("psnr_outside" in truth) == (np.asarray(e.mask).min() == 0)
    assert truth.get("psnr_outside", 60) == nothing.get("psnr_outside", 60) == 60


def test_psnr_is_measured_on_each_side_of_the_mask() -> None:
    e = entry("pocket-64-v1/replace/01")
    inside = np.asarray(e.mask) > 0
    for region, spoiled, kept in ((inside, "psnr_inside", "psnr_outside"), (~inside, "psnr_outside", "psnr_inside")):
        pixels = np.asarray(e.after).astype(int)
        pixels[region] += np.where(pixels[region] > 127, -10, 10)
        scores = edit_scores(Image.fromarray(pixels.astype(np.uint8)), e.name, reader(e))
        assert scores[spoiled] == pytest.approx(20 * np.log10(255 / 10))
        assert scores[kept] == 60


def test_a_picture_of_another_size_is_scaled_first() -> None:
    e = entry("pocket-64-v1/recolour/00")
    large = e.after.resize((256, 256), Image.Resampling.NEAREST)
    scores = edit_scores(large, e.name, reader(e))
    assert scores["truth_success"] == 1
    assert scores["psnr_inside"] > 25


def test_the_node_scores_by_name() -> None:
    e = ALL[0]
    out = PocketEdit().run(PocketEdit.In(image=e.after, name=e.name, model=reader(e)), Context())
    assert out.scores["clip_success"] == 1


def test_the_shipped_clip_tells_truth_from_doing_nothing() -> None:
    from graphflow.nodes.pocket.models import load_models

    clip = load_models().clip
    some = ALL[:28]
    truth = [benchmark.clip_prefers_edit(e.after, e.edit, clip) for e in some]
    nothing = [benchmark.clip_prefers_edit(e.before, e.edit, clip) for e in some]
    assert np.mean(truth) > 0.8
    assert np.mean(nothing) < 0.1


def test_drawing_the_benchmark_needs_no_torch() -> None:
    draw = "from graphflow.nodes.pocket.benchmark import rows; rows()[0]['mask'].load()"
    code = f"{draw}; import sys; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_the_larger_version_has_the_same_edits_at_twice_the_side() -> None:
    pairs = list(zip(ALL, entries("pocket-128-v1"), strict=True))
    assert all(large.edit == small.edit for small, large in pairs)
    small, large = pairs[0]
    assert large.name == "pocket-128-v1/replace/00"
    assert entry(large.name) == large
    assert large.before.size == large.after.size == large.mask.size == (128, 128)
    halved = np.asarray(large.after.resize((64, 64), Image.Resampling.BOX), np.float32)
    assert np.abs(halved - np.asarray(small.after, np.float32)).mean() < 6
    [row] = [row for row in benchmark.rows("pocket-128-v1") if row["name"] == large.name]
    assert row["source"].size == row["source"].load().size == (128, 128)


def test_results_of_the_larger_version_are_scored_at_its_size() -> None:
    large = entry("pocket-128-v1/replace/00")
    assert edit_scores(large.after, large.name, reader(large))["psnr_inside"] == 60
    assert edit_scores(large.after.resize((64, 64)), large.name, reader(large))["psnr_inside"] < 40
