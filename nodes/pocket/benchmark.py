"""The pocket benchmark: held-out edits of every type, each with exact ground truth, and what a result scores on them.

A version fixes the edits for ever: `entry("pocket-64-v1/replace/07")` is the same edit on every machine. Every scene
has a background that training never drew; in half of the edits of a type, those with even numbers, it also shows a
combination of object, colour and background that training never saw. The types take turns, so that the first edits of
the benchmark are as balanced as all of them. ``pocket-128-v1`` has the same edits, drawn at twice the side.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from .captions import Description, Thing, describe, phrase
from .catalogue import BACKGROUNDS, POCKET_64, STYLES, Vocabulary
from .edits import Edit, edit_mask, sample_edit
from .world import Item, Scene, Split, colours_of, render

VERSION = "pocket-64-v1"
SIZES = {VERSION: 64, "pocket-128-v1": 128}  # side of the pictures of each version; the edits are the same
TYPES = ("replace", "add", "remove", "recolour", "background", "style", "accessory")
PER_TYPE = 32
WORDS = POCKET_64
BEST = 60.0  # dB; what equal pictures score, as infinity has no mean


@dataclass(frozen=True)
class Entry:
    """An edit of the benchmark."""

    name: str
    edit: Edit
    size: int  # side of its pictures in pixels

    @property
    def before(self) -> Image.Image:
        """The picture to edit."""
        return render(self.edit.before, self.size)

    @property
    def after(self) -> Image.Image:
        """The ground truth."""
        return render(self.edit.after, self.size)

    @property
    def mask(self) -> Image.Image:
        """White where the edit may change the picture, mode L."""
        return edit_mask(self.edit, self.size)


def entries(version: str = VERSION) -> list[Entry]:
    """All edits, the types taking turns."""
    return [_entry(version, kind, number) for number in range(PER_TYPE) for kind in TYPES]


def version_for(size: int, sizes: Mapping[str, int]) -> str:
    """The version of a benchmark whose pictures have this side, or are the largest.

    Args:
        size: side in pixels.
        sizes: the sides of its versions.
    """
    return next((version for version, side in sizes.items() if side == size), max(sizes, key=lambda v: sizes[v]))


def type_and_number(name: str, version: str, per_type: int) -> tuple[str, int]:
    """What a name such as 'pocket-64-v1/replace/07' says, of a benchmark with so many edits of a type.

    Raises:
        ValueError: there is no such edit.
    """
    found, _, rest = name.partition("/")
    kind, _, number = rest.partition("/")
    if found != version or kind not in TYPES or number not in {f"{n:02d}" for n in range(per_type)}:
        types = ", ".join(TYPES)
        raise ValueError(
            f"'{name}' is no edit of the pocket benchmark; expected '{version}/<type>/<number>' with a type of {types} "
            f"and a number from 00 to {per_type - 1:02d}"
        )
    return kind, int(number)


def entry(name: str) -> Entry:
    """The edit of a name such as 'pocket-64-v1/replace/07'.

    Raises:
        ValueError: there is no such edit.
    """
    version = version_of(name, SIZES)
    return _entry(version, *type_and_number(name, version, PER_TYPE))


def version_of(name: str, sizes: Mapping[str, int]) -> str:
    """The version that an edit's name begins with; the first, if it begins with none."""
    found = name.partition("/")[0]
    return found if found in sizes else next(iter(sizes))


@cache
def _entry(version: str, kind: str, number: int) -> Entry:
    return Entry(f"{version}/{kind}/{number:02d}", _edit(kind, number), SIZES[version])


@cache
def _edit(kind: str, number: int) -> Edit:
    rng = random.Random(f"{VERSION}/{kind}/{number:02d}")
    while True:
        edit = sample_edit(rng, WORDS, Split.HELD_OUT, kind)
        if edit.unseen() == (number % 2 == 0):
            return edit


# --- rows of the data set -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawn:
    """A picture of an entry, drawn when somebody looks at it."""

    where: str
    draw: Callable[[], Image.Image]
    side: int = WORDS.size

    @property
    def size(self) -> tuple[int, int]:
        return self.side, self.side

    def load(self) -> Image.Image:
        return self.draw()


def rows(version: str = VERSION) -> list[dict[str, Any]]:
    """name, source, instruction, source_caption, target_caption, target, mask and edit_type of each edit."""
    return [
        {
            "name": e.name,
            "source": Drawn(e.name, lambda e=e: e.before, e.size),
            "instruction": e.edit.instruction,
            "source_caption": phrase(describe(e.edit.before)),
            "target_caption": phrase(describe(e.edit.after)),
            "target": Drawn(e.name, lambda e=e: e.after, e.size),
            "mask": Drawn(e.name, lambda e=e: e.mask, e.size),
            "edit_type": e.edit.kind,
        }
        for e in entries(version)
    ]


# --- scores ---------------------------------------------------------------------------------------------------------


