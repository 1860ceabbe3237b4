"""Instances of a mapped node told as one: ``each[0]/caption`` to ``each[29]/caption`` are ``each[0…29]/caption``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_INDEX = re.compile(r"(?<=\w)\[(\d+|…)\]")
MOST_RANGES = 3  # beyond that only the first and the last position are told


def node_of(name: str) -> str:
    """The node of an instance: ``each/caption`` for ``each[3]/caption``."""
    return _INDEX.sub("", name)


def position(name: str) -> str:
    """Where an instance stands along its axes: ``3``, ``1, 0``; empty for a node that is not mapped."""
    return ", ".join(_INDEX.findall(name))


def without_positions(text: str) -> str:
    """A text about an instance, as it holds for all: ``after each[…]/caption``."""
    return _INDEX.sub("[…]", text)


def grouped(names: Iterable[str]) -> dict[str, list[str]]:
    """Node → its instances, in order of first appearance."""
    out: dict[str, list[str]] = {}
    for name in names:
        out.setdefault(node_of(name), []).append(name)
    return out


def title(names: Sequence[str]) -> str:
    """One name for instances of one node: ``each[0…29]/caption``; along several axes each axis by itself."""
    if len(names) == 1:
        return names[0]
    axes = zip(*(_INDEX.findall(name) for name in names), strict=False)
    positions = iter([_positions(axis) for axis in axes])
    return _INDEX.sub(lambda _: f"[{next(positions, '…')}]", names[0])


def titles(names: Iterable[str]) -> list[str]:
    """Names as few as possible, in order of first appearance."""
    return [title(found) for found in grouped(names).values()]


def one_text(texts: Sequence[str]) -> str | None:
    """What several instances say: the text, if need be as it holds for all; None when they say different things."""
    if len(set(texts)) == 1:
        return texts[0]
    general = {without_positions(text) for text in texts}
    return general.pop() if len(general) == 1 else None


def _positions(found: Iterable[str]) -> str:
    """``0…29``, ``0, 3, 7…9``; ``…`` where a list is not known yet."""
    if "…" in (texts := set(found)):
        return "…"
    ranges: list[list[int]] = []
    for position in sorted(map(int, texts)):
        if ranges and position == ranges[-1][-1] + 1:
            ranges[-1][1:] = [position]
        else:
            ranges.append([position])
    if len(ranges) > MOST_RANGES:
        ranges = [[ranges[0][0], ranges[-1][-1]]]
    return ", ".join("…".join(map(str, r)) if r[-1] - r[0] != 1 else f"{r[0]}, {r[1]}" for r in ranges)
