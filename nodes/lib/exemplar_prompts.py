"""What a vision-language model is asked about a pair that shows an edit (ReEdit: Srivastava et al. 2025, section 3.2).

The questions are our own; they ask for what the paper's ask for. The pocket model is trained on exactly these.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

GAP = 10 / 512  # width of the white stripe between the pictures, by their side
MAX_WORDS = 40  # of a caption; text encoders read little more

_PAIR = (
    "You see two images beside each other with a white stripe between them. The right one is an edited version of the "
    "left one. "
)
DESCRIBE = _PAIR + (
    "Explain in broad terms which edits turn the left image into the right one: objects that were added, removed, "
    "replaced, recoloured or moved, a new style, another background. Name only what changed and pass over tiny "
    "differences, but say enough to make the right image again from the left one. Answer in one paragraph of at most "
    "100 words, not as a list."
)
INSTRUCT = _PAIR + (
    "Write the command that you would give an image editor to get from the left image to the right one: a single "
    "imperative sentence of at most 20 words. Answer with the command alone, on one line."
)
CAPTION = (
    "This image is going to be edited. The edit, as somebody described it on other images: {edit}\n"
    "Describe in one line of fewer than 20 words the image that results when this image is edited in the same way. "
    "Describe all of that final image, not just what changes, and leave aside any part of the edit that does not "
    "apply here. Do not mention other images."
)


def side_by_side(before: Image.Image, after: Image.Image, max_side: int = 512) -> Image.Image:
    """The pair as one RGB picture, before on the left, a white stripe between.

    Each picture is stretched to a square; its side is the longest of all four, `max_side` at most (the paper's 512,
    with a stripe of 10 pixels).
    """
    from PIL import Image

    side = min(max_side, max(*before.size, *after.size))
    gap = max(1, round(side * GAP))
    pair = Image.new("RGB", (2 * side + gap, side), "white")
    for picture, left in ((before, 0), (after, side + gap)):
        square = picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
        pair.paste(square, (left, 0))
    return pair


def caption_question(question: str, edit: str) -> str:
    """The question with the edit in its place.

    Raises:
        ValueError: the question has no place for it.
    """
    if "{edit}" not in question:
        raise ValueError("the question has no {edit}, where the description of the edit belongs")
    return question.replace("{edit}", edit.strip())


def shortened(caption: str, max_words: int = MAX_WORDS) -> str:
    """A caption of `max_words` or more, cut after the last sentence that ends within so many words.

    Where none ends there, after that many words (the released code of ReEdit then has nothing left).
    """
    words = caption.split()
    if len(words) < max_words:
        return " ".join(words)
    ends = [n for n, word in enumerate(words[:max_words], 1) if re.search(r"[.!?]['\")\]]*$", word)]
    return " ".join(words[: ends[-1] if ends else max_words])


def last_line(answer: str) -> str:
    """The last line that says something: models like to think aloud before the command they are asked for."""
    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    return lines[-1] if lines else ""
