"""The table of a bench: methods × columns, each cell a mean with its interval, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from graphflow.bench.results import About, Results
from graphflow.bench.spec import MEMORY, SECONDS, Column, Method
from graphflow.bench.statistics import Estimate, difference, estimate, scaled
from graphflow.errors import Mark

MISSING = "not available"
Kind = Literal["method", "baseline", "published"]
_NOWHERE = Mark("<bench>")
_TIME = "computing time of a picture, without loading models"
_PEAK = "of the process, on a GPU of what was allocated there; models included"
_BUILT_IN = {
    SECONDS: Column(SECONDS, _NOWHERE, "time", "s", _TIME, best="lowest"),
    MEMORY: Column(MEMORY, _NOWHERE, "peak memory", "MiB", _PEAK, scale=1 / 2**20, digits=0, best="none"),
}


@dataclass(frozen=True)
class Head:
    """A column as it is shown.

    Attributes:
        best: which values are good; None where neither is.
        scale: what a mean has been multiplied by.
        definition: what exactly was measured, and with which settings.
    """

    key: str
    title: str
    unit: str
    best: Literal["highest", "lowest"] | None
    digits: int
    scale: float
    definition: str

    @property
    def text(self) -> str:
        """``background PSNR, dB ↑``."""
        arrow = {"highest": " ↑", "lowest": " ↓", None: ""}[self.best]
        return f"{self.title}, {self.unit}{arrow}" if self.unit else f"{self.title}{arrow}"


@dataclass(frozen=True)
class Cell:
    """What stands in the table: a number, or nothing, with the reason.

    Attributes:
        found: already multiplied by the column's scale.
        best: the best of the methods, or one that a paired bootstrap does not tell from it.
        reason: why there is no number; empty where none belongs, as the time of a data set's own pictures.
    """

    found: Estimate | None = None
    best: bool = False
    reason: str = ""

    def text(self, digits: int) -> str:
        """``31.2 ± 1.1``: the mean, and half of the interval's width."""
        if self.found is None:
            return MISSING if self.reason else "–"
        mean = f"{self.found.mean:.{digits}f}"
        if self.found.low is None or self.found.high is None:
            return mean
        return f"{mean} ± {(self.found.high - self.found.low) / 2:.{digits}f}"


@dataclass(frozen=True)
class Row:
    """A method, a baseline, or what somebody has published; `made` of all pictures could be made."""

    name: str
    title: str
    kind: Kind
    cells: tuple[Cell, ...]
    made: int | None = None
    source: str = ""


@dataclass(frozen=True)
class Table:
    """The whole table; `count` is the number of pictures."""

    title: str
    heads: tuple[Head, ...]
    rows: tuple[Row, ...]
    count: int
    notes: tuple[str, ...] = field(default=())

    @property
    def incomplete(self) -> bool:
        """Whether a method lacks pictures, so that a column says how many it has."""
        return any(row.made is not None and row.made < self.count for row in self.rows)


def table_of(results: Results) -> Table:
    """The table of what was measured."""
    keys = _keys(results)
    values = {key: {m: results.values(m, key) for m in results.measured} for key in keys}
    found = {key: {m: _estimate(results, m, key) for m in results.measured} for key in keys}
    columns = {
        key: results.spec.columns.get(key) or _BUILT_IN.get(key) or Column(key, results.spec.mark) for key in keys
    }
    heads = tuple(_head(results, columns[key], found[key]) for key in keys)
    methods = results.spec.methods
    best = {h.key: _best(h, methods, found[h.key], values[h.key]) for h in heads}
    rows = [_row(results, method, heads, found, best) for method in methods.values()]
    for entry in results.spec.published:
        cells = tuple(Cell(Estimate(entry.values[k], None, None, 0) if k in entry.values else None) for k in keys)
        rows.append(Row(entry.name, entry.title, "published", cells, source=entry.source))
    return Table(results.spec.title, heads, tuple(rows), results.count, tuple(_notes(results, rows)))


def _keys(results: Results) -> list[str]:
    """The columns: those that the file names, else all; computing time stands last, and memory if any is known."""
    found = [key for columns in results.measured.values() for key in columns if not key.endswith(".")]
    keys = list(results.spec.columns) or list(dict.fromkeys(found))
    return [*keys, SECONDS, *([MEMORY] if results.memory else [])]


