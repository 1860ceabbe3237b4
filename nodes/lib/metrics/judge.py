"""A vision-language model as judge: VIEScore (Ku et al. 2024) and the scheme of ImgEdit-Bench (Ye et al. 2025).

The schemes (which pictures the judge sees, which aspects, which scale, how they are combined) are those of the papers;
the wording is our own. Numbers are comparable only between runs of the same judge with the same wording, and not with
published ones. `WORDING` counts the changes of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from PIL import Image

WORDING = 1

Aspects = Mapping[str, str]
"""Key in the answer → what the judge is to look at."""

CONSISTENCY: Aspects = {
    "success": "how fully the edited picture shows what the instruction asks for (0: nothing of it, 10: all of it)",
    "restraint": "how well everything else was left alone (0: another scene, 10: only what the instruction needs)",
}
QUALITY: Aspects = {
    "naturalness": "how natural the scene is: light, shadows, perspective, proportions (0: impossible, 10: natural)",
    "cleanness": "how free it is of artefacts: smears, seams, broken hands, faces, text (0: ruined, 10: none)",
}

_SEAMLESS = "whether the changed part fits in: style, resolution, light, edges"
_REST = "whether details are physically right and everything that was not to change is still the same"
IMGEDIT: dict[str, Aspects] = {
    "add": {"edit": "whether the new object is there, of the right kind, place, number and looks", "look": _SEAMLESS,
            "rest": _REST},
    "adjust": {"edit": "whether the asked attribute, and it alone, has changed to the asked value", "look": _SEAMLESS,
               "rest": _REST},
    "remove": {"edit": "whether the object is gone, wholly, and nothing else with it",
               "look": "whether the place where it was looks natural, without smears and repeated patterns",
               "rest": _REST},
    "replace": {"edit": "whether the old object is gone and the new one is of the right kind and looks",
                "look": _SEAMLESS, "rest": _REST},
    "style": {"edit": "whether the asked style is there, everywhere: colours, strokes, texture, light",
              "look": "whether objects and layout of the original can all be recognised",
              "rest": "whether the rendering is clean: no noise, seams or blur that the style does not ask for"},
    "background": {"edit": "whether the background is the asked one",
                   "look": "whether subject and background fit: edges, light, scale, perspective",
                   "rest": "whether the subject is unchanged"},
    "action": {"edit": "whether the subject does what was asked",
               "look": "whether it is still the same subject: face, clothes, colours",
               "rest": "whether body, scene and light are physically right and the background is unchanged"},
    "extract": {"edit": "whether the asked object, whole, and nothing but it is there",
                "look": "whether its outline is clean", "rest": "whether it looks as it did in the original"},
    "compose": {"edit": "whether every part of the instruction was carried out", "look": _SEAMLESS, "rest": _REST},
}  # fmt: skip


class Judge(Protocol):
    """A vision-language model that answers questions about pictures."""

    name: str

    def ask(
        self, images: Sequence[Image.Image], question: str, *, max_new_tokens: int, seed: int, temperature: float
    ) -> str:
        """The answer to a question about the pictures, which the model sees in this order."""


class AnswerError(ValueError):
    """The judge's answer is not what it was asked for."""


def question(seen: str, aspects: Aspects, smallest: int, largest: int, rule: str = "") -> str:
    """What the judge is asked: what it sees, the aspects, and the one form of answer that counts."""
    lines = [f'- "{key}": {what}' for key, what in aspects.items()]
    form = ", ".join(f'"{key}": <number>' for key in aspects)
    return (
        f"You judge an edit of a picture. {seen}\n"
        f"Give a whole number from {smallest} to {largest} for each of these:\n" + "\n".join(lines) + "\n"
        f"{rule}Be strict: the highest number is for a result without any flaw of that kind.\n"
        f'Answer with one JSON object and nothing else: {{{form}, "reason": "<one short sentence>"}}'
    )


