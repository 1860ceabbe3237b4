"""Captions of the pocket world: from a scene to English in many wordings, and back."""

import random
import re
from dataclasses import dataclass

from .catalogue import ACCESSORIES, BACKGROUNDS, COLOURS, KINDS, STYLES
from .world import Scene

EMPTY = ("an empty scene", "an empty place", "nothing")
WEARS = ("wearing", "with", "that wears")
JOINS = ("and", "next to", "beside")


@dataclass(frozen=True)
class Thing:
    """What a caption says of an object."""

    kind: str
    colour: str | None = None
    accessory: str | None = None


@dataclass(frozen=True)
class Description:
    """What a caption says, whatever its words. `background` is None where the caption leaves it open."""

    things: tuple[Thing, ...]
    background: str | None
    style: str = "picture"

    def same_as(self, other: "Description | None") -> bool:
        """Equal but for the order of the things."""
        if other is None:
            return False
        mine, theirs = (sorted(map(repr, d.things)) for d in (self, other))
        return mine == theirs and (self.background, self.style) == (other.background, other.style)


@dataclass(frozen=True)
class Wording:
    """Which of the equivalent phrases to use. The default is the plainest wording of all."""

    style: int = 0
    name: int = 0
    wears: int = 0
    join: int = 0
    background: int = 0
    empty: int = 0


PLAIN = Wording()


def any_wording(rng: random.Random) -> Wording:
    """A wording at random; every phrase is as likely as its alternatives."""
    return Wording(*(rng.randrange(12) for _ in range(6)))


def describe(scene: Scene) -> Description:
    """What a caption of the scene says, from left to right. A picture without colours shows none."""
    coloured = STYLES[scene.style].shows_colour
    things = (Thing(item.kind, item.colour if coloured else None, item.accessory) for item in scene.items)
    return Description(tuple(things), scene.background, scene.style)


def caption(scene: Scene, rng: random.Random | None = None) -> str:
    """A caption in a wording drawn from `rng`, or in the plain wording: 'a cat on the beach'."""
    return phrase(describe(scene), any_wording(rng) if rng else PLAIN)


def phrase(description: Description, wording: Wording = PLAIN) -> str:
    """The description in English."""
    nouns = [_thing(thing, wording) for thing in description.things]
    subject = f" {_pick(JOINS, wording.join)} ".join(nouns) if nouns else _pick(EMPTY, wording.empty)
    style = STYLES[description.style]
    ways = [(prefix, "") for prefix in style.prefixes] + [("", f" {suffix}") for suffix in style.suffixes if suffix]
    prefix, suffix = _pick(ways, wording.style)
    place = description.background
    where = f" {_pick(BACKGROUNDS[place].phrases, wording.background)}" if place else ""
    return f"{prefix}{subject}{where}{suffix}"


def _thing(thing: Thing, wording: Wording) -> str:
    noun = with_article(f"{thing.colour or ''} {_pick(KINDS[thing.kind].names, wording.name)}")
    return f"{noun} {_pick(WEARS, wording.wears)} {ACCESSORIES[thing.accessory].phrase}" if thing.accessory else noun


def with_article(noun: str) -> str:
    """'apple' → 'an apple'."""
    noun = noun.strip()
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _pick(choices, number: int):
    return choices[number % len(choices)]


# --- reading --------------------------------------------------------------------------------------------------------


def _any_of(words) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


_KIND_OF = {name: kind for kind, thing in KINDS.items() for name in thing.names}
_PLACE_OF = {words: name for name, place in BACKGROUNDS.items() for words in place.phrases}
_WORN = {accessory.phrase: name for name, accessory in ACCESSORIES.items()}
_PREFIX_OF = {prefix.strip(): name for name, style in STYLES.items() for prefix in style.prefixes if prefix}
_SUFFIX_OF = {suffix: name for name, style in STYLES.items() for suffix in style.suffixes if suffix}
_CAPTION = re.compile(
    rf"(?:(?P<prefix>{_any_of(_PREFIX_OF)}) )?(?P<subject>.+?)"
    rf"(?: (?P<place>{_any_of(_PLACE_OF)}))?(?: (?P<suffix>{_any_of(_SUFFIX_OF)}))?"
)
_THING = re.compile(
    rf"an? (?:(?P<colour>{_any_of(COLOURS)}) )?(?P<kind>{_any_of(_KIND_OF)})"
    rf"(?: (?:{_any_of(WEARS)}) (?P<worn>{_any_of(_WORN)}))?"
)


def read(text: str) -> Description | None:
    """What a caption says; None if it is not a caption of the pocket world."""
    found = _CAPTION.fullmatch(re.sub(r"\s+", " ", text.lower()).strip().rstrip("."))
    if not found:
        return None
    style = _PREFIX_OF.get(found["prefix"]) or _SUFFIX_OF.get(found["suffix"]) or "picture"
    things = []
    for noun in () if found["subject"] in EMPTY else re.split(rf" (?:{_any_of(JOINS)}) ", found["subject"]):
        thing = _THING.fullmatch(noun)
        if not thing:
            return None
        things.append(Thing(_KIND_OF[thing["kind"]], thing["colour"], _WORN.get(thing["worn"])))
    return Description(tuple(things), _PLACE_OF.get(found["place"]), style)