def _estimate(results: Results, method: str, key: str) -> Estimate | None:
    if key == MEMORY:
        return estimate([results.memory[method]] if method in results.memory else [])
    if key == SECONDS:
        return estimate([s for s in results.seconds.get(method, []) if s is not None])
    found = results.measured[method].get(key)
    return estimate(found.present) if found is not None else None


def _head(results: Results, column: Column, found: Mapping[str, Estimate | None]) -> Head:
    about = results.about.get(column.key, About(column.score))
    best = column.best or {True: "highest", False: "lowest", None: "none"}[about.higher_is_better]
    title = column.title or about.title.replace("_", " ")
    unit = column.unit if column.unit is not None else about.unit
    largest = max((abs(e.mean * column.scale) for e in found.values() if e is not None), default=0.0)
    digits = (
        column.digits
        if column.digits is not None
        else next((d for d, at in enumerate((100, 10, 1)) if largest >= at), 3)
    )
    setting = ", ".join(f"{k} {v}" for k, v in about.setting.items())
    definition = "; ".join(part for part in (column.doc or about.definition, setting, about.source) if part)
    chosen: Literal["highest", "lowest"] | None = (
        None if best == "none" else "highest" if best == "highest" else "lowest"
    )
    return Head(column.key, title, unit, chosen, digits, column.scale, definition)


def _best(
    head: Head, methods: Mapping[str, Method], found: Mapping[str, Estimate | None],
    values: Mapping[str, Sequence[float | None]],
) -> set[str]:  # fmt: skip
    """The method with the best mean, and those that can't be told from it; a baseline is the best of nothing."""
    means = {m: e.mean for m, e in found.items() if e is not None and not methods[m].is_baseline}
    if head.best is None or len(means) < 2:
        return set()
    largest = (head.best == "highest") == (head.scale >= 0)
    first = (max if largest else min)(means, key=lambda m: means[m])
    return {m for m in means if means[m] == means[first] or _alike(values[m], values[first])}


def _alike(a: Sequence[float | None], b: Sequence[float | None]) -> bool:
    """Whether the interval of the paired difference holds zero."""
    found = difference(a, b) if len(a) == len(b) else None
    return found is not None and found.low is not None and found.high is not None and found.low <= 0 <= found.high


def _row(
    results: Results, method: Method, heads: Sequence[Head], found: Mapping[str, Mapping[str, Estimate | None]],
    best: Mapping[str, set[str]],
) -> Row:  # fmt: skip
    cells = []
    for head in heads:
        value = found[head.key].get(method.name)
        if value is None:
            cells.append(Cell(reason=_reason(results, method, head.key)))
        else:
            cells.append(Cell(scaled(value, head.scale), method.name in best[head.key]))
    made = None if method.is_baseline else sum(s is not None for s in results.seconds.get(method.name, []))
    return Row(method.name, method.title, "baseline" if method.is_baseline else "method", tuple(cells), made)


def _reason(results: Results, method: Method, key: str) -> str:
    """Why a cell has no number; empty where none belongs."""
    if key in _BUILT_IN and method.is_baseline:
        return ""
    if key == MEMORY:
        return "its pictures come from the store"
    metric = key.partition(".")[0]
    for name in (method.name, metric):
        if name in results.missing:
            return results.missing[name]
    columns = results.measured.get(method.name, {})
    for entry in (columns.get(key), columns.get(f"{metric}.")):
        if entry is not None and entry.reasons:
            return max(entry.reasons, key=lambda reason: entry.reasons[reason])
    return "nothing was measured"


def _notes(results: Results, rows: Sequence[Row]) -> list[str]:
    """What a reader has to know beside the numbers."""
    out = []
    reasons: dict[str, list[str]] = {}
    for row in rows:
        for cell in row.cells if row.kind != "published" else ():
            if cell.reason and row.title not in reasons.setdefault(cell.reason, []):
                reasons[cell.reason].append(row.title)
    out += [f"{MISSING} ({', '.join(titles)}): {reason}" for reason, titles in reasons.items()]
    out += [
        f"{r.title}: {results.count - r.made} of {results.count} pictures failed; its means are over the others"
        for r in rows if r.made is not None and 0 < r.made < results.count
    ]  # fmt: skip
    out += [f"{r.title}: published, {r.source}; not measured here and not compared" for r in rows if r.source]
    return out
