"""Reading a bench file: its structure, with every problem at once. Kinds and graphs are looked up in `compiled`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from graphflow.bench.spec import BenchSpec, Column, Method, Metric, Plots, Published, Use
from graphflow.errors import LONGEST_NAME, Diagnostic, InvalidError, Mark, did_you_mean, shown
from graphflow.migrate import version_problem
from graphflow.spec import kind_of, plain
from graphflow.yamlfile import YamlList, YamlMap, mark_of, read_file

KEY = "graphflow-bench"
SECTIONS = (
    KEY, "title", "models", "metric-models", "data", "methods", "metrics", "columns", "plots", "reference"
)  # fmt: skip
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_COLUMN = re.compile(rf"({_NAME.pattern})\.([A-Za-z_][A-Za-z0-9_]*)")
_RESERVED = frozenset({"data", "inputs", "models", "outputs"})
T = TypeVar("T")


def load_bench(path: Path) -> BenchSpec:
    """Read a bench file.

    Raises:
        InvalidError: with every problem of the file's structure.
    """
    data = read_file(path)
    return _Reader(path).bench(data)


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path, self.top = path, Mark(str(path))
        self.problems: list[Diagnostic] = []

    def bench(self, data: Any) -> BenchSpec:
        if not isinstance(data, YamlMap):
            raise InvalidError([Diagnostic(self.top, "GF160", f"a bench file is a mapping, found {kind_of(data)}")])
        if KEY not in data:
            self.problem(self.top, "GF011", "has no format version", f"begin the file with '{KEY}: 1'")
        elif problem := version_problem(KEY, data[KEY], str(self.path)):
            self.problem(mark_of(data, KEY, self.top), "GF011", *problem)
        self.unknown(data, SECTIONS, "a bench file")
        methods = self.section(data, "methods", self.method)
        metrics = self.section(data, "metrics", self.metric)
        for name, found in (("methods", methods), ("metrics", metrics)):
            if not found and not self.problems:
                self.problem(mark_of(data, name, self.top), "GF160", f"has no {name}")
        for name in methods.keys() & metrics.keys():
            mark = data["metrics"].key_marks[name]
            self.problem(
                mark, "GF162", f"metric '{name}' has the name of a method, and '--set {name}…' could mean both"
            )
        columns = self.section(data, "columns", self.column, self.is_column)
        published = self.section(data, "reference", self.published)
        plots = self.plots(data)
        use = self.use(data.get("data"), mark_of(data, "data", self.top), "'data:'", ("uses", "with", "set", "models"))
        models = [self.text(data, key, self.top) for key in ("models", "metric-models")]
        title = self.text(data, "title", self.top)
        self.known_metrics(metrics, columns, published, plots, data)
        if self.problems or use is None:
            raise InvalidError(self.problems)
        return BenchSpec(
            self.path.stem, title or self.path.stem, self.path.parent, self.top, use, methods, metrics, columns,
            plots[0], tuple(published.values()), models[0], mark_of(data, "models", self.top), models[1],
            mark_of(data, "metric-models", self.top), self.path.read_text(encoding="utf-8-sig"),
        )  # fmt: skip

    # --- sections -------------------------------------------------------------------------------------------------

    def section(
        self, data: YamlMap, key: str, read: Callable[[str, Any, Mark], T | None],
        is_name: Callable[[str, Mark], bool] | None = None,
    ) -> dict[str, T]:  # fmt: skip
        """The entries of a section that maps names to something."""
        found = data.get(key)
        if found is None:
            return {}
        if not isinstance(found, YamlMap):
            self.problem(mark_of(data, key, self.top), "GF160", f"'{key}:' is a mapping, found {kind_of(found)}")
            return {}
        out = {}
        for name, value in found.items():
            mark = found.key_marks[name]
            if (is_name or self.is_name)(name, mark) and (entry := read(name, value, mark)) is not None:
                out[name] = entry
        return out

    def is_name(self, name: str, mark: Mark) -> bool:
        if name in _RESERVED or "__" in name:
            message = f"the name {shown(name)} is reserved: it may hold no '__' and be none of data, inputs, models"
            self.problem(mark, "GF162", message)
        elif not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
            message = f"{shown(name)} is no name: letters, digits and '_' only, at most {LONGEST_NAME}"
            self.problem(mark, "GF162", message, "'title:' takes any text")
        else:
            return True
        return False

    def is_column(self, name: str, mark: Mark) -> bool:
        if _COLUMN.fullmatch(name) and len(name) <= 2 * LONGEST_NAME:
            return True
        self.problem(mark, "GF167", f"{shown(name)} is no column: expected metric.score")
        return False

    def method(self, name: str, value: Any, mark: Mark) -> Method | None:
        if not isinstance(value, YamlMap):
            self.problem(mark, "GF163", f"method '{name}' is a mapping with 'uses:' or 'column:', not {kind_of(value)}")
            return None
        title = self.text(value, "title", mark) or name.replace("_", " ")
        if "column" in value:
            self.unknown(value, ("column", "title", "doc"), f"method '{name}', a column of the data set,")
            column = self.text(value, "column", mark)
            return Method(name, title, mark_of(value, "column", mark), column=column) if column else None
        known = ("uses", "in", "with", "set", "models", "output", "curve", "title", "doc")
        if "uses" not in value:
            self.problem(
                mark, "GF163", f"method '{name}' has neither 'uses:' nor 'column:'", f"it has: {', '.join(known)}"
            )
            return None
        use = self.use(value, mark, f"method '{name}'", known)
        output = self.text(value, "output", mark) or "image"
        curve = self.text(value, "curve", mark)
        return Method(name, title, mark, use, output=output, curve=curve) if use is not None else None

    def metric(self, name: str, value: Any, mark: Mark) -> Metric | None:
        known = ("uses", "each", "in", "with", "set", "models", "doc")
        use = self.use(value, mark, f"metric '{name}'", known)
        each = None
        if isinstance(value, YamlMap) and "each" in value:
            where = mark_of(value, "each", mark)
            each = self.use(value["each"], where, f"'each:' of metric '{name}'", ("uses", "with", "models"))
        return Metric(name, use, each) if use is not None else None

    def use(self, value: Any, mark: Mark, what: str, known: tuple[str, ...]) -> Use | None:
        if not isinstance(value, YamlMap):
            self.problem(mark, "GF160", f"{what} is a mapping with 'uses:', found {kind_of(value)}")
            return None
        self.unknown(value, known, what)
        uses = self.text(value, "uses", mark)
        if not uses:
            self.problem(mark_of(value, "uses", mark), "GF160", f"{what} has no 'uses:' that names a kind or a graph")
            return None
        inputs = self.submap(value, "in", what)
        constants, inside = (self.submap(value, key, what) for key in ("with", "set"))
        for port in inputs.keys() & constants.keys():
            self.problem(constants.key_marks[port], "GF160", f"'{port}' of {what} stands under both 'in:' and 'with:'")
        return Use(
            uses, mark_of(value, "uses", mark), dict(self.edges(inputs, what)), inputs.value_marks, plain(constants),
            constants.value_marks, plain(inside), inside.value_marks, self.text(value, "models", mark),
            mark_of(value, "models", mark),
        )  # fmt: skip

    def edges(self, inputs: YamlMap, what: str) -> Iterator[tuple[str, str | None]]:
        for port, column in inputs.items():
            if column is None or (isinstance(column, str) and _NAME.fullmatch(column)):
                yield port, column
            else:
                message = f"'{port}' of {what} is fed by a column of the data set, found {shown(plain(column))}"
                self.problem(inputs.value_marks[port], "GF165", message, "constants stand under 'with:'")

    def column(self, key: str, value: Any, mark: Mark) -> Column | None:
        if value is None:
            return Column(key, mark)
        if not isinstance(value, YamlMap):
            self.problem(mark, "GF160", f"column '{key}' is a mapping or nothing, found {kind_of(value)}")
            return None
        self.unknown(value, ("title", "unit", "doc", "scale", "digits", "best"), f"column '{key}'")
        best, digits, scale = value.get("best"), value.get("digits"), value.get("scale", 1)
        if best not in (None, "highest", "lowest", "none"):
            message = f"'best:' of column '{key}' is highest, lowest or none, found {shown(plain(best))}"
            self.problem(mark_of(value, "best", mark), "GF160", message)
        if digits is not None and (not isinstance(digits, int) or isinstance(digits, bool) or not 0 <= digits <= 9):
            self.problem(
                mark_of(value, "digits", mark), "GF160", f"'digits:' of column '{key}' is a number from 0 to 9"
            )
        if not _is_number(scale):
            self.problem(mark_of(value, "scale", mark), "GF160", f"'scale:' of column '{key}' is a number")
            scale = 1
        title, unit, doc = (self.text(value, name, mark) for name in ("title", "unit", "doc"))
        return Column(key, mark, title, unit, doc, float(scale), digits, best)

    def published(self, name: str, value: Any, mark: Mark) -> Published | None:
        if not isinstance(value, YamlMap):
            self.problem(mark, "GF160", f"reference '{name}' is a mapping, found {kind_of(value)}")
            return None
        self.unknown(value, ("title", "source", "values"), f"reference '{name}'")
        source = self.text(value, "source", mark)
        if not source:
            self.problem(mark, "GF160", f"reference '{name}' has no 'source:' that says who published it, and where")
        values = value.get("values")
        if not isinstance(values, YamlMap) or not values or not all(_is_number(v) for v in values.values()):
            self.problem(
                mark_of(value, "values", mark), "GF160", f"'values:' of reference '{name}' are numbers by column"
            )
            return None
        return Published(name, self.text(value, "title", mark) or name, source or "", dict(values))

    def plots(self, data: YamlMap) -> tuple[Plots, list[tuple[str, Mark]]]:
        """What the plots show, and the columns that they name."""
        value = data.get("plots")
        if value is None:
            return Plots(), []
        if not isinstance(value, YamlMap):
            self.problem(mark_of(data, "plots", self.top), "GF160", f"'plots:' is a mapping, found {kind_of(value)}")
            return Plots(), []
        self.unknown(value, ("preservation", "strength", "types"), "'plots:'")
        x, y = (self.text(value, key, self.top) for key in ("preservation", "strength"))
        listed = value.get("types", YamlList(self.top))
        if not isinstance(listed, YamlList) or not all(isinstance(v, str) for v in listed):
            self.problem(mark_of(value, "types", self.top), "GF160", "'types:' of plots is a list of columns")
            listed = YamlList(self.top)
        named = [(v, mark_of(value, key, self.top)) for key, v in (("preservation", x), ("strength", y)) if v]
        return Plots(x, y, tuple(listed)), named + list(zip(listed, listed.marks, strict=True))

    def known_metrics(self, metrics: Any, columns: Any, published: Any, plots: Any, data: YamlMap) -> None:
        """See that every column that is named belongs to a metric, and that the plots' columns are in the table."""
        named = [(c.key, c.mark) for c in columns.values()]
        for entry in published.values():
            values = data["reference"][entry.name]["values"]
            named += [(key, values.key_marks[key]) for key in entry.values]
        for key, mark in (*named, *plots[1]):
            metric = key.partition(".")[0]
            if "." not in key or metric not in metrics:
                hint = did_you_mean(metric, metrics) or f"metrics: {', '.join(metrics)}"
                self.problem(mark, "GF167", f"column {shown(key)} belongs to no metric of this file", hint)
            elif columns and key not in columns:
                hint = did_you_mean(key, columns) or f"columns: {', '.join(columns)}"
                self.problem(mark, "GF167", f"'{key}' is not among the columns of the table", hint)

    # --- helpers --------------------------------------------------------------------------------------------------

    def submap(self, value: YamlMap, key: str, what: str) -> YamlMap:
        found = value.get(key)
        if isinstance(found, YamlMap):
            return found
        if found is not None:
            self.problem(value.value_marks[key], "GF160", f"'{key}:' of {what} is a mapping, found {kind_of(found)}")
        return YamlMap(self.top)

    def text(self, value: YamlMap, key: str, mark: Mark) -> str | None:
        found = value.get(key)
        if found is None or isinstance(found, str):
            return found
        self.problem(mark_of(value, key, mark), "GF160", f"'{key}:' is text, found {kind_of(found)}")
        return None

    def unknown(self, value: YamlMap, known: tuple[str, ...], what: str) -> None:
        for key in value:
            if key not in known and not key.startswith("x-"):
                hint = did_you_mean(key, known) or f"it has: {', '.join(known)}"
                self.problem(value.key_marks[key], "GF161", f"{what} has no key {shown(key)}", hint)

    def problem(self, mark: Mark, code: str, message: str, hint: str = "") -> None:
        self.problems.append(Diagnostic(mark, code, message, hint))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
