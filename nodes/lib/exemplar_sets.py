"""Exemplar sets in ReEdit's folder layout: which pairs show the same edit, and what a folder is called.

`datasets.reedit` reads what `write_edit` writes.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from .datasets.reedit import TYPES
from .datasets.rows import hint, listed

# What other sets call the types. ReEdit knows no removal; an object gives way to what was behind it.
ALSO = {
    "add": "add",
    "replace": "sor",
    "remove": "sor",
    "recolour": "poc",
    "accessory": "poc",
    "background": "bg",
    "style": "style",
}


def prefix_of(edit_type: str) -> str:
    """What names of edits of this type begin with.

    Raises:
        ValueError: ReEdit has no such type.
    """
    known = {**ALSO, **{name: prefix for prefix, name in TYPES.items()}}
    if edit_type not in known:
        raise ValueError(f"'{edit_type}' is no type of edit; the types are {listed(known)}{hint(edit_type, known)}")
    return known[edit_type]


def folder_name(name: str, edit_type: str) -> str:
    """'<prefix>_<name>', of letters, digits, dots and hyphens."""
    prefix, rest = prefix_of(edit_type), re.sub(r"[^\w.-]+", "-", name).strip("-.") or "edit"
    return rest if rest.startswith(f"{prefix}_") else f"{prefix}_{rest}"


def same_edits(instructions: Sequence[str], edit_types: Sequence[str]) -> list[list[int]]:
    """Positions of the pairs that show one edit, for each edit that at least two show, in order.

    Instructions are one if they differ in case, spaces and the full stop at the end only.
    """
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, (instruction, edit_type) in enumerate(zip(instructions, edit_types, strict=True)):
        groups[" ".join(instruction.casefold().split()).rstrip(" .!"), edit_type].append(number)
    return [group for group in groups.values() if len(group) > 1]


def combinations(groups: Iterable[Sequence[int]], per_edit: int) -> list[tuple[int, int, str]]:
    """Exemplar i, picture j and '<i><j>' counted from 1 as ReEdit does, for at most `per_edit` combinations an edit.

    Neighbours come first, so that few combinations show many pairs: 12, 23, 31, then 13, 21, 32, …
    """
    found = []
    for group in groups:
        size = len(group)
        turns = [(i, (i + step) % size) for step in range(1, size) for i in range(size)]
        between = "" if size < 10 else "x"
        found += [(group[i], group[j], f"{i + 1}{between}{j + 1}") for i, j in turns[:per_edit]]
    return found


def write_edit(folder: Path, pictures: Mapping[str, Image.Image], instruction: str) -> None:
    """Write one edit: its pictures by place (0_0, 0_1, 1_0, 1_1) as PNG, and ins.txt."""
    folder.mkdir()
    for place, picture in pictures.items():
        picture.convert("RGB").save(folder / f"{place}.png")
    (folder / "ins.txt").write_text(instruction.strip() + "\n", encoding="utf-8")


def good_enough(scores: Sequence[Mapping[str, Any]], least: Mapping[str, float | None]) -> dict[str, list[bool]]:
    """For each threshold that is given, whether each element reaches it.

    Raises:
        ValueError: an element lacks a score that is asked for.
    """
    found: dict[str, list[bool]] = {}
    for name, threshold in least.items():
        if threshold is None:
            continue
        if lacking := [number for number, row in enumerate(scores) if row.get(name) is None]:
            have = listed(key for key, value in scores[lacking[0]].items() if value is not None)
            raise ValueError(f"scores[{lacking[0]}] has no {name}, which a threshold asks for; it has: {have}")
        found[name] = [row[name] >= threshold for row in scores]
    return found
