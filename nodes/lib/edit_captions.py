"""Captions of a picture before and after an edit, written by a language model.

The text side of Pix2Pix-OnTheFly (Santos et al. 2024, arXiv 2403.08004, section 3.2): a model that knows the picture
only by its caption writes several captions before and after the edit; the difference of their embeddings is the edit.
The authors did not publish their prompt and examples; those here are our own.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from .caption_examples import EXAMPLES
from .llm import LLM

SEPARATOR = "###"
BEFORE, AFTER = "Before transformation:", "After transformation:"
TOKENS_PER_CAPTION = 48
PAIR_TOKENS = 96

_BEFORE = re.compile(r"^\W*before (?:the )?transformation\b.*$", re.IGNORECASE | re.MULTILINE)
_AFTER = re.compile(r"^\W*after (?:the )?transformation\b.*$", re.IGNORECASE | re.MULTILINE)
_NEXT = re.compile(rf"^\W*(?:transformation[ \t]*:|before (?:the )?transformation\b)|^{SEPARATOR}[ \t]*$", re.I | re.M)
_LINE = re.compile(r"^[ \t*_>-]*caption[ \t]*\d*[ \t*_]*[:.)][ \t*_]*(.*)$", re.IGNORECASE | re.MULTILINE)
_PAIR = re.compile(r"\bbefore\s*:\s*(.+?)\s*\bafter\s*:\s*(.+)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Request:
    """What to ask for.

    Attributes:
        caption: describes the picture before the edit.
        instruction: the edit.
        num_captions: captions that are wanted on each side.
        num_shots: examples in a few-shot prompt.
        seed: of the sampling and of the choice of examples.
        temperature: of the sampling.
        top_p: of the sampling.
    """

    caption: str
    instruction: str
    num_captions: int = 3
    num_shots: int = 3
    seed: int = 0
    temperature: float = 1.0
    top_p: float = 0.95


@dataclass(frozen=True)
class EditCaptions:
    """Distinct captions before and after an edit; no caption is on both sides."""

    before: list[str]
    after: list[str]

    def enough(self, wanted: int) -> bool:
        """Whether there are `wanted` captions on both sides."""
        return min(len(self.before), len(self.after)) >= wanted

    def first(self, wanted: int) -> EditCaptions:
        """The first `wanted` captions of each side."""
        return EditCaptions(self.before[:wanted], self.after[:wanted])

    def pooled(self, more: EditCaptions) -> EditCaptions:
        """These captions and `more`, each once; one that is on both sides, in different answers, counts as after."""
        after = distinct(self.after + more.after)
        return EditCaptions(distinct(self.before + more.before, but=after), after)


def write_captions(llm: LLM, request: Request, attempts: Iterable[int]) -> EditCaptions:
    """Ask the model until it has given enough captions on both sides, then settle for what all attempts gave together.

    Args:
        llm: its attribute `template` chooses the form of the prompt.
        request: what to ask for.
        attempts: a number for each attempt, from 0; the sampling of an attempt has the seed `request.seed` plus it.

    Returns:
        One to ``request.num_captions`` captions on each side.

    Raises:
        ValueError: caption or instruction is empty, or no attempt gave a usable caption after the edit.
    """
    if not request.instruction.strip():
        raise ValueError("the instruction is empty; expected an edit such as 'turn the cat into a dog'")
    if not request.caption.strip():
        raise ValueError("the caption is empty; expected a description of the picture")
    caption, instruction = " ".join(request.caption.split()), " ".join(request.instruction.split())
    request = replace(request, caption=caption, instruction=instruction)
    pairs = llm.template == "edit_pair"
    pool, answer = EditCaptions([], []), ""
    for attempt in attempts:
        got, answer = (_ask_for_pairs if pairs else _ask_for_lists)(llm, request, attempt)
        pool = pool.pooled(got)
        # A list must be complete by itself, for its captions vary one picture; pairs are independent of each other.
        accepted = pool if pairs else got
        if accepted.enough(request.num_captions):
            return accepted.first(request.num_captions)
        if request.temperature == 0:
            break  # the next answer would be the same
    if not pool.after:
        raise ValueError(
            f"the language model gave no caption that tells what '{instruction}' makes of '{caption}'; "
            f"its last answer was {answer.strip()[:200]!r}"
        )
    return EditCaptions(pool.before or [caption], pool.after).first(request.num_captions)


def _ask_for_lists(llm: LLM, request: Request, attempt: int) -> tuple[EditCaptions, str]:
    prompt, opening = few_shot_prompt(request, llm.continues)
    answer = llm.complete(
        prompt + opening,
        seed=(request.seed + attempt) % 2**64,
        max_new_tokens=TOKENS_PER_CAPTION * (2 * request.num_captions + 1),
        temperature=request.temperature,
        top_p=request.top_p,
        stop=SEPARATOR if llm.continues else None,
    )[0]
    return parse_lists(opening + answer, request.caption), answer


def _ask_for_pairs(llm: LLM, request: Request, attempt: int) -> tuple[EditCaptions, str]:
    # The likeliest pair comes first, unless a seed asks for another; samples add other wordings.
    sampled = attempt or request.seed
    answers = llm.complete(
        f"caption: {request.caption} instruction: {request.instruction}",
        request.num_captions if sampled else 1,
        seed=(request.seed + attempt) % 2**64,
        max_new_tokens=PAIR_TOKENS,
        temperature=request.temperature if sampled else 0.0,
        top_p=request.top_p,
    )
    found = [p for answer in answers if (p := parse_pair(answer)) and not reversed_pair(*p, request)]
    before = distinct(b for b, _ in found)
    return EditCaptions(before, distinct((a for _, a in found), but=[request.caption, *before])), answers[-1]


def number(n: int) -> str:
    """A number in words and digits: ``three (3)``."""
    import inflect

    return f"{inflect.engine().number_to_words(n)} ({n})"


def few_shot_prompt(request: Request, continues: bool) -> tuple[str, str]:
    """The prompt, and the beginning of the answer, which holds the caption of the picture.

    A model that continues text goes on behind the last ``Caption i:`` of the beginning. A model that answers is asked
    for the whole list, and the beginning is empty.
    """
    n, shots = request.num_captions, random.Random(request.seed).sample(EXAMPLES, request.num_shots)
    shown = min([n, *(len(shot.before) for shot in shots)])  # the examples may have fewer captions than are wanted
    more = "" if shown == n else f" For the last one there are {number(n)} of each."
    parts = [
        f"Below are transformations of pictures. For each there are {number(shown)} captions of the picture before the "
        f"transformation and {number(shown)} captions of the same picture after it.{more} The captions after it say "
        "the same as those before, except for what the transformation changes."
    ]
    for shot in shots:
        before, after = _lines(shot.before[:n]), _lines(shot.after[:n])
        parts.append(f"Transformation: {shot.instruction}\n{BEFORE}\n{before}\n{AFTER}\n{after}\n\n{SEPARATOR}")
    given = f"{BEFORE}\nCaption 1: {request.caption}\n"
    parts.append(f"Transformation: {request.instruction}\n")
    if continues:
        return "\n\n".join(parts), given + ("Caption 2:" if n > 1 else f"{AFTER}\nCaption 1:")
    parts[-1] += given
    parts.append(
        f"Write the {number(n)} captions before and the {number(n)} captions after this last transformation. Answer "
        f"only with the headings '{BEFORE}' and '{AFTER}' and, under each, lines that begin with 'Caption 1:', "
        "'Caption 2:' and so on."
    )
    return "\n\n".join(parts), ""


def _lines(captions: Iterable[str]) -> str:
    return "\n".join(f"Caption {i}: {caption}" for i, caption in enumerate(captions, 1))


def parse_lists(text: str, caption: str) -> EditCaptions:
    """The captions in a model's answer; `caption`, which was given, always counts as the first one before the edit.

    Only lines that begin with ``Caption`` count. What follows the first pair of lists, such as an invented next
    transformation, is ignored. An answer without the second heading has no captions after the edit.
    """
    heading = _BEFORE.search(text)
    if heading and not _AFTER.search(text[: heading.start()]) and not _LINE.search(text[: heading.start()]):
        text = text[heading.end() :]
    before, after, *_ = [*_AFTER.split(_NEXT.split(text, maxsplit=1)[0]), ""]
    kept = distinct([caption, *_LINE.findall(before)])
    return EditCaptions(kept, distinct(_LINE.findall(after), but=kept))


def parse_pair(text: str) -> tuple[str, str] | None:
    """The two captions of ``before: … after: …``; None when there are none or they are the same."""
    found = _PAIR.search(text)
    if not found:
        return None
    before, after = tidy(found[1]), tidy(found[2])
    return (before, after) if before and after and before.lower() != after.lower() else None


def reversed_pair(before: str, after: str, request: Request) -> bool:
    """Whether a pair describes the edit backwards: it is the caption after the edit that looks like the picture's.

    Words of the picture's caption speak for a caption, words that only the instruction has speak against it. Small
    models sometimes turn an edit round, and one such pair cancels a good one in the direction.
    """
    known = set(request.caption.lower().split())
    new = set(request.instruction.lower().split()) - known

    def likeness(caption: str) -> int:
        words = set(caption.lower().split())
        return len(words & known) - len(words & new)

    return likeness(after) > likeness(before)


def tidy(caption: str) -> str:
    """A caption without quotes, marks of emphasis and doubled blanks; empty if it has no letter or digit."""
    text = " ".join(caption.split()).strip(" \t*_\"'“”‘’`")
    return text if any(c.isalnum() for c in text) else ""


def distinct(captions: Iterable[str], but: Iterable[str] = ()) -> list[str]:
    """The captions in order, tidied, each once whatever its capitals, without those of `but` and empty ones."""
    seen = {tidy(caption).lower() for caption in but} | {""}
    out = []
    for caption in map(tidy, captions):
        if caption.lower() not in seen:
            seen.add(caption.lower())
            out.append(caption)
    return out
