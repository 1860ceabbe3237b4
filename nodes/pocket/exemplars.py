"""The exemplar benchmark: an edit shown on one pair of pictures, to be done to another picture; all of it held out.

A version fixes the triples for ever: `entry("pocket-64-exemplars-v1/replace/07")` is the same one on every machine.
As in the benchmark of requests, no background was drawn in training, and in half of the triples of a type, those with
even numbers, the edit of the other picture shows a combination that training never saw. ``pocket-128-exemplars-v1`` has
the same triples, drawn at twice the side.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from PIL import Image

from .benchmark import TYPES, WORDS, Drawn, Entry, type_and_number, version_of
from .captions import describe, phrase
from .catalogue import KINDS, STYLES, Vocabulary
from .descriptions import description, request
from .edits import RICH, Edit, sample_edit
from .world import Item, Mixture, Scene, Split, render, sample_item, sample_scene

VERSION = "pocket-64-exemplars-v1"
SIZES = {VERSION: 64, "pocket-128-exemplars-v1": 128}  # side of the pictures of each version; the triples are the same
PER_TYPE = 16


@dataclass(frozen=True)
class Triple:
    """An edit, and the same edit of another scene, whose request is in the plain wording."""

    exemplar: Edit
    edit: Edit


def sample_triple(rng: random.Random, words: Vocabulary, split: Split, kind: str | None = None) -> Triple:
    """Draw an edit and a scene that it can be done to; training triples show no held-out combination."""
    while True:
        exemplar = sample_edit(rng, words, split, kind)
        scenes = _FOLLOW[exemplar.kind](exemplar, rng, words, split)
        if scenes and scenes[0] != exemplar.before:
            edit = Edit(exemplar.kind, *scenes, "")
            triple = Triple(exemplar, replace(edit, instruction=request(edit)))
            if split is Split.HELD_OUT or not triple.edit.unseen():
                return triple


# --- the same edit of another scene ---------------------------------------------------------------------------------

Scenes = tuple[Scene, Scene] | None


def _replace(exemplar: Edit, rng: random.Random, words: Vocabulary, split: Split) -> Scenes:
    new = _come(exemplar)
    found = _with(exemplar, rng, words, split, _gone(exemplar).kind)
    if not found or new.kind in {item.kind for item in found[0].items}:
        return None
    scene, item = found
    worn = item.accessory if KINDS[new.kind].wears else None
    return scene, _exchanged(scene, item, replace(item, kind=new.kind, colour=new.colour, accessory=worn))


def _add(exemplar: Edit, rng: random.Random, words: Vocabulary, split: Split) -> Scenes:
    new, alone = _come(exemplar), not exemplar.before.items
    mixture = replace(RICH, empty=1.0, pair=0.0) if alone else replace(RICH, pair=0.0, aside=1.0)
    scene = sample_scene(rng, _styled(words, exemplar), split, _only(mixture, exemplar))
    if new.kind in {item.kind for item in scene.items}:
        return None
    right = alone or scene.items[0].x < 0.5
    placed = sample_item(rng, words, new.kind, None if alone else int(right), False)
    added = replace(placed, colour=new.colour, accessory=new.accessory)
    return scene, replace(scene, items=(*scene.items, added) if right else (added, *scene.items))


def _remove(exemplar: Edit, rng: random.Random, words: Vocabulary, split: Split) -> Scenes:
    found = _with(exemplar, rng, words, split, _gone(exemplar).kind)
    return found and (found[0], _exchanged(*found))


def _recolour(exemplar: Edit, rng: random.Random, words: Vocabulary, split: Split) -> Scenes:
    found = _with(exemplar, rng, words, split, _gone(exemplar).kind)
    colour = _come(exemplar).colour
    if not found or found[1].colour == colour:
        return None
    return found[0], _exchanged(*found, replace(found[1], colour=colour))


def _accessory(exemplar: Edit, rng: random.Random, words: Vocabulary, split: Split) -> Scenes:
    old, new = _gone(exemplar), _come(exemplar)
    found = _with(exemplar, rng, words, split, old.kind)
    if not found:
        return None
    scene, item = found
    wearing = replace(item, accessory=old.accessory)
    before = _exchanged(scene, item, wearing)
    return before, _exchanged(before, wearing, replace(item, accessory=new.accessory))


def _background(exemplar: Edit, rng: random.Random, words: Vocabulary, split: Split) -> Scenes:
    scene = sample_scene(rng, _styled(words, exemplar), split, _only(RICH, exemplar))
    if scene.background == exemplar.after.background:
        return None
    # The very place of the exemplar, so that there is one right answer.
    return scene, replace(scene, background=exemplar.after.background, instance=exemplar.after.instance)


def _style(exemplar: Edit, rng: random.Random, words: Vocabulary, split: Split) -> Scenes:
    scene = sample_scene(rng, _styled(words, exemplar), split, _only(replace(RICH, plain=0.0), exemplar))
    return scene, replace(scene, style=exemplar.after.style)


_FOLLOW: dict[str, Callable[[Edit, random.Random, Vocabulary, Split], Scenes]] = {
    "replace": _replace,
    "add": _add,
    "remove": _remove,
    "recolour": _recolour,
    "accessory": _accessory,
    "background": _background,
    "style": _style,
}


def _with(exemplar: Edit, rng: random.Random, words: Vocabulary, split: Split, kind: str) -> tuple[Scene, Item] | None:
    """A scene in the style of the exemplar that has one object of this kind, and that object."""
    scene = sample_scene(rng, _styled(words, exemplar), split, _only(RICH, exemplar))
    place = rng.randrange(len(scene.items))
    old = scene.items[place]
    if kind in {item.kind for item in scene.items if item is not old}:
        return None
    side = place if len(scene.items) == 2 else None
    new = sample_item(rng, words, kind, side, STYLES[scene.style].shows_colour, RICH)
    return _exchanged(scene, old, new), new


def _styled(words: Vocabulary, exemplar: Edit) -> Vocabulary:
    return replace(words, styles=(exemplar.before.style,))


def _only(mixture: Mixture, exemplar: Edit) -> Mixture:
    """The mixture, but all in the style that `_styled` leaves."""
    return replace(mixture, styled=float(exemplar.before.style != "picture"))


def _exchanged(scene: Scene, old: Item, *new: Item) -> Scene:
    items = [each for item in scene.items for each in (new if item is old else (item,))]
    return replace(scene, items=tuple(items))


def _gone(edit: Edit) -> Item:
    return next(item for item in edit.before.items if item not in edit.after.items)


def _come(edit: Edit) -> Item:
    return next(item for item in edit.after.items if item not in edit.before.items)


# --- the benchmark --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ExemplarEntry(Entry):
    """A triple of the benchmark; `edit` is the one to do, and its pictures are those of an `Entry`."""

    exemplar: Edit

    @property
    def exemplar_before(self) -> Image.Image:
        """The left picture of the pair that shows the edit."""
        return render(self.exemplar.before, self.size)

    @property
    def exemplar_after(self) -> Image.Image:
        """The right picture of the pair."""
        return render(self.exemplar.after, self.size)


def entries(version: str = VERSION) -> list[ExemplarEntry]:
    """All triples, the types taking turns."""
    return [_entry(version, kind, number) for number in range(PER_TYPE) for kind in TYPES]


def entry(name: str) -> ExemplarEntry:
    """The triple of a name such as 'pocket-64-exemplars-v1/replace/07'.

    Raises:
        ValueError: there is no such triple.
    """
    version = version_of(name, SIZES)
    return _entry(version, *type_and_number(name, version, PER_TYPE))


@cache
def _entry(version: str, kind: str, number: int) -> ExemplarEntry:
    triple = _triple(kind, number)
    return ExemplarEntry(f"{version}/{kind}/{number:02d}", triple.edit, SIZES[version], triple.exemplar)


@cache
def _triple(kind: str, number: int) -> Triple:
    rng = random.Random(f"{VERSION}/{kind}/{number:02d}")
    while True:
        triple = sample_triple(rng, WORDS, Split.HELD_OUT, kind)
        if triple.edit.unseen() == (number % 2 == 0):
            return triple


def rows(version: str = VERSION) -> list[dict[str, Any]]:
    """The columns of `benchmark.rows`, exemplar_before and exemplar_after, and the true description of the edit."""
    return [
        {
            "name": e.name,
            "exemplar_before": Drawn(e.name, lambda e=e: e.exemplar_before, e.size),
            "exemplar_after": Drawn(e.name, lambda e=e: e.exemplar_after, e.size),
            "source": Drawn(e.name, lambda e=e: e.before, e.size),
            "instruction": e.edit.instruction,
            "description": description(e.exemplar),
            "source_caption": phrase(describe(e.edit.before)),
            "target_caption": phrase(describe(e.edit.after)),
            "target": Drawn(e.name, lambda e=e: e.after, e.size),
            "mask": Drawn(e.name, lambda e=e: e.mask, e.size),
            "edit_type": e.edit.kind,
        }
        for e in entries(version)
    ]
