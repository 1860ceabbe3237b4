"""An edit in one plain wording, as a request and as a description; what the pocket vision-language model learns to say.

Both name the change alone, not the picture that shows it, so that they fit every picture the same edit can be done to.
"""

from dataclasses import replace

from .captions import Thing, describe, with_article
from .catalogue import ACCESSORIES, BACKGROUNDS, KINDS, STYLES
from .edits import Edit
from .world import Item

UNCHANGED = "Everything else stays the same."


def request(edit: Edit) -> str:
    """'replace the cat with a dog'; at most 20 words."""
    return _say(edit, _REQUESTS)


def description(edit: Edit) -> str:
    """'The cat was replaced with a dog. Everything else stays the same.'; at most 100 words."""
    text = _say(edit, _DESCRIPTIONS)
    return f"{text[0].upper()}{text[1:]}. {UNCHANGED}"


_REQUESTS = {
    "replace": "replace {the} with {a}",
    "add": "add {a}",
    "remove": "remove {the}",
    "recolour": "make {the} {colour}",
    "background": "change the background to {place}",
    "style": "turn the picture into {style}",
    "put on": "give {the} {worn}",
    "take off": "take {the_worn} off {the}",
    "swap": "replace {the_worn} with {worn}",
}
_DESCRIPTIONS = {
    "replace": "{the} was replaced with {a}",
    "add": "{a} was added to the picture",
    "remove": "{the} was removed from the picture",
    "recolour": "the colour of {the} was changed to {colour}",
    "background": "the background was changed to {place}",
    "style": "the style was changed, so that the picture is now {style}",
    "put on": "{the} now wears {worn}",
    "take off": "{the} no longer wears {the_worn}",
    "swap": "{the} now wears {worn} instead of {the_worn}",
}


def _say(edit: Edit, templates: dict[str, str]) -> str:
    gone = [item for item in edit.before.items if item not in edit.after.items]
    come = [item for item in edit.after.items if item not in edit.before.items]
    what, fields = edit.kind, {}
    if gone:
        fields["the"] = f"the {KINDS[gone[0].kind].names[0]}"
    if come:
        new = _thing(edit, come[0])
        fields["a"] = with_article(f"{new.colour or ''} {KINDS[new.kind].names[0]}")
        fields["colour"] = str(new.colour)
        if new.accessory and edit.kind == "add":
            fields["a"] += f" wearing {ACCESSORIES[new.accessory].phrase}"
    if what == "accessory":
        old_worn, new_worn = gone[0].accessory, come[0].accessory
        what = "swap" if old_worn and new_worn else "put on" if new_worn else "take off"
        fields["the_worn"] = f"the {old_worn}"
        fields["worn"] = ACCESSORIES[new_worn].phrase if new_worn else ""
    noun = STYLES[edit.after.style].noun
    style = with_article("normal picture" if noun == "picture" else noun)
    fields |= {"place": BACKGROUNDS[edit.after.background].noun, "style": style}
    return templates[what].format(**fields)


def _thing(edit: Edit, item: Item) -> Thing:
    """What a caption would say of an object that the edit brought in."""
    return describe(replace(edit.after, items=(item,))).things[0]
