"""How each port type looks in the report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from graphflow import units
from graphflow.record import ValueRecord
from graphflow.report.memory import Memory
from graphflow.report.pictures import Picture, array_of, latents_picture, picture

MAX_PICTURES, MAX_TEXTS, MAX_ROWS, MAX_COLUMNS, MAX_TEXT = 24, 40, 60, 10, 4000
THUMBNAIL = 512
FILM = 8  # frames shown of a trajectory
_SHOWN = {  # instances of a mapped node whose values are shown, by type; of others only the first
    **dict.fromkeys(("Image", "Mask"), MAX_PICTURES), **dict.fromkeys(("Text", "int", "float", "bool"), MAX_TEXTS),
    **dict.fromkeys(("Scores", "Table"), MAX_ROWS), "Latents": 12,
}  # fmt: skip
_NORM_LIMIT = 50_000_000  # elements; the norm of more than that is not worth the seconds

_PLAIN = frozenset({"Text", "int", "float", "bool", "Scores", "Table"})  # drawn at once

T = TypeVar("T")
Load = Callable[[ValueRecord], Any]


@dataclass
class View:
    """A value as the template draws it: `shape` says which of the fields count.

    Attributes:
        shape: pictures, text, texts, scores, table, facts or lost.
        more: how many elements are not shown.
    """

    port: str
    type: str
    shape: str
    pictures: list[Picture] = field(default_factory=list)
    text: str = ""
    texts: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    more: int = 0


class Viewer:
    """Draws values, or remembers what has been drawn of them.

    Args:
        load: the value behind an entry of a record; None, or an error, when it is gone.
        memory: keeps drawings from run to run.
    """

    def __init__(self, load: Load, memory: Memory | None = None) -> None:
        self.load, self.memory = load, memory

    def view(self, port: str, value: ValueRecord) -> View:
        """The value behind a record; one that can't be read any more says so instead of failing the page."""
        name = value.type.removesuffix("?")
        if name.startswith(("Weights[", "list[Weights[", "Features", "list[Features")):
            facts = [("size", units.size(value.bytes)), ("digest", value.digest[:12])]
            return View(port, value.type, "facts", facts=facts)
        if name.removeprefix("list[").removesuffix("]") in _PLAIN:
            return self._draw(port, value)
        found = self._remembered(f"view {name}", value.digest, _view_of, lambda: self._draw(port, value))
        return replace(found, port=port, type=value.type)

    def picture(self, value: ValueRecord, limit: int) -> Picture | None:
        """A picture whose longer side has at most `limit` pixels; None when the value is no picture, or gone."""

        def drawn() -> Picture | None:
            from PIL.Image import Image

            try:
                found = self.load(value)
            except Exception:  # it is shown among the values, with the reason
                return None
            return picture(found, limit) if isinstance(found, Image) else None

        return self._remembered(f"picture {limit}", value.digest, lambda found: Picture(**found), drawn)

    def merged(self, port: str, values: Sequence[tuple[str, ValueRecord]]) -> View:
        """What the instances of a mapped node gave, in one view: pictures, texts and scores side by side, of tensors
        the first few.

        Args:
            port: the output.
            values: position and entry of each instance that has a result.
        """
        base = values[0][1].type.removesuffix("?").removeprefix("list[").removesuffix("]")
        views = [(at, self.view(port, value)) for at, value in values[: _SHOWN.get(base, 1)]]
        found = [(at, one) for at, one in views if one.shape != "lost"]
        if not found:
            return replace(views[0][1], type=f"{values[0][1].type} ×{len(values)}")
        first = found[0][1]
        out = View(port, f"{first.type} ×{len(values)}", first.shape, facts=first.facts, more=len(values) - len(found))
        for at, one in found:
            out.pictures += [replace(p, caption=f"[{at}] {p.caption}".strip()) for p in one.pictures]
        if first.shape in ("text", "texts", "scores", "table"):
            rows = [{"element": at, **row} for at, one in found for row in _rows_of(one)]
            hidden = out.more
            _fill_table(out, rows)
            out.more = max(out.more, hidden)
        return out

    def _draw(self, port: str, value: ValueRecord) -> View:
        try:
            found = self.load(value)
            if found is not None:
                return draw(port, value.type, found)
        except Exception as error:  # a value that can't be read or drawn says so; the page tells of the others
            return View(port, value.type, "lost", text=units.printable(f"can't be shown: {error}"))
        return View(port, value.type, "lost", text="none" if value.type.endswith("?") else "no longer in the store")

    def _remembered(self, what: str, digest: str, read: Callable[[Any], T], drawn: Callable[[], T]) -> T:
        if self.memory is None or not digest:
            return drawn()
        with suppress(TypeError, KeyError, ValueError):  # of another version
            if (found := self.memory.get(what, digest)) is not None:
                return read(found)
        began = time.perf_counter()
        made: Any = drawn()
        if made is not None and getattr(made, "shape", "") != "lost":
            self.memory.put(what, digest, asdict(made), time.perf_counter() - began)
        return made  # type: ignore[no-any-return]


