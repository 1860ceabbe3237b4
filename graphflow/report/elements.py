"""Lists that belong together, element by element: what went in, what came out, a row each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from graphflow import units
from graphflow.record import RunRecord
from graphflow.report.pictures import Picture
from graphflow.report.values import MAX_PICTURES, View, number

Cell = Picture | str
FAILED = "failed"


@dataclass(frozen=True)
class Column:
    """A list, or one score of each element: `cells` are as many as the table has rows; `given` if it is an input."""

    name: str
    cells: list[Cell]
    given: bool = False


@dataclass(frozen=True)
class Elements:
    """The table; `names` are the inputs and outputs that stand in it, `more` is how many rows are left out."""

    columns: list[Column]
    inputs: frozenset[str]
    outputs: frozenset[str]
    more: int

    @property
    def count(self) -> int:
        """How many rows there are."""
        return len(self.columns[0].cells)


def elements(record: RunRecord, inputs: Sequence[View], outputs: Sequence[View]) -> Elements | None:
    """The table of a run whose outputs are lists of one length; None where there are no such lists.

    Args:
        record: the run.
        inputs: what it was given, apart from plain values.
        outputs: what it gave.
    """
    failed = {name: frozenset(value.failed) for name, value in record.outputs.items()}
    made = {v.port: v for v in outputs if v.type.startswith("list[") and _items(v)}
    lengths = Counter(_length(v) + len(failed.get(v.port, ())) for v in made.values())
    if not lengths or (count := lengths.most_common(1)[0][0]) < 2:
        return None
    given = {v.port: v for v in inputs if v.type.startswith("list[") and _length(v) == count}
    plain = {n: i.value for n, i in record.inputs.items() if isinstance(i.value, list) and len(i.value) == count}
    made = {n: v for n, v in made.items() if _length(v) + len(failed.get(n, ())) == count}
    shown = min(count, MAX_PICTURES)
    columns = [Column(n, [number(x) for x in values[:shown]], given=True) for n, values in plain.items()]
    for n, i in record.inputs.items():
        if isinstance(i.source, list) and len(i.source) == count:
            columns.append(Column(f"{n} file", [units.printable(name) for name in i.source[:shown]], given=True))
    columns += [replace(c, given=True) for v in given.values() for c in _columns(v, frozenset(), shown)]
    columns += _told_apart({n: _columns(v, failed.get(n, frozenset()), shown) for n, v in made.items()}, made)
    return Elements(columns, frozenset({*given, *plain}), frozenset(made), count - shown)


def _items(view: View) -> list[Any]:
    shapes: dict[str, list[Any]] = {"pictures": view.pictures, "texts": view.texts, "table": view.rows}
    return shapes.get(view.shape, [])


def _length(view: View) -> int:
    return len(_items(view)) + view.more


def _columns(view: View, failed: frozenset[int], rows: int) -> list[Column]:
    """A list's column; of a list of scores one for each."""
    if view.shape != "table":
        return [Column(view.port, _spread(_items(view), failed, rows))]
    return [
        Column(name.replace("_", " "), _spread([row[i] for row in view.rows], failed, rows))
        for i, name in enumerate(view.columns)
    ]  # fmt: skip


def _told_apart(columns: Mapping[str, Sequence[Column]], views: Mapping[str, View]) -> Iterator[Column]:
    """The columns of all outputs; scores of one name have their output's name before it."""
    named = [(n, c.name if views[n].shape == "table" else "", c) for n, found in columns.items() for c in found]
    names = units.headings([(output, score) for output, score, _ in named])
    for name, (_, _, column) in zip(names, named, strict=True):
        yield replace(column, name=name)


def _spread(items: Sequence[Cell], failed: frozenset[int], rows: int) -> list[Cell]:
    """The items at their positions; those of elements that failed are missing from `items`."""
    rest = iter(items)
    return [FAILED if position in failed else next(rest, "") for position in range(rows)]