def read_answer(answer: str, aspects: Aspects, smallest: int, largest: int) -> dict[str, float]:
    """The numbers of an answer.

    Text around the object is passed over; everything else must be as asked. Nothing is guessed or mended.

    Raises:
        AnswerError: there is no JSON object, a number is missing, is none, or lies out of range.
    """
    data = _first_object(answer)
    found = {}
    for key in aspects:
        value = data.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            what = f"{key!r} is {value!r}" if key in data else f"it has no {key!r}"
            raise AnswerError(f"{what}, expected a number from {smallest} to {largest}: {_short(answer)}")
        if not smallest <= value <= largest:
            raise AnswerError(f"{key!r} is {value}, expected {smallest} to {largest}: {_short(answer)}")
        found[key] = float(value)
    return found


def ask(
    judge: Judge, images: Sequence[Image.Image], text: str, aspects: Aspects, smallest: int, largest: int,
    *, max_new_tokens: int, max_retries: int, seed: int,
) -> dict[str, float]:  # fmt: skip
    """Ask until an answer can be read. The first attempt takes the likeliest words, later ones are sampled.

    Raises:
        AnswerError: that of the last attempt.
    """
    for attempt in range(max_retries + 1):
        temperature = 0.7 if attempt else 0.0
        answer = judge.ask(
            images, text, max_new_tokens=max_new_tokens, seed=(seed + attempt) % 2**64, temperature=temperature
        )  # fmt: skip
        try:
            return read_answer(answer, aspects, smallest, largest)
        except AnswerError as error:
            last = error
    raise AnswerError(f"the judge gave no answer that counts in {max_retries + 1} attempts; the last: {last}")


def consistency_question(instruction: str) -> str:
    """VIEScore's semantic consistency: the judge sees the original and the edited picture."""
    seen = f"The first picture is the original, the second the edited one. The instruction was: {instruction!r}"
    return question(seen, CONSISTENCY, 0, 10)


def quality_question() -> str:
    """VIEScore's perceptual quality: the judge sees the edited picture alone and no instruction."""
    return question("You see the edited picture only.", QUALITY, 0, 10)


def imgedit_question(instruction: str, edit_type: str) -> str:
    """ImgEdit's three aspects for a type of edit; no aspect may be better than the edit itself."""
    seen = (
        f"The edit is of the type {edit_type!r}. The first picture is the original, the second the edited one. "
        f"The instruction was: {instruction!r}"
    )
    rule = '"look" and "rest" can\'t be higher than "edit". '
    return question(seen, IMGEDIT[edit_type], 1, 5, rule)


def viescore(consistency: Mapping[str, float], quality: Mapping[str, float]) -> dict[str, float]:
    """SC and PQ are the lesser of their aspects, O = √(SC·PQ); each from 0 to 10."""
    sc, pq = min(consistency.values()), min(quality.values())
    return {"viescore": math.sqrt(sc * pq), "viescore_sc": sc, "viescore_pq": pq}


def imgedit(aspects: Mapping[str, float]) -> dict[str, float]:
    """The mean of the three aspects, and each of them; from 1 to 5."""
    edit, look, rest = aspects["edit"], aspects["look"], aspects["rest"]
    return {"imgedit": (edit + look + rest) / 3, "imgedit_1": edit, "imgedit_2": look, "imgedit_3": rest}


def _first_object(answer: str) -> dict[str, Any]:
    start = answer.find("{")
    if start < 0:
        raise AnswerError(f"there is no JSON object in it: {_short(answer)}")
    try:
        data, _ = json.JSONDecoder().raw_decode(answer, start)
    except (ValueError, RecursionError) as error:
        raise AnswerError(f"its JSON is broken ({error}): {_short(answer)}") from error
    return data


def _short(answer: str) -> str:
    text = " ".join(answer.split())
    return repr(text if len(text) <= 200 else text[:200] + "…")
