"""The exemplar benchmark: fixed, balanced, held out; both edits of a triple are the same, and exact."""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from graphflow.node import Context
from graphflow.nodes.dataset import PocketExemplars
from graphflow.nodes.pocket import exemplars
from graphflow.nodes.pocket.benchmark import TYPES, edit_scores
from graphflow.nodes.pocket.captions import describe, read
from graphflow.nodes.pocket.catalogue import KINDS, POCKET_64, POCKET_128
from graphflow.nodes.pocket.descriptions import description, request
from graphflow.nodes.pocket.edits import Edit, sample_edit
from graphflow.nodes.pocket.exemplars import entries, entry, sample_triple
from graphflow.nodes.pocket.world import Split, held_out

ALL = entries()


def test_a_version_fixes_every_triple() -> None:
    """When this fails, the drawing of edits has changed, and needs a new version."""
    text = "\n".join(f"{e.name} {e.exemplar!r} {e.edit!r}" for e in ALL)
    assert exemplars.VERSION == "pocket-64-exemplars-v1"
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "cce24662fb6706bc0100da60cb096515400d20e990ac1a5ce6a87c374290d1d1"
    )


def test_every_type_is_there_equally_often_from_the_start() -> None:
    assert len(ALL) >= 56
    for count in (len(TYPES), 56, len(ALL)):
        assert Counter(e.edit.kind for e in ALL[:count]) == dict.fromkeys(TYPES, count // len(TYPES))
    assert len({(e.edit.before, e.edit.after) for e in ALL}) == len({e.name for e in ALL}) == len(ALL)


def test_training_saw_no_picture_of_it_and_no_combination_of_half() -> None:
    for e in ALL:
        scenes = [scene for edit in (e.exemplar, e.edit) for scene in (edit.before, edit.after)]
        assert all(scene.instance in Split.HELD_OUT.value for scene in scenes)
        assert e.edit.unseen() == (int(e.name[-2:]) % 2 == 0), e.name


def test_training_triples_hold_nothing_back() -> None:
    rng = random.Random(1)
    for _ in range(200):
        triple = sample_triple(rng, POCKET_64, Split.TRAIN)
        scenes = [scene for edit in (triple.exemplar, triple.edit) for scene in (edit.before, edit.after)]
        assert all(scene.instance in Split.TRAIN.value for scene in scenes)
        assert not any(held_out(item, scene.background) for scene in scenes for item in scene.items)


def test_ground_truth_is_exact_and_is_not_the_exemplar() -> None:
    for e in ALL[::3]:
        before, after, inside = np.asarray(e.before), np.asarray(e.after), np.asarray(e.mask) > 0
        changed = (before != after).any(axis=-1)
        assert changed.any(), e.name
        assert not changed[~inside].any(), e.name
        assert not np.array_equal(np.asarray(e.exemplar_before), before)


def change(edit: Edit) -> object:
    """What an edit changes, in a form that is equal for equal changes."""
    before, after = describe(edit.before), describe(edit.after)
    if edit.kind in ("background", "style"):
        return getattr(after, edit.kind)
    gone = Counter(before.things) - Counter(after.things)
    come = Counter(after.things) - Counter(before.things)
    [old], [new] = (list(things) or [None] for things in (gone, come))
    match edit.kind:
        case "replace":
            return old.kind, new.kind, new.colour
        case "add":
            return new
        case "remove":
            return old.kind
        case "recolour":
            return old.kind, new.colour
    return old.kind, old.accessory, new.accessory


def test_both_edits_of_a_triple_are_the_same() -> None:
    rng = random.Random(2)
    for triple in [*ALL, *(sample_triple(rng, POCKET_128, Split.HELD_OUT) for _ in range(300))]:
        assert change(triple.exemplar) == change(triple.edit)
        assert triple.exemplar.before.style == triple.edit.before.style
        assert request(triple.exemplar) == triple.edit.instruction
        assert triple.exemplar.before != triple.edit.before
        for item in (*triple.edit.before.items, *triple.edit.after.items):
            assert KINDS[item.kind].wears or not item.accessory
        if triple.edit.kind == "background":
            assert triple.edit.after.instance == triple.exemplar.after.instance


def test_a_description_and_a_request_say_what_changed_and_no_more() -> None:
    rng = random.Random(3)
    said: dict[str, set[object]] = {}
    for _ in range(400):
        edit = sample_edit(rng, POCKET_64, Split.TRAIN)
        said.setdefault(description(edit), set()).add((edit.kind, change(edit)))
        assert len(description(edit).split()) <= 100
        assert len(request(edit).split()) <= 20
        assert not re.search("None|  ", description(edit) + request(edit))
        assert description(edit) == description(replace(edit, instruction="?"))
    assert all(len(changes) == 1 for changes in said.values()), "one text for two different edits"


def test_a_triple_is_found_by_its_name() -> None:
    assert entry(ALL[40].name) == ALL[40]
    for name in ("pocket-64-exemplars-v1/replace/16", "pocket-64-exemplars-v1/turn/00", "pocket-64-v1/replace/00"):
        with pytest.raises(ValueError, match=rf"'{name}' is no edit of the pocket benchmark; expected 'pocket-64-ex"):
            entry(name)


def test_it_is_a_data_set_that_scores_by_name() -> None:
    out = PocketExemplars(limit=14, edit_types=("replace", "style")).run(PocketExemplars.In(), Context())
    assert set(out.edit_type) == {"replace", "style"}
    assert out.name[0] == "pocket-128-exemplars-v1/replace/00"
    assert out.exemplar_before[0].size == out.target[0].size == out.mask[0].size == (128, 128)
    assert out.description[0].endswith("Everything else stays the same.")
    assert all(read(text) for text in (*out.source_caption, *out.target_caption))
    no_clip = type("Blind", (), {"image": lambda s, x: _ones(1), "text": lambda s, x: _ones(len(x))})()
    truth, nothing = (edit_scores(pictures[0], out.name[0], no_clip) for pictures in (out.target, out.source))
    assert (truth["truth_success"], nothing["truth_success"]) == (1, 0)


def _ones(count: int):  # type: ignore[no-untyped-def]
    import torch

    return torch.ones(count, 2)