def _view_of(found: dict[str, Any]) -> View:
    """A view from JSON."""
    facts = [(name, text) for name, text in found["facts"]]
    return View(**{**found, "pictures": [Picture(**p) for p in found["pictures"]], "facts": facts})


def _rows_of(found: View) -> list[dict[str, str]]:
    """The rows of a view in a table of several."""
    if found.shape == "scores":
        return [{row[0]: row[1] for row in found.rows}]
    if found.shape == "table":
        return [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    return [{found.port: text} for text in found.texts or [found.text]]


def draw(port: str, type_name: str, value: Any) -> View:
    """A view of a value of a port type, given by its name in graphs."""
    base = type_name.removesuffix("?")
    is_list = base.startswith("list[")
    items: Sequence[Any] = value if is_list else [value]  # of a long list only what is shown is read
    base = base[5:-1] if is_list else base
    out = View(port, type_name, "facts")
    if base in ("Image", "Mask"):
        out.shape, out.more = "pictures", max(0, len(items) - MAX_PICTURES)
        out.pictures = [picture(i, THUMBNAIL) for i in items[:MAX_PICTURES]]
    elif base in ("Text", "int", "float", "bool"):
        texts = [_short(i if isinstance(i, str) else json.dumps(i)) for i in items[:MAX_TEXTS]]
        out.shape, out.more = ("texts", max(0, len(items) - MAX_TEXTS)) if is_list else ("text", 0)
        out.text, out.texts = ("", texts) if is_list else (texts[0], [])
    elif base == "Scores" and not is_list:
        out.shape, out.rows = "scores", [[str(k), number(v)] for k, v in value.items()]
    elif base in ("Scores", "Table"):
        _fill_table(out, items if base == "Scores" else [row for item in items for row in item])
    else:
        _fill_tensor(out, base, items)
    return out


def number(value: Any) -> str:
    """A cell: numbers with four significant digits, everything else as text."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if value is None:
        return "not available"
    return _short(value if isinstance(value, str) else json.dumps(value, default=str))


def _short(text: str) -> str:
    text = units.printable(text)
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + f" … ({len(text) - MAX_TEXT} characters more)"


def _fill_table(out: View, rows: Sequence[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(key for row in rows[:MAX_ROWS] for key in row))[:MAX_COLUMNS]
    out.shape, out.columns, out.more = "table", columns, max(0, len(rows) - MAX_ROWS)
    out.rows = [[number(row[c]) if c in row else "" for c in columns] for row in rows[:MAX_ROWS]]


def _fill_tensor(out: View, base: str, items: Sequence[Any]) -> None:
    """Shape, dtype and norm; latents and trajectories also as false colours."""
    if not items:
        out.facts = [("elements", "0")]
        return
    first = items[0]
    tensor = next((getattr(first, n) for n in ("latents", "embeds") if hasattr(first, n)), first)
    if not hasattr(tensor, "shape"):
        out.facts = [("value", type(first).__name__)]
        return
    if len(items) > 1:
        out.facts.append(("elements", str(len(items))))
    out.facts += [("shape", " × ".join(map(str, tensor.shape)) or "scalar"), ("dtype", _dtype(tensor)), *_norm(tensor)]
    if base == "Latents":
        out.pictures = [p for i in items[:MAX_PICTURES] if (p := latents_picture(i)) is not None]
    elif base == "Trajectory":
        out.pictures = _film(first)


def _dtype(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _norm(tensor: Any) -> list[tuple[str, str]]:
    import numpy as np

    count = int(np.prod(tensor.shape))
    if count > _NORM_LIMIT:
        return []
    values = array_of(tensor).astype(np.float64)
    norm = float(np.sqrt(np.sum(values * values)))
    return [("norm", f"{norm:.4g}")]


def _film(trajectory: Any) -> list[Picture]:
    """Evenly spaced levels of a trajectory, from clean to noise."""
    count = len(trajectory.timesteps)
    wanted = range(count) if count <= FILM else [round(i * (count - 1) / (FILM - 1)) for i in range(FILM)]
    frames = []
    for index in wanted:
        step = int(trajectory.timesteps[index])
        frame = latents_picture(trajectory.latents[index], "clean" if step < 0 else f"t = {step}")
        if frame is not None:
            frames.append(frame)
    return frames
