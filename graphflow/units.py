"""Durations, sizes and untrusted text, as people read them; shared by the report and the command line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

# C0 and C1 controls except tab and newline, and the marks that reorder text: a record of unknown origin must not
# move the cursor of a terminal or make one text look like another.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def duration(seconds: float) -> str:
    """``4 ms``, ``0.35 s``, ``12.4 s``, ``2 min 05 s``, ``1 h 02 min``."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(count: int) -> str:
    """``812 B``, ``1.2 KiB``, ``3.4 GiB``."""
    number = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def parse_size(text: str) -> int:
    """Bytes from ``50GiB``, ``1.5 GB``, ``800k`` or ``4096B``; units without an i count in thousands.

    Raises:
        ValueError: it is no size. A number alone is none, lest 24 be 24 bytes where 24GiB was meant.
    """
    if text.strip() == "0":
        return 0
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?)b?|b)\s*", text, re.IGNORECASE)
    if found is None:
        raise ValueError(f"'{text}' is no size; expected a number with a unit, such as 50GiB or 800MB")
    number, unit, binary = found.groups()
    power = " kmgt".index(unit.lower()) if unit else 0
    return int(float(number) * (1024 if binary else 1000) ** power)


def parse_duration(text: str) -> float:
    """Seconds from ``30d``, ``12h``, ``90 min`` or ``45s``.

    Raises:
        ValueError: it is no duration.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|min|m|h|d|w)\s*", text, re.IGNORECASE)
    if found is None:
        raise ValueError(f"'{text}' is no duration; expected a number with s, min, h, d or w, such as 30d")
    seconds = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
    return float(found[1]) * seconds[found[2].lower()]


def plural(count: int, noun: str) -> str:
    """``1 node``, ``3 nodes``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def headings(columns: Sequence[tuple[str, str]]) -> list[str]:
    """A heading for each column of a table, given its output and score; the score is empty where the output is whole.

    Scores of one name are told apart by their outputs: ``clip``, but ``before.clip`` and ``after.clip``.
    """
    count = Counter(score or output for output, score in columns)
    return [f"{output}.{score}" if score and count[score] > 1 else score or output for output, score in columns]


def printable(text: str) -> str:
    """The text without control characters, each shown as U+FFFD; tabs and newlines stay."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
