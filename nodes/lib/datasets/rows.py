"""Rows of a data set, and pictures that are decoded when somebody looks at them."""

from __future__ import annotations

import difflib
import itertools
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from PIL import Image, ImageOps


class Picture(Protocol):
    """A picture of a row. `load` reads it again at every call, so that a thousand of them need no memory."""

    @property
    def where(self) -> str:
        """The file, and the row where that matters, for messages."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright picture, read from the header."""

    def load(self) -> Image.Image:
        """The decoded picture, upright, in the mode in which the file has it.

        Raises:
            ValueError: it can't be read; the message begins with `where`.
        """


Row = dict[str, Any]  # column → str or Picture
_ORIENTATION = 0x0112  # EXIF; from 5 on the camera was held upright


@dataclass(frozen=True)
class FilePicture:
    """A picture that is a file."""

    path: Path
    where: str

    @property
    def size(self) -> tuple[int, int]:
        return size_of(self.path, self.where)

    def load(self) -> Image.Image:
        return decoded(self.path, self.where)


def opened(source: Path | BinaryIO, where: str) -> Image.Image:
    """A picture whose header has been read.

    Raises:
        ValueError: it is no picture, or too large to be one.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(source)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{where}: has too many pixels: {error}") from error
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{where}: is no picture that Pillow can read") from error


def decoded(source: Path | BinaryIO, where: str) -> Image.Image:
    """A picture in memory, its file closed.

    Raises:
        ValueError: it is no picture, is damaged, or too large.
    """
    with opened(source, where) as image:
        try:
            image.load()
        except (OSError, SyntaxError, EOFError) as error:
            raise ValueError(f"{where}: is a damaged or truncated picture: {error}") from error
        return ImageOps.exif_transpose(image).copy()


def size_of(source: Path | BinaryIO, where: str) -> tuple[int, int]:
    """Width and height of the upright picture; its pixels are not decoded.

    Raises:
        ValueError: it is no picture.
    """
    with opened(source, where) as image:
        lies = image.getexif().get(_ORIENTATION, 1) >= 5
        return (image.height, image.width) if lies else image.size


# --- checking and choosing ------------------------------------------------------------------------------------------


def text(value: Any, where: str, column: str, empty: bool = False) -> str:
    """`value`, which must be text, and something unless `empty`.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, str) or not (empty or value.strip()):
        found = "nothing" if value is None else "empty" if value == "" else repr(value)
        raise ValueError(f"{where}: '{column}' is {found}, expected text")
    return value


def choose(
    rows: Sequence[Row], start: int = 0, limit: int | None = None, edit_types: Sequence[str] = (), where: str = ""
) -> list[Row]:
    """The rows of these edit types (all if none is named), from `start` on, at most `limit`.

    Raises:
        ValueError: no row has one of the edit types, or no row is left.
    """
    if edit_types:
        found = dict.fromkeys(row["edit_type"] for row in rows)
        for name in edit_types:
            if name not in found:
                raise ValueError(f"{where}: no edit of type '{name}'; the set has: {listed(found)}{hint(name, found)}")
        rows = [row for row in rows if row["edit_type"] in edit_types]
    chosen = list(rows[start : None if limit is None else start + limit])
    if not chosen:
        raise ValueError(f"{where}: no edit is left of the {len(rows)} found; 'start' is {start}")
    return chosen


def in_turns(rows: Iterable[Row]) -> list[Row]:
    """The rows with their edit types taking turns, each type in its own order; those without a type are one."""
    by_type: dict[str, list[Row]] = {}
    for row in rows:
        by_type.setdefault(row.get("edit_type", ""), []).append(row)
    return [row for turn in itertools.zip_longest(*by_type.values()) for row in turn if row is not None]


def number_names(rows: Iterable[Row]) -> list[Row]:
    """The rows, names that occur again numbered: 'a', 'a-2', 'a-3'."""
    seen: Counter[str] = Counter()
    out = []
    for row in rows:
        name = row["name"]
        seen[name] += 1
        out.append(row if seen[name] == 1 else {**row, "name": f"{name}-{seen[name]}"})
    return out


def hint(name: str, choices: Iterable[str]) -> str:
    """'; did you mean X?', or nothing when no choice is near."""
    near = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def listed(names: Iterable[str], most: int = 12) -> str:
    """The names in a line, the end of a long list left out."""
    names = sorted(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") or "nothing"
