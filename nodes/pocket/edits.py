"""Edits of the pocket world: the picture before and after, the request between them, and where the pictures differ."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from PIL import Image, ImageChops

from . import instructions as say
from .captions import Thing, describe, with_article
from .catalogue import ACCESSORIES, BACKGROUNDS, KINDS, STYLES, Vocabulary
from .world import (
    Item,
    Mixture,
    Scene,
    Split,
    colours_of,
    held_out,
    opaque_mask,
    sample_item,
    sample_scene,
    touched_mask,
)


@dataclass(frozen=True)
class Edit:
    """A change of one thing in a scene, with the request that asks for it."""

    kind: str
    before: Scene
    after: Scene
    instruction: str

    def unseen(self) -> bool:
        """Whether it shows a combination that training never saw."""
        return any(held_out(item, scene.background) for scene in (self.before, self.after) for item in scene.items)


def edit_mask(edit: Edit, size: int) -> Image.Image:
    """Every pixel in which before and after may differ, mode L, 0 or 255, size × size."""
    if edit.before.style != edit.after.style:
        return Image.new("L", (size, size), 255)
    if edit.before.background != edit.after.background:
        objects = [opaque_mask(scene, size) for scene in (edit.before, edit.after)]
        return ImageChops.invert(ImageChops.darker(*objects))
    changed = [set(a.items) - set(b.items) for a, b in ((edit.before, edit.after), (edit.after, edit.before))]
    masks = [touched_mask(s, size, tuple(c)) for s, c in zip((edit.before, edit.after), changed, strict=True)]
    return ImageChops.lighter(*masks)


def sample_edit(rng: random.Random, words: Vocabulary, split: Split, kind: str | None = None) -> Edit:
    """Draw an edit at random, of one kind if given; training edits show no held-out combination."""
    while True:
        chosen = kind or rng.choice(tuple(EDITS))
        draft = EDITS[chosen](rng, words, split)
        if draft:
            before, after, template, fields = draft
            edit = Edit(chosen, before, after, say.polite(template.format(**fields), rng))
            if split is Split.HELD_OUT or not edit.unseen():
                return edit


# --- the kinds of edits ---------------------------------------------------------------------------------------------

Draft = tuple[Scene, Scene, str, dict[str, str]] | None
RICH = Mixture(empty=0.0, pair=0.3, colour=0.3, accessory=0.3)


def _replace(rng: random.Random, words: Vocabulary, split: Split) -> Draft:
    before = sample_scene(rng, words, split, RICH)
    old = rng.choice(before.items)
    kind = rng.choice([k for k in words.kinds if k not in {item.kind for item in before.items}])
    colour = rng.choice(colours_of(kind, words)) if _coloured(before) and rng.random() < 0.2 else None
    new = replace(old, kind=kind, colour=colour, accessory=old.accessory if KINDS[kind].wears else None)
    fields = {"the": _the(old, before, rng), "a": _new(new, rng)}
    return before, _exchanged(before, old, new), rng.choice(say.REPLACE), fields


def _recolour(rng: random.Random, words: Vocabulary, split: Split) -> Draft:
    before = sample_scene(rng, words, split, RICH)
    old = rng.choice(before.items)
    colours = [c for c in colours_of(old.kind, words) if c not in (None, old.colour)]
    if not colours or not _coloured(before):
        return None
    new = replace(old, colour=rng.choice(colours))
    fields = {"the": _the(old, before, rng), "a": _new(replace(new, accessory=None), rng), "colour": str(new.colour)}
    return before, _exchanged(before, old, new), rng.choice(say.RECOLOUR), fields


def _accessory(rng: random.Random, words: Vocabulary, split: Split) -> Draft:
    before = sample_scene(rng, words, split, RICH)
    old = rng.choice(before.items)
    if not KINDS[old.kind].wears:
        return None
    worn = rng.choice([a for a in (None, *words.accessories) if a != old.accessory])
    others_wear = any(item.accessory == old.accessory for item in before.items if item is not old)
    the_worn = (old.accessory or "") if rng.random() < 0.05 else f"the {old.accessory}"
    fields = {"the": _the(old, before, rng), "the_worn": the_worn}
    if worn:
        fields["worn"] = ACCESSORIES[worn].phrase
    if old.accessory and others_wear:
        templates = [t for t in say.TAKE_OFF if "{the}" in t] if not worn else []
    elif old.accessory:
        templates = [*say.SWAP_WORN, *(t for t in say.PUT_ON if "{the}" in t)] if worn else [*say.TAKE_OFF]
    else:  # in a picture of two, 'add a crown' does not say to whom
        templates = [t for t in say.PUT_ON if "{the}" in t or len(before.items) == 1]
    if not templates:
        return None
    return (before, _exchanged(before, old, replace(old, accessory=worn)), rng.choice(templates), fields)


def _add(rng: random.Random, words: Vocabulary, split: Split) -> Draft:
    empty = rng.random() < 0.25
    count = Mixture(empty=1.0, pair=0.0) if empty else Mixture(empty=0.0, pair=0.0, aside=1.0, accessory=0.3)
    before = sample_scene(rng, words, split, count)
    kind = rng.choice([k for k in words.kinds if k not in {item.kind for item in before.items}])
    left = not empty and before.items[0].x > 0.5
    side = None if empty else 0 if left else 1
    new = sample_item(rng, words, kind, side, _coloured(before), RICH)
    if empty:
        return (before, replace(before, items=(new,)), rng.choice(say.ADD), {"a": _new(new, rng)})
    fields = {"a": _new(new, rng), "the": _the(before.items[0], before, rng)}
    items = (new, *before.items) if left else (*before.items, new)
    templates = say.ADD_LEFT if left else rng.choice((say.ADD, say.ADD_BESIDE))
    return before, replace(before, items=items), rng.choice(templates), fields


def _remove(rng: random.Random, words: Vocabulary, split: Split) -> Draft:
    before = sample_scene(rng, words, split, replace(RICH, pair=0.6))
    old = rng.choice(before.items)
    after = replace(before, items=tuple(item for item in before.items if item is not old))
    return before, after, rng.choice(say.REMOVE), {"the": _the(old, before, rng)}


def _background(rng: random.Random, words: Vocabulary, split: Split) -> Draft:
    before = sample_scene(rng, words, split, replace(RICH, empty=0.04))
    places = [b for b in words.backgrounds if b != before.background and (_coloured(before) or not _plain(b))]
    name = rng.choice(places)
    after = replace(before, background=name, instance=rng.choice(split.value))
    place = BACKGROUNDS[name]
    bare = place.noun.split(" ", 1)[1]
    fields = {"where": rng.choice(place.phrases), "noun": place.noun, "bare": bare}
    fields["colour"] = bare.removesuffix(" background")
    if len(before.items) == 1:
        fields["the"] = _the(before.items[0], before, rng)
    else:
        fields["the"] = rng.choice(("them", "both", "everything")) if before.items else "it"
    extra = {"night": say.NIGHT, "snow": say.WINTER}.get(name, say.TRAVEL)
    extra = say.BACKDROP if place.colour else extra
    return (before, after, rng.choice(extra if rng.random() < 0.3 else say.BACKGROUND), fields)


def _style(rng: random.Random, words: Vocabulary, split: Split) -> Draft:
    before = sample_scene(rng, words, split, replace(RICH, empty=0.04, plain=0.0))
    name = rng.choice([s for s in words.styles if s != before.style and s in say.STYLES])
    return (before, replace(before, style=name), rng.choice(say.STYLES[name]), {"it": rng.choice(say.PICTURE)})


EDITS: dict[str, Callable[[random.Random, Vocabulary, Split], Draft]] = {
    "replace": _replace,
    "add": _add,
    "remove": _remove,
    "recolour": _recolour,
    "background": _background,
    "style": _style,
    "accessory": _accessory,
}


def _exchanged(scene: Scene, old: Item, new: Item) -> Scene:
    return replace(scene, items=tuple(new if item is old else item for item in scene.items))


def _coloured(scene: Scene) -> bool:
    return STYLES[scene.style].shows_colour


def _plain(background: str) -> bool:
    return BACKGROUNDS[background].colour is not None


def _the(item: Item, scene: Scene, rng: random.Random) -> str:
    """A reference to an object that is in the picture: by its name, its colour and name, or a pronoun."""
    thing: Thing = describe(replace(scene, items=(item,))).things[0]
    name = rng.choice(KINDS[thing.kind].names)
    if thing.colour and rng.random() < 0.5:
        name = f"{thing.colour} {name}"
    way = rng.random()
    if len(scene.items) == 1 and way < 0.15:
        return "it"
    return name if way > 0.93 else f"the {name}"


def _new(item: Item, rng: random.Random) -> str:
    """A thing that is not in the picture yet, as a request names it."""
    noun = f"{item.colour or ''} {rng.choice(KINDS[item.kind].names)}"
    return (
        f"{with_article(noun)} wearing {ACCESSORIES[item.accessory].phrase}" if item.accessory else with_article(noun)
    )
