"""How people ask for an edit: templates for each kind of edit, and the manners around them.

Fields: {the} the thing as the picture has it, or a pronoun; {a} the new thing with its article; {worn} what is put on,
{the_worn} what is taken off; {colour}; {where} a phrase such as 'on the beach'; {noun} and {bare} the place with and
without its article; {it} the picture.
"""

import random
import re

REPLACE = (
    *("turn {the} into {a}", "turn {the} into {a}", "replace {the} with {a}", "replace {the} by {a}"),
    *("change {the} to {a}", "change {the} into {a}", "swap {the} for {a}", "swap {the} with {a}", "make {the} {a}"),
    *("make {the} into {a}", "{a} instead of {the}", "use {a} instead of {the}", "transform {the} into {a}"),
    *("{the} should be {a}", "convert {the} to {a}", "convert {the} into {a}", "substitute {a} for {the}"),
    *("i want {a} instead of {the}", "put {a} in place of {the}", "{the} becomes {a}", "let {the} be {a}"),
    *("edit {the} to be {a}", "exchange {the} for {a}", "switch {the} to {a}", "show {a} instead of {the}"),
)
ADD = (
    *("add {a}", "add {a} to the picture", "add {a} to the image", "put {a} in the picture", "insert {a}"),
    *("include {a}", "there should be {a} too", "i want {a} as well", "let there be {a}", "add {a} to the scene"),
    *("draw {a} too", "also show {a}", "place {a} in the scene", "add in {a}"),
)
ADD_BESIDE = (
    *("add {a} next to {the}", "put {a} next to {the}", "place {a} beside {the}", "put {a} beside {the}"),
    *("add {a} to the right of {the}", "add {a} on the right", "put {a} on the right", "place {a} right of {the}"),
    *("{the} should have {a} beside it", "add {a} near {the}", "give {the} company: {a}", "add {a} by {the}"),
)
ADD_LEFT = (
    *("add {a} to the left of {the}", "add {a} on the left", "put {a} on the left", "place {a} left of {the}"),
    *("put {a} to the left of {the}", "insert {a} left of {the}"),
)
REMOVE = (
    *("remove {the}", "remove {the}", "delete {the}", "erase {the}", "get rid of {the}", "take away {the}"),
    *("take {the} out", "take {the} out of the picture", "without {the}", "make {the} disappear", "cut out {the}"),
    *("hide {the}", "remove {the} from the picture", "remove {the} from the image", "clear {the} away"),
)
RECOLOUR = (
    *("make {the} {colour}", "make {the} {colour}", "paint {the} {colour}", "turn {the} {colour}"),
    *("change the colour of {the} to {colour}", "change the color of {the} to {colour}", "{the} should be {colour}"),
    *("colour {the} {colour}", "color {the} {colour}", "recolour {the} to {colour}", "recolor {the} to {colour}"),
    *("dye {the} {colour}", "change {the} to {colour}", "make {the} {a}", "turn {the} into {a}", "i want {a}"),
    *("make {the} look {colour}", "{the} in {colour}", "tint {the} {colour}", "give {the} a {colour} colour"),
)
BACKGROUND = (
    *("put {the} {where}", "put {the} {where}", "place {the} {where}", "show {the} {where}", "make it {where}"),
    *("change the background to {noun}", "change the background to {bare}", "replace the background with {noun}"),
    *("make the background {noun}", "use {noun} as the background", "with {noun} in the background"),
    *("set it {where}", "{the} {where}", "have {the} {where}", "what if it were {where}", "move {the}: {where}"),
    *("swap the background for {noun}", "turn the background into {noun}", "{where} instead"),
    *("the background should be {noun}", "background: {bare}", "change the setting to {noun}"),
)
TRAVEL = ("move {the} to {noun}", "take {the} to {noun}", "bring {the} to {noun}", "send {the} to {noun}")
NIGHT = ("make it night", "turn day into night", "change it to night", "make it night time", "make it dark outside")
WINTER = ("make it snow", "make it winter", "cover the ground with snow", "let it snow")
BACKDROP = (
    *("make the background {colour}", "change the background colour to {colour}", "turn the background {colour}"),
    *("give it {noun}", "change the background color to {colour}", "paint the background {colour}"),
    *("use a plain {colour} background", "change the background to {colour}"),
)
STYLES = {
    "sketch": (
        *("make {it} a pencil sketch", "turn {it} into a pencil sketch", "turn {it} into a sketch", "sketch {it}"),
        *("draw {it} as a pencil sketch", "convert {it} to a sketch", "as a pencil sketch", "make {it} a sketch"),
        *("in the style of a pencil sketch", "make {it} look like a pencil sketch", "change {it} to a pencil sketch"),
        *("make {it} a pencil drawing", "turn {it} into a pencil drawing", "convert {it} to a pencil sketch"),
        *("redraw {it} in pencil", "change the style to a pencil sketch", "change the style to pencil sketch"),
    ),
    "sepia": (
        *("make {it} sepia", "turn {it} sepia", "convert {it} to sepia", "as a sepia photo", "in sepia"),
        *("give {it} a sepia look", "apply a sepia filter", "turn {it} into a sepia photo", "make {it} a sepia photo"),
        *("change {it} to sepia", "make {it} look like a sepia photo", "add a sepia tone", "change the style to sepia"),
    ),
    "picture": (
        *("turn {it} into a normal picture", "turn {it} back into a picture", "make {it} a normal photo"),
        *("make {it} a photo", "turn {it} into a photo", "convert {it} to a normal picture", "in full colour"),
        *("make {it} a colour picture", "bring the colours back", "change {it} to a normal photo"),
    ),
}
PUT_ON = (
    *("give {the} {worn}", "give {the} {worn}", "put {worn} on {the}", "add {worn} to {the}", "make {the} wear {worn}"),
    *("let {the} wear {worn}", "{the} should wear {worn}", "{the} with {worn}", "{the} wearing {worn}"),
    *("dress {the} with {worn}", "have {the} wear {worn}", "place {worn} on {the}", "add {worn}"),
    *("put {worn} on the head of {the}", "i want {the} to wear {worn}"),
)
TAKE_OFF = (
    *("remove {the_worn}", "take off {the_worn}", "take {the_worn} off {the}", "remove {the_worn} from {the}"),
    *("without {the_worn}", "take away {the_worn}", "delete {the_worn}", "get rid of {the_worn}", "erase {the_worn}"),
)
SWAP_WORN = (
    *("replace {the_worn} with {worn}", "swap {the_worn} for {worn}", "change {the_worn} to {worn}"),
    *("turn {the_worn} into {worn}", "{worn} instead of {the_worn}", "change {the_worn} into {worn}"),
)
PICTURE = ("it", "it", "it", "this", "the picture", "the image", "the photo", "this picture", "the scene")

# What a polite request may begin with: other templates are no imperatives.
IMPERATIVES = re.compile(
    r"(?:add|apply|bring|change|clear|color|colour|convert|cover|cut|delete|draw|dress|dye|edit|erase"
    r"|exchange|get|give|have|hide|include|insert|let|make|move|paint|place|put|recolor|recolour|redraw"
    r"|remove|replace|send|set|show|sketch|substitute|swap|switch|take|tint|transform|turn|use"
    r")\b"
)


def polite(text: str, rng: random.Random) -> str:
    """The same request with other manners: 'please', a question, a capital, a full stop."""
    end = rng.choices(("", ".", "!"), (0.65, 0.28, 0.07))[0]
    if IMPERATIVES.match(text):
        manner = rng.random()
        if manner < 0.07:
            text = f"please {text}"
        elif manner < 0.12:
            text, end = f"{text}, please", ""
        elif manner < 0.19:
            text, end = (f"{rng.choice(('can you', 'could you', 'would you please'))} {text}", "?")
        elif manner < 0.23:
            text = f"{rng.choice(('now', 'i would like you to', 'i want you to'))} {text}"
    if rng.random() < 0.4:
        text = text[0].upper() + text[1:]
    return text + end
