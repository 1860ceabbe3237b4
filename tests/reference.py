"""What graphs mean, said again in the plainest way: a recursive interpreter that the engine is compared with.

It works on graph files as data, shares no code with the engine, computes everything in memory, and notes what each
instance computes: its kind, its parameters and what it is fed. Two instances are the same computation when these agree.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

Data = dict[str, Any]
Type = tuple[str, bool]  # its name, and whether it is a list
NOBODY = object()  # what the elements of an empty list bring


@dataclass(frozen=True)
class Kind:
    """A kind of `samples`: its ports and parameters, and what it computes from both."""

    ports: Mapping[str, Type]
    parameters: Mapping[str, tuple[str, Any]]  # type and default
    outputs: Mapping[str, Type]
    function: Callable[..., Any]
    always_runs: bool = False


TEXT, INT, FLOAT, IMAGE = ("Text", False), ("int", False), ("float", False), ("Image", False)
TEXTS, FLOATS = ("Text", True), ("float", True)


def _painted(text: str) -> tuple[str, int, int, bytes]:
    return ("RGB", 3, 2, zlib.crc32(text.encode()).to_bytes(4, "little")[:3] * 6)


PLAIN_KINDS = {
    "sample.shout": Kind(
        {"text": TEXT}, {"mark": ("Text", "!")}, {"text": TEXT}, lambda text, mark: text.upper() + mark
    ),
    "sample.count": Kind({"text": TEXT}, {}, {"length": INT}, lambda text: len(text)),
    "sample.repeat": Kind({"text": TEXT}, {"times": ("few", 2)}, {"texts": TEXTS}, lambda text, times: [text] * times),
    "sample.join": Kind(
        {"texts": TEXTS}, {"separator": ("Text", " ")}, {"text": TEXT}, lambda texts, separator: separator.join(texts)
    ),
    "sample.add": Kind(
        {"a": INT, "b": INT}, {"step": ("int", 0)}, {"total": INT}, lambda a, b, step: a + b + step
    ),
    "sample.mean": Kind(
        {"values": FLOATS}, {"scale": ("float", 1.0)}, {"mean": FLOAT},
        lambda values, scale: sum(map(float, values)) / len(values) * scale if values else 0.0,
    ),
    "sample.take": Kind({"text": TEXT}, {"count": ("int", 1)}, {"text": TEXT}, lambda text, count: text[: count % 4]),
    "sample.letters": Kind(
        {"text": TEXT}, {"limit": ("int", 3)}, {"letters": TEXTS}, lambda text, limit: list(text[: limit % 4])
    ),
    "sample.paint": Kind({"text": TEXT}, {}, {"image": IMAGE}, _painted),
    "sample.invert": Kind(
        {"image": IMAGE}, {}, {"image": IMAGE}, lambda image: (*image[:3], bytes(255 - b for b in image[3]))
    ),
    "sample.colour": Kind({"image": IMAGE}, {}, {"text": TEXT}, lambda image: image[3][:3].hex()),
    "sample.unsure": Kind({"text": TEXT}, {}, {"text": TEXT}, lambda text: text + "?", always_runs=True),
}  # fmt: skip
# Their results are not stored: they run again when somebody needs them.
UNSTORED_KINDS = {
    "sample.long": Kind({"text": TEXT}, {}, {"text": TEXT}, lambda text: text + "." * 70_000),
    "sample.passing": Kind({"text": TEXT}, {}, {"text": TEXT}, lambda text: text + "~"),
}
KINDS = PLAIN_KINDS | UNSTORED_KINDS


MOST_INSTANCES, MOST_CHARACTERS = 300, 5_000_000


class TooLargeError(Exception):
    """Lists of lists of repeated texts grow without bound: such a graph is a test of patience."""


@dataclass(frozen=True)
class Computation:
    """What an instance computes; `parts` is hashable and says all of it."""

    kind: str
    parts: tuple[Any, ...]


class Reference:
    """Evaluates a graph.

    Args:
        files: graph files as data, by place; that of the whole graph is called ``g.yaml``.
        settings: ``--set`` values.
        given: the inputs of the whole graph.

    Attributes:
        instances: what each instance computes, by its name.

    Raises:
        TooLargeError: the graph is larger than a test should be.
    """

    def __init__(self, files: Mapping[str, Data], settings: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        self.files, self.settings = files, settings
        self.instances: dict[str, Computation] = {}
        self.characters = 0
        graph = files["g.yaml"]
        inputs = {n: _given(i, given[n] if n in given else i["default"]) for n, i in graph["inputs"].items()}
        self.outputs = {n: _Scope(self, graph, "", "", inputs).value(r) for n, r in graph["outputs"].items()}

    def note(self, title: str, found: Computation) -> None:
        """Remember what an instance computes."""
        self.instances[title] = found
        self.characters += sum(len(text) for _, text in found.parts)
        if len(self.instances) > MOST_INSTANCES or self.characters > MOST_CHARACTERS:
            raise TooLargeError


def _given(declared: Data, value: Any) -> Callable[[], Any]:
    """A constant, as the declared type has it."""
    found = float(value) if declared["type"] == "float" else value
    return lambda: found


def _same(value: Any) -> Any:
    return value


class _Scope:
    """A file at the place where it is used; `title` names its instance, `path` is the same without indices.

    With `nobody` it stands for the elements of an empty list: what is fed to all of them is computed nevertheless.
    """

    def __init__(
        self, whole: Reference, graph: Data, title: str, path: str, inputs: Mapping[str, Callable[[], Any]],
        nobody: bool = False,
    ) -> None:  # fmt: skip
        self.whole, self.graph, self.title, self.path, self.inputs = whole, graph, title, path, inputs
        self.nobody = nobody
        self.units: dict[str, list[_Unit]] = {}

    def value(self, edge: Any) -> Any:
        if isinstance(edge, list):
            return [self.value(ref) for ref in edge]
        name, port = edge.split(".")
        if name == "inputs":
            return self.inputs[port]()
        node = self.graph["nodes"][name]
        if "map" not in node:
            return self.made(name)[0].output(port)
        if node["uses"] not in KINDS:
            graph = self.whole.files[node["uses"]]
            passed_on = self.origin(graph, graph["outputs"][port])
            if passed_on is not None:
                return self.value(node["map"][passed_on])
        found = [unit.output(port) for unit in self.made(name)]
        return [v for v in found if v is not NOBODY]

    def origin(self, graph: Data, ref: Any) -> str | None:
        """The input of a graph that an edge in it brings unchanged."""
        if isinstance(ref, list):
            return None
        name, port = ref.split(".")
        if name == "inputs":
            return str(port)
        node = graph["nodes"][name]
        if node["uses"] in KINDS:
            return None
        inner = self.whole.files[node["uses"]]
        found = self.origin(inner, inner["outputs"][port])
        edges = {**node.get("in", {}), **node.get("map", {})}
        return self.origin(graph, edges[found]) if found in edges else None

    def made(self, name: str) -> list[_Unit]:
        if name not in self.units:
            node = self.graph["nodes"][name]
            lists = {port: self.value(edge) for port, edge in node.get("map", {}).items()}
            title, path = self.title + name, self.path + name
            if not lists:
                self.units[name] = [_Unit(self, node, title, path, {}, self.nobody)]
            elif self.nobody or not next(iter(lists.values())):
                nothing = {port: partial(_same, NOBODY) for port in lists}
                self.units[name] = [_Unit(self, node, title, path, nothing, True)]
            else:
                rows = [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
                self.units[name] = [
                    _Unit(self, node, f"{title}[{i}]", path, {p: partial(_same, v) for p, v in row.items()}, False)
                    for i, row in enumerate(rows)
                ]
        return self.units[name]


class _Unit:
    """A node of a scope, or one element of a mapped one; `fed` is what the map gives to it."""

    def __init__(
        self, outer: _Scope, node: Data, title: str, path: str, fed: Mapping[str, Callable[[], Any]], nobody: bool
    ) -> None:
        self.outer, self.node, self.title, self.path, self.fed = outer, node, title, path, fed
        self.nobody = nobody
        self.results: dict[str, Any] | None = None
        self.inside: _Scope | None = None

    def output(self, port: str) -> Any:
        if self.node["uses"] in KINDS:
            if self.results is None:
                self.results = self.compute(KINDS[self.node["uses"]])
            return self.results[port]
        graph = self.outer.whole.files[self.node["uses"]]
        if self.inside is None:
            inputs = {n: self.input(n, i) for n, i in graph["inputs"].items()}
            self.inside = _Scope(self.outer.whole, graph, f"{self.title}/", f"{self.path}/", inputs, self.nobody)
        return self.inside.value(graph["outputs"][port])

    def input(self, name: str, declared: Data) -> Callable[[], Any]:
        """What an input of a sub-graph, or a port or parameter of a kind, is fed; evaluated when it is asked for."""
        settings = self.outer.whole.settings
        if f"{self.path}.{name}" in settings:
            return _given(declared, settings[f"{self.path}.{name}"])
        if name in self.fed:
            return self.fed[name]
        if name in self.node.get("in", {}):
            return lambda: self.outer.value(self.node["in"][name])
        return _given(declared, self.node.get("with", {}).get(name, declared.get("default")))

    def compute(self, kind: Kind) -> dict[str, Any]:
        fed = {port: self.input(port, {"type": found[0]})() for port, found in kind.ports.items()}
        parameters = {
            name: self.input(name, {"type": type_name, "default": default})()
            for name, (type_name, default) in kind.parameters.items()
        }
        if self.nobody:
            return dict.fromkeys(kind.outputs, NOBODY)
        # An edge to a parameter converts, an edge to a port does so only when the node runs.
        parameters = {n: float(v) if kind.parameters[n][0] == "float" else v for n, v in parameters.items()}
        parts = tuple((n, repr(v)) for n, v in (*sorted(parameters.items()), *sorted(fed.items())))
        self.outer.whole.note(self.title, Computation(self.node["uses"], parts))
        converted = {n: float(v) if kind.ports[n] == FLOAT else v for n, v in fed.items()}
        out = kind.function(**converted, **parameters)
        return dict.fromkeys(kind.outputs, out)
