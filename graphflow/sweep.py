"""Sweeps: the product of values for parameters and inputs, every combination one run, on one store."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from graphflow.errors import UsageError
from graphflow.record import RunRecord
from graphflow.spec import plain
from graphflow.units import headings
from graphflow.yamlfile import read_text, scalar


@dataclass(frozen=True)
class Axis:
    """What is swept: a parameter (``node.parameter``) or an input of the graph, and its values."""

    target: str
    values: tuple[Any, ...]

    @property
    def is_input(self) -> bool:
        """Whether it is an input of the graph."""
        return "." not in self.target


@dataclass(frozen=True)
class Point:
    """One combination: a value for each axis."""

    values: dict[str, Any]

    @property
    def label(self) -> str:
        """``guidance_scale=1.5 seed=0``: parameters without their node."""
        return " ".join(f"{target.rpartition('.')[2]}={shown(value)}" for target, value in self.values.items())

    @property
    def settings(self) -> dict[str, Any]:
        """The parameters."""
        return {t: v for t, v in self.values.items() if "." in t}

    @property
    def inputs(self) -> dict[str, Any]:
        """The inputs."""
        return {t: v for t, v in self.values.items() if "." not in t}


@dataclass
class Row:
    """What came of a combination."""

    point: Point
    status: str
    seconds: float
    results: dict[str, Any] = field(default_factory=dict)


def parse_axis(text: str) -> Axis:
    """Read ``node.parameter=a,b,c`` or ``input=[a, b]``.

    Raises:
        UsageError: there is no target or no value, or a value stands twice.
    """
    target, equals, listed = text.partition("=")
    if not equals or not target or not listed:
        raise UsageError(f"--sweep {text}: expected NODE.PARAM=A,B,C or INPUT=A,B,C")
    if listed.startswith("["):
        values = plain(read_text(listed, f"--sweep {target}"))
    else:
        parts = [part.strip() for part in listed.split(",")]
        values = [] if "" in parts else [scalar(part) for part in parts]
    if not isinstance(values, list) or not values:
        raise UsageError(f"--sweep {text}: expected values between the commas")
    for value in values:
        if [(type(v), v) for v in values].count((type(value), value)) > 1:
            raise UsageError(f"--sweep {text}: {shown(value)} stands twice")
    return Axis(target, tuple(values))


def product(axes: Sequence[Axis]) -> list[Point]:
    """Every combination; the last axis changes fastest.

    Raises:
        UsageError: two axes have one target.
    """
    targets = [axis.target for axis in axes]
    for target in targets:
        if targets.count(target) > 1:
            raise UsageError(f"--sweep {target} stands twice")
    return [Point(dict(zip(targets, values, strict=True))) for values in itertools.product(*(a.values for a in axes))]


def columns_of(axes: Sequence[Axis]) -> int:
    """Pictures in a row of the sheet: the values of the last axis, unless there is but one long axis."""
    last = len(axes[-1].values)
    return last if len(axes) > 1 or last <= 6 else 6


def results_of(record: RunRecord, load: Any) -> dict[str, Any]:
    """What of a run fits into a table: numbers, short texts and scores among its outputs."""
    columns: dict[tuple[str, str], Any] = {}
    for name, entry in record.outputs.items():
        if entry.type == "Scores":
            columns |= {(name, score): value for score, value in load(name).items()}
        elif entry.type in ("Text", "int", "float", "bool"):
            columns[name, ""] = load(name)
    return dict(zip(headings(list(columns)), columns.values(), strict=True))


def as_csv(axes: Sequence[Axis], rows: Sequence[Row]) -> str:
    """The table as CSV, a line a combination."""
    names = _result_names(rows)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    header = [*(a.target for a in axes), "status", "seconds"]
    writer.writerow([*header, *_unlike(header, names)])
    for row in rows:
        cells = [row.results.get(name, "") for name in names]
        writer.writerow([*row.point.values.values(), row.status, f"{row.seconds:.2f}", *cells])
    return stream.getvalue()


def as_table(axes: Sequence[Axis], rows: Sequence[Row]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Header and rows for people: what is the same in all rows is left out, numbers have four digits."""
    names = _result_names(rows)
    names = [n for n in names if len({shown(row.results.get(n, "")) for row in rows}) > 1]
    targets = [axis.target.rpartition(".")[2] for axis in axes]
    if len(set(targets)) < len(targets):
        targets = [axis.target for axis in axes]
    body = [
        (*map(shown, row.point.values.values()), row.status, f"{row.seconds:.2f}",
         *(shown(row.results.get(name, "")) for name in names))
        for row in rows
    ]  # fmt: skip
    header = [*targets, "status", "seconds"]
    return [*header, *_unlike(header, names)], body


def _result_names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row.results))


def _unlike(header: Sequence[str], names: Sequence[str]) -> list[str]:
    """Headings of results; an output that is called like another column is told apart from it."""
    return [f"outputs.{name}" if name in header else name for name in names]


def shown(value: Any) -> str:
    """A value in few characters."""
    if value is None:
        return "not available"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)
