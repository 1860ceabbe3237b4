"""What a run has measured: a number, or a reason for its absence, for each method, score and picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graphflow.bench.compiled import Compiled
from graphflow.bench.names import column_of, how_of, scores_of
from graphflow.bench.spec import SECONDS, BenchSpec
from graphflow.errors import NodeError
from graphflow.run import Run

SETTING = ("backbone", "weights", "input_range", "resize", "region", "reduction", "scale", "compat")
_DEFAULTS = {"none", "1", "", "whole", "[0, 1]"}


@dataclass
class Measured:
    """A score of one method.

    Attributes:
        values: for each picture, None where there is none; a set metric has one value for all of them.
        whole: whether it belongs to the whole set.
        reasons: why numbers are missing → how many.
    """

    values: list[float | None]
    whole: bool = False
    reasons: dict[str, int] = field(default_factory=dict)

    @property
    def present(self) -> list[float]:
        """The numbers that there are."""
        return [v for v in self.values if v is not None]


@dataclass
class About:
    """What a metric says of a score: the row of its table `how`, as far as there is one."""

    title: str
    unit: str = ""
    higher_is_better: bool | None = None
    definition: str = ""
    source: str = ""
    setting: dict[str, str] = field(default_factory=dict)


@dataclass
class Results:
    """Everything that a run of a bench has measured.

    Attributes:
        count: pictures in the data set.
        texts: columns of text, such as name, instruction and edit_type.
        measured: method → ``metric.score`` → what was measured.
        seconds: method → computing time of each picture; None where it failed.
        memory: method → peak in bytes, of those that this run has computed.
        about: ``metric.score`` → what it is.
        missing: method or metric → why it was not measured at all.
        failures: instance → message.
    """

    spec: BenchSpec
    count: int
    texts: dict[str, list[str]]
    measured: dict[str, dict[str, Measured]]
    seconds: dict[str, list[float | None]]
    about: dict[str, About]
    missing: Mapping[str, str]
    failures: Mapping[str, str]
    device: str
    memory: Mapping[str, int] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """What the pictures are called."""
        return self.texts.get("name") or [str(i) for i in range(self.count)]

    @property
    def types(self) -> list[str]:
        """The edit type of each picture; empty if the data set has none."""
        return self.texts.get("edit_type", [])

    def values(self, method: str, column: str) -> list[float | None]:
        """A method's numbers in a column, one a picture; none where nothing was measured picture by picture."""
        if column == SECONDS:
            return self.seconds.get(method, [])
        found = self.measured.get(method, {}).get(column)
        return [] if found is None or found.whole else found.values


def collect(spec: BenchSpec, compiled: Compiled, run: Run, memory: Mapping[str, int] | None = None) -> Results:
    """Read from a finished run what it has measured, and the peaks of memory that were watched meanwhile."""
    texts = {n: list(run[column_of(n)]) for n, port in compiled.columns.items() if port.describe() == "list[Text]"}
    count = _count(run, compiled)
    out = Results(
        spec, count, texts, {}, {}, {}, compiled.missing, run.failures,
        f"{run.runner.device} {run.runner.dtype}", memory or {},
    )  # fmt: skip
    for method in compiled.methods.values():
        out.measured[method.name] = {}
        for metric in compiled.metrics:
            _collect_metric(out, run, method.name, metric, metric in compiled.sets)
        if not method.is_baseline:
            out.seconds[method.name] = _seconds(run, method.name, count)
    return out


def _count(run: Run, compiled: Compiled) -> int:
    known, graph = run.runner.known, run.runner.graph
    return max(
        len(known.stored(graph.output_source(graph.outputs[column_of(n)], known.length)).items or ())
        for n in compiled.columns
    )


def _collect_metric(out: Results, run: Run, method: str, metric: str, whole: bool) -> None:
    output = scores_of(method, metric)
    rows: dict[int, Mapping[str, float | None]] = {}
    failed = ""
    try:
        rows = {0: run[output]} if whole else dict(run.elements(output))
    except (NodeError, KeyError):
        failed = _why_not(run, method, metric)
    columns = out.measured[method]
    for position, scores in rows.items():
        for score, value in scores.items():
            entry = columns.setdefault(f"{metric}.{score}", Measured([None] * (1 if whole else out.count), whole))
            entry.values[position] = value
    if failed:
        columns[f"{metric}."] = Measured([], whole, {failed: 1})
    if rows:
        _collect_how(out, run, method, metric, rows)


def _why_not(run: Run, method: str, metric: str) -> str:
    """Why a metric has given nothing for a method."""
    for prefix in (scores_of(method, metric), f"{method}/"):
        for settled in run.runner.settled.values():
            if settled.node.name.startswith(prefix) and settled.status in ("failed", "skipped"):
                return settled.reason
    return "it was not computed"


def _collect_how(
    out: Results, run: Run, method: str, metric: str, rows: Mapping[int, Mapping[str, float | None]]
) -> None:
    """What the metric says of its scores, and of those that are missing."""
    output = how_of(method, metric)
    if output not in run.runner.outputs:
        for scores in rows.values():
            for score in scores:
                out.about.setdefault(f"{metric}.{score}", About(score))
        return
    whole = (
        out.measured[method][f"{metric}.{next(iter(next(iter(rows.values()))))}"].whole if any(rows.values()) else False
    )
    lacking = any(value is None for scores in rows.values() for value in scores.values())
    tables = [(0, run[output])] if whole else run.elements(output)
    for _, table in tables:
        for row in table:
            key = f"{metric}.{row['score']}"
            out.about.setdefault(key, _about(row))
            if row.get("missing"):
                reasons = out.measured[method][key].reasons
                reasons[row["missing"]] = reasons.get(row["missing"], 0) + 1
        if not lacking:
            return


def _about(row: Mapping[str, Any]) -> About:
    setting = {k: str(row[k]) for k in SETTING if k in row and str(row[k]) not in _DEFAULTS}
    return About(
        str(row.get("title") or row["score"]), str(row.get("unit", "")), row.get("higher_is_better"),
        str(row.get("definition", "")), str(row.get("source", "")), setting,
    )  # fmt: skip


def _seconds(run: Run, method: str, count: int) -> list[float | None]:
    """Computing time of each picture: of cached nodes that of the run that computed them."""
    out: list[float | None] = [0.0] * count
    for settled in run.runner.settled.values():
        if not settled.node.name.startswith(f"{method}/edit/") or not settled.index:
            continue
        position = settled.index[0]
        before = out[position]
        done = settled.status in ("ran", "cached")
        out[position] = before + settled.seconds if done and before is not None else None
    return out