def edit_scores(picture: Image.Image, name: str, clip: Any) -> dict[str, float]:
    """How well a picture does the edit of a name; resized (bicubic) to the benchmark's size if it has another.

    clip_success    1 where CLIP prefers the caption after the edit to all that differ from it in what was edited,
                    the caption before the edit among them; else 0
    truth_success   1 where the picture is closer to the ground truth than to the source inside the mask, in mean
                    square error; else 0
    psnr_inside     against the ground truth, inside the mask, dB, at most 60
    psnr_outside    the same outside; absent where the mask covers the whole picture

    Args:
        picture: the result.
        name: an edit of this benchmark, or of the exemplar benchmark.
        clip: the judge.

    Raises:
        ValueError: there is no edit of this name.
    """
    found = _entry_of_any(name)
    size = (found.size, found.size)
    picture = picture.convert("RGB")
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    source, truth, inside = found.before, found.after, np.asarray(found.mask) > 0
    to_truth, to_source = (_mean_square(picture, other, inside) for other in (truth, source))
    scores = {
        "clip_success": float(clip_prefers_edit(picture, found.edit, clip)),
        "truth_success": float(to_truth < to_source),
        "psnr_inside": _decibel(to_truth),
    }
    if not inside.all():
        scores["psnr_outside"] = _decibel(_mean_square(picture, truth, ~inside))
    return scores


def _entry_of_any(name: str) -> Entry:
    from . import exemplars  # which builds on this module

    return exemplars.entry(name) if name.partition("/")[0] in exemplars.SIZES else entry(name)


def clip_prefers_edit(picture: Image.Image, edit: Edit, clip: Any) -> bool:
    """Whether CLIP finds the caption after the edit more like the picture than every alternative."""
    from torch.nn.functional import cosine_similarity

    texts = [phrase(description) for description in (describe(edit.after), *alternatives(edit))]
    return int(cosine_similarity(clip.image([picture]), clip.text(texts)).argmax()) == 0


def alternatives(edit: Edit, words: Vocabulary = WORDS) -> list[Description]:
    """What the picture could show instead of the edit: the scene before it, and every other outcome of its type."""
    before, after = describe(edit.before), describe(edit.after)
    others = [before, *_OUTCOMES[edit.kind](edit, after, words)]
    return [d for n, d in enumerate(others) if not d.same_as(after) and not any(d.same_as(o) for o in others[:n])]


def _other_kinds(scene: Scene, item: Item, words: Vocabulary) -> list[Description]:
    taken = {thing.kind for thing in scene.items}
    return [_with(scene, item, kind=kind) for kind in words.kinds if kind not in taken]


def _with(scene: Scene, item: Item, **changes: str | None) -> Description:
    """The description of a scene in which one item were different."""
    described = describe(scene)
    place = next(n for n, other in enumerate(scene.items) if other is item)
    things: list[Thing] = list(described.things)
    things[place] = replace(things[place], **changes)
    return replace(described, things=tuple(things))


def _new(edit: Edit) -> Item:
    """The item that the edit brought in or changed."""
    return next(item for item in edit.after.items if item not in edit.before.items)


def _gone(edit: Edit) -> Item:
    return next(item for item in edit.before.items if item not in edit.after.items)


def _recoloured(edit: Edit, after: Description, words: Vocabulary) -> list[Description]:
    item = _new(edit)
    return [_with(edit.after, item, colour=colour) for colour in (None, *colours_of(item.kind, words))]


def _dressed(edit: Edit, after: Description, words: Vocabulary) -> list[Description]:
    item = _new(edit)
    return [_with(edit.after, item, accessory=worn) for worn in (None, *words.accessories)]


def _elsewhere(edit: Edit, after: Description, words: Vocabulary) -> list[Description]:
    coloured = STYLES[after.style].shows_colour  # else no caption names a backdrop's colour
    return [replace(after, background=b) for b in words.backgrounds if coloured or not BACKGROUNDS[b].colour]


_OUTCOMES: dict[str, Callable[[Edit, Description, Vocabulary], list[Description]]] = {
    "replace": lambda edit, after, words: _other_kinds(edit.after, _new(edit), words),
    "add": lambda edit, after, words: _other_kinds(edit.after, _new(edit), words),
    "remove": lambda edit, after, words: _other_kinds(edit.before, _gone(edit), words),
    "recolour": _recoloured,
    "accessory": _dressed,
    "background": _elsewhere,
    "style": lambda edit, after, words: [describe(replace(edit.after, style=style)) for style in words.styles],
}


def _mean_square(a: Image.Image, b: Image.Image, where: np.ndarray) -> float:
    """Mean square difference over the pixels `where`, of values in [0, 255]."""
    return float(((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2)[where].mean())


def _decibel(mean_square: float) -> float:
    return min(BEST, 10 * float(np.log10(255**2 / max(mean_square, 1e-9))))
