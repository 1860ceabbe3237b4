"""A bench file as data: what stands in it, with positions, before any graph or kind is looked up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from graphflow.errors import Mark, UsageError, did_you_mean

IMAGE = "image"  # under `in:` of a metric: the picture that a method has made
SECONDS, MEMORY = "seconds", "memory"  # columns that need no metric


@dataclass(frozen=True)
class Use:
    """A node or a graph that a bench file names, and what it is given.

    Attributes:
        uses: a kind, a graph file or a shipped graph.
        inputs: port → the data set's column that feeds it; None feeds nothing.
        parameters: constants, with their marks.
        inside: parameters of nodes inside a graph, by ``node.parameter``, with their marks.
        models: preset that replaces the one it would have.
    """

    uses: str
    mark: Mark
    inputs: Mapping[str, str | None] = field(default_factory=dict)
    input_marks: Mapping[str, Mark] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    parameter_marks: Mapping[str, Mark] = field(default_factory=dict)
    inside: Mapping[str, Any] = field(default_factory=dict)
    inside_marks: Mapping[str, Mark] = field(default_factory=dict)
    models: str | None = None
    models_mark: Mark | None = None


@dataclass(frozen=True)
class Method:
    """What is compared: a graph that makes pictures, or a column of the data set taken as its pictures.

    Attributes:
        column: for a baseline such as the source itself; `use` is None then.
        output: the graph's output that is the picture.
        curve: methods of one curve are one method at several strengths; plots join them by a line.
    """

    name: str
    title: str
    mark: Mark
    use: Use | None = None
    column: str | None = None
    output: str = IMAGE
    curve: str | None = None

    @property
    def is_baseline(self) -> bool:
        """Whether its pictures come with the data set: it is shown, but not the best of anything."""
        return self.use is None


@dataclass(frozen=True)
class Metric:
    """A node that scores a picture, or, with `each`, a node that compares sets of what `each` makes of a picture."""

    name: str
    use: Use
    each: Use | None = None


@dataclass(frozen=True)
class Column:
    """A column of the table: a score of a metric. What is None comes from the metric itself.

    Attributes:
        key: ``metric.score``.
        scale: what values are multiplied by before they are shown.
        digits: decimals.
        best: more than one of them makes no winner: `none` marks no value.
    """

    key: str
    mark: Mark
    title: str | None = None
    unit: str | None = None
    doc: str | None = None
    scale: float = 1.0
    digits: int | None = None
    best: Literal["highest", "lowest", "none"] | None = None

    @property
    def metric(self) -> str:
        """The metric that gives it."""
        return self.key.partition(".")[0]

    @property
    def score(self) -> str:
        """The score's name in that metric."""
        return self.key.partition(".")[2]


@dataclass(frozen=True)
class Published:
    """A row of numbers that somebody has published: shown beside the measured ones, and never compared with them."""

    name: str
    title: str
    source: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Plots:
    """Which columns the plots show."""

    preservation: str | None = None
    strength: str | None = None
    types: tuple[str, ...] = ()


@dataclass(frozen=True)
class BenchSpec:
    """A bench file.

    Attributes:
        folder: where relative paths begin.
        models: preset of methods and metrics; graphs have their own without it.
        metric_models: preset of the metrics, where it is another one.
        columns: what the table shows; empty for all scores.
        text: the file as it was read.
    """

    name: str
    title: str
    folder: Path
    mark: Mark
    data: Use
    methods: Mapping[str, Method]
    metrics: Mapping[str, Metric]
    columns: Mapping[str, Column]
    plots: Plots
    published: tuple[Published, ...]
    models: str | None
    models_mark: Mark | None
    metric_models: str | None
    metric_models_mark: Mark | None
    text: str


def shipped_benches() -> dict[str, Path]:
    """Name → file of the bench files inside the package."""
    import graphflow.graphs

    folder = Path(graphflow.graphs.__path__[0]) / "bench"
    return {p.stem: p for p in sorted(folder.glob("*.yaml"))}


def find_bench(name: str) -> Path:
    """The bench file that the user names: a path, or the name of a shipped one.

    Raises:
        UsageError: there is neither.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path
    shipped = shipped_benches()
    if name in shipped:
        return shipped[name]
    hint = did_you_mean(name, shipped) or f"shipped: {', '.join(shipped)}"
    raise UsageError(f"no bench '{name}': neither a file nor a shipped bench; {hint}")
