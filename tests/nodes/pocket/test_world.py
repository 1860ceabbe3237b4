"""The pocket world: pictures, captions and edits."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest

from graphflow.nodes.pocket.captions import Description, Thing, any_wording, caption, describe, phrase, read
from graphflow.nodes.pocket.catalogue import POCKET_64, POCKET_128, SHIPPED, Vocabulary, vocabulary_for
from graphflow.nodes.pocket.edits import EDITS, edit_mask, sample_edit
from graphflow.nodes.pocket.examples import EXAMPLES
from graphflow.nodes.pocket.prompt_sheet import PROMPTS
from graphflow.nodes.pocket.world import Split, held_out, object_mask, render, sample_scene

CROWNED = Thing("rabbit", None, "crown")
VOCABULARIES = pytest.mark.parametrize("words", [POCKET_64, POCKET_128], ids=lambda words: words.name)


def test_the_world_does_without_torch() -> None:
    code = "import graphflow.nodes.pocket.edits, graphflow.nodes.pocket.examples, sys; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


@VOCABULARIES
def test_a_seed_fixes_scene_picture_and_edit(words: Vocabulary) -> None:
    first, second = (sample_scene(random.Random(3), words, Split.TRAIN) for _ in range(2))
    assert first == second
    assert render(first, 64).tobytes() == render(second, 64).tobytes()
    edits = [sample_edit(random.Random(4), words, Split.TRAIN) for _ in range(2)]
    assert edits[0] == edits[1]


@VOCABULARIES
def test_every_caption_reads_back_as_its_scene(words: Vocabulary) -> None:
    rng = random.Random(0)
    for _ in range(500):
        scene = sample_scene(rng, words, Split.HELD_OUT)
        for text in (caption(scene), caption(scene, rng), caption(scene, rng).capitalize() + "."):
            assert read(text) == describe(scene), text


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("a cat on the beach", Description((Thing("cat"),), "beach")),
        ("A pencil sketch of an apple", Description((Thing("apple"),), None, "sketch")),
        ("a bunny that wears a crown beside a red car", Description((CROWNED, Thing("car", "red")), None)),
        ("an empty scene at night in sepia", Description((), "night", "sepia")),
        ("a zebra on the beach", None),
        ("on the beach", None),
    ],
)  # fmt: skip
def test_captions_are_read_by_their_meaning(text: str, meaning: Description | None) -> None:
    assert read(text) == meaning


def test_a_wording_is_the_same_on_both_sides_of_an_edit() -> None:
    before, after = (Description((Thing(kind),), "snow", "sketch") for kind in ("cat", "dog"))
    for seed in range(30):
        wording = any_wording(random.Random(seed))
        assert phrase(before, wording).replace("cat", "dog") == phrase(after, wording)


def test_training_never_shows_what_is_held_out() -> None:
    rng = random.Random(1)
    for _ in range(500):
        scene = sample_scene(rng, POCKET_64, Split.TRAIN)
        assert not any(held_out(item, scene.background) for item in scene.items)
        edit = sample_edit(rng, POCKET_64, Split.TRAIN)
        assert not edit.unseen()
        assert {edit.before.instance, edit.after.instance, scene.instance} <= set(Split.TRAIN.value)
    assert not set(Split.TRAIN.value) & set(Split.HELD_OUT.value)
    unseen = sum(sample_edit(rng, POCKET_64, Split.HELD_OUT).unseen() for _ in range(200))
    assert unseen > 10, "the held-out split has combinations that training lacks"


@pytest.mark.parametrize("kind", EDITS)
def test_an_edit_changes_pixels_inside_its_mask_only(kind: str) -> None:
    rng = random.Random(2)
    for _ in range(25):
        edit = sample_edit(rng, POCKET_64, Split.HELD_OUT, kind)
        before, after = (np.asarray(render(scene, 64)).astype(int) for scene in (edit.before, edit.after))
        mask = np.asarray(edit_mask(edit, 64)) > 0
        changed = (before != after).any(axis=-1)
        assert changed.any(), edit
        assert not changed[~mask].any(), edit


def test_edits_say_what_they_mean() -> None:
    rng = random.Random(5)
    for _ in range(300):
        edit = sample_edit(rng, POCKET_64, Split.HELD_OUT)
        before, after = describe(edit.before), describe(edit.after)
        assert not before.same_as(after)
        text = edit.instruction.lower()
        assert "{" not in text
        if edit.kind in ("recolour", "accessory"):
            assert [t.kind for t in before.things] == [t.kind for t in after.things]
        if edit.kind == "background":
            assert before.things == after.things
            assert before.style == after.style


def test_object_mask_covers_the_object() -> None:
    scene = EXAMPLES["cat"].scene
    mask = np.asarray(object_mask(scene, 64)) > 0
    assert mask[45, 32], "the middle of the face"
    assert not mask[:10].any(), "the sky"
    assert 0.15 < mask.mean() < 0.5


def test_the_example_pictures_are_the_scenes_of_their_names() -> None:
    from pathlib import Path

    from PIL import Image

    import graphflow.graphs

    folder = Path(graphflow.graphs.__path__[0]) / "pictures"
    for name, example in EXAMPLES.items():
        stored = Image.open(folder / f"{name}.png").convert("RGB")
        assert stored.tobytes() == render(example.scene, SHIPPED.size).tobytes(), name
        assert example.scene.instance not in Split.TRAIN.value


def test_the_page_of_prompts_shows_everything_there_is() -> None:
    words, said = SHIPPED, [read(prompt) for prompt in PROMPTS]
    assert all(said)
    assert len(said) == 48
    shown = [d for d in said if d]
    assert {thing.kind for d in shown for thing in d.things} == set(words.kinds)
    assert {d.background for d in shown} == set(words.backgrounds)
    assert {d.style for d in shown} == set(words.styles)
    assert {thing.accessory for d in shown for thing in d.things} == {None, *words.accessories}


def test_a_vocabulary_is_found_by_the_size_of_its_pictures() -> None:
    assert [vocabulary_for(size) for size in (64, 128)] == [POCKET_64, POCKET_128]
    with pytest.raises(ValueError, match="no pocket models for pictures of 96 pixels; their sizes are 64, 128"):
        vocabulary_for(96)
