"""A graph file as data: what stands in it, with positions, before any kind, sub-graph or model is looked up."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from graphflow.errors import LONGEST_NAME, Diagnostic, InvalidError, Mark, UsageError, did_you_mean, shown
from graphflow.migrate import NEWEST, version_problem
from graphflow.ports import PORT_TYPES, PortType, type_by_name
from graphflow.yamlfile import YamlList, YamlMap, mark_of, read_file, read_text

FORMAT = NEWEST["graphflow"]
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OTHERS = {  # files of another format: what they are, and what takes them
    "graphflow-preset": ("a preset", "run a graph with it: --models {}; graphflow check {} checks it"),
    "graphflow-bench": ("a bench file", "graphflow bench {} runs it; graphflow check {} checks it"),
}
_EDGE = re.compile(rf"({_NAME.pattern})\.({_NAME.pattern})")
RESERVED = frozenset({"inputs", "models", "outputs"})


@dataclass(frozen=True)
class Ref:
    """An edge's source: ``caption.text``, ``inputs.image`` or ``models.captioner``."""

    node: str
    port: str
    mark: Mark = field(compare=False)

    def __str__(self) -> str:
        return f"{self.node}.{self.port}"


Edge = Ref | tuple[Ref, ...]


@dataclass(frozen=True)
class InputSpec:
    """A value that the graph asks its user for.

    With `nonempty`, blank text is refused before anything runs. The file names of a default begin at `folder`; it is
    None when the graph may name no file.
    """

    name: str
    type: PortType
    is_list: bool
    mark: Mark
    doc: str = ""
    default: Any = None
    has_default: bool = False
    nonempty: bool = False
    folder: Path | None = field(default=None, compare=False)

    def describe(self) -> str:
        """The type as graph files write it."""
        return f"list[{self.type.name}]" if self.is_list else self.type.name

    def strays(self) -> str | None:
        """The first file of the default that lies outside the graph's folder; None when there is none.

        Raises:
            ValueError: no file can have such a name.
        """
        if self.folder is None:
            return None
        root = self.folder.resolve()
        paths = self.default if isinstance(self.default, list) else [self.default]
        return next((p for p in paths if not (root / p).resolve().is_relative_to(root)), None)


@dataclass(frozen=True)
class NodeSpec:
    """One entry of `nodes:`. A value of `inputs` is an edge, or a list of edges for a list port.

    Attributes:
        inputs: the edges under `in:` and `map:`, by port or parameter.
        mapped: the names under `map:`: the node runs once for each element of what these edges bring.
        inside: ``--set`` values for the nodes of a sub-graph, by ``node.parameter``.
        inside_marks: where the user has typed them.
    """

    name: str
    uses: str
    mark: Mark
    uses_mark: Mark
    inputs: Mapping[str, Edge]
    parameters: Mapping[str, Any]
    parameter_marks: Mapping[str, Mark]
    input_marks: Mapping[str, Mark]
    mapped: frozenset[str] = frozenset()
    inside: Mapping[str, Any] = field(default_factory=dict)
    inside_marks: Mapping[str, Mark] = field(default_factory=dict)


@dataclass(frozen=True)
class GraphSpec:
    """A graph file.

    Attributes:
        folder: where its relative paths begin; None when it may name no file (it came out of a picture).
        models: a preset's name, a path, or an inline mapping.
        text: the file as it was read.
        place: the file as seen from the folder of the graph that the user named; a shipped graph's begins with
            ``shipped:``.
        mapped: inputs over which the user runs the whole graph (``--map``).
        library: sub-graphs by place, when they come out of a record instead of files.
        subgraphs: those that stand in no file, by what `uses:` says.
    """

    name: str
    title: str
    folder: Path | None
    inputs: Mapping[str, InputSpec]
    models: Any
    models_mark: Mark
    nodes: Mapping[str, NodeSpec]
    outputs: Mapping[str, Ref]
    mark: Mark
    text: str
    place: str = ""
    mapped: tuple[str, ...] = ()
    library: Mapping[str, str] | None = None
    subgraphs: Mapping[str, GraphSpec] = field(default_factory=dict)


def load_spec(path: Path, name: str | None = None) -> GraphSpec:
    """Read a graph file.

    Raises:
        InvalidError: with every problem of the file's structure.
    """
    shown = name or str(path)
    data = read_file(path, shown)
    text = path.read_text(encoding="utf-8-sig")
    return _Reader(shown, path.parent, text).graph(data)


def parse_spec(text: str, name: str, folder: Path | None = None, library: Mapping[str, str] | None = None) -> GraphSpec:
    """Read a graph from text, such as the provenance of a picture; without a folder it can name no file.

    Args:
        text: the graph file.
        name: stands for the file in messages.
        folder: where its relative paths begin.
        library: the texts of its sub-graphs, by place.

    Raises:
        InvalidError: with every problem of the text's structure.
    """
    return replace(_Reader(name, folder, text).graph(read_text(text, name)), library=library)


def subgraph_place(parent: GraphSpec, uses: str) -> str | None:
    """The place of the graph that a node of `parent` uses; None when `uses` is neither a file nor a shipped graph."""
    if uses in parent.subgraphs:
        return parent.subgraphs[uses].place
    if uses.endswith((".yaml", ".yml")):
        return posixpath.normpath(posixpath.join(posixpath.dirname(parent.place), uses))
    return f"shipped:{uses}.yaml" if uses in shipped_graphs() else None


def load_subgraph(parent: GraphSpec, uses: str, mark: Mark) -> GraphSpec:
    """The graph that a node of `parent` uses; it has a place.

    Raises:
        InvalidError: there is no such file, or it is no graph.
    """
    place = subgraph_place(parent, uses)
    assert place is not None
    if uses in parent.subgraphs:
        return parent.subgraphs[uses]
    if PurePosixPath(uses).is_absolute() or PureWindowsPath(uses).is_absolute():
        raise _no_subgraph(mark, f"{shown(uses)} is an absolute path", "expected one relative to this file")
    if parent.library is not None:
        if place not in parent.library:
            raise _no_subgraph(mark, f"the record does not hold the graph {shown(place)}")
        found = parse_spec(parent.library[place], place, None, parent.library)
    elif not uses.endswith((".yaml", ".yml")):
        found = load_spec(shipped_graphs()[uses], uses)
    elif parent.folder is None:
        raise _no_subgraph(mark, f"a picture's graph can't open the file {shown(uses)}")
    else:
        path = parent.folder / uses
        try:
            there = path.is_file()
        except (OSError, ValueError):  # a name that no file system takes
            there = False
        if not there:
            raise _no_subgraph(mark, f"there is no graph file {shown(str(path))}")
        found = load_spec(path)
    return replace(found, place=place)


def _no_subgraph(mark: Mark, message: str, hint: str = "") -> InvalidError:
    return InvalidError([Diagnostic(mark, "GF117", message, hint)])


def shipped_graphs() -> dict[str, Path]:
    """Name → file of the graphs inside the package, sorted: ``pix2pix_on_the_fly``, ``train/pocket``, …"""
    import graphflow.graphs

    root = Path(graphflow.graphs.__path__[0])
    files = sorted(p for p in root.rglob("*.yaml") if p.relative_to(root).parts[0] not in ("presets", "bench"))
    return {p.relative_to(root).with_suffix("").as_posix(): p for p in files}


def find_graph(name: str) -> Path:
    """The file of a graph that the user names: a path, or the name of a shipped graph.

    Raises:
        UsageError: there is neither.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path
    shipped = shipped_graphs()
    if name in shipped:
        return shipped[name]
    hint = did_you_mean(name, shipped)
    raise UsageError(f"no graph '{name}': neither a file nor a shipped graph" + (f"; {hint}" if hint else ""))


class _Reader:
    def __init__(self, name: str, folder: Path | None, text: str) -> None:
        self.name, self.folder, self.text = name, folder, text
        self.top = Mark(name)
        self.problems: list[Diagnostic] = []

    def graph(self, data: Any) -> GraphSpec:
        if not isinstance(data, YamlMap):
            raise InvalidError([Diagnostic(self.top, "GF010", f"a graph is a mapping, found {kind_of(data)}")])
        for key, (what, hint) in _OTHERS.items():
            if key in data and "graphflow" not in data:
                told = hint.replace("{}", self.name)
                raise InvalidError([Diagnostic(mark_of(data, key, self.top), "GF010", f"is {what}, no graph", told)])
        if "graphflow" not in data:
            self.problem(self.top, "GF011", "has no format version", "begin the file with 'graphflow: 1'")
        elif problem := version_problem("graphflow", data["graphflow"], self.name):
            self.problem(mark_of(data, "graphflow", self.top), "GF011", *problem)
        known = ("graphflow", "title", "inputs", "models", "nodes", "outputs")
        self.unknown_keys(data, known, "a graph", allow_x=True)
        title = data.get("title", "")
        if not isinstance(title, str):
            self.problem(mark_of(data, "title", self.top), "GF010", f"title is text, found {kind_of(title)}")
            title = str(title)
        inputs = {k: self.input(k, v, m) for k, v, m in self.entries(data, "inputs")}
        nodes = {k: self.node(k, v, m) for k, v, m in self.entries(data, "nodes")}
        outputs: dict[str, Ref] = {}
        for key, value, mark in self.entries(data, "outputs"):
            ref = self.ref(value, mark, f"output '{key}'")
            if ref is not None:
                outputs[key] = ref
        if not data.get("nodes"):
            self.problem(mark_of(data, "nodes", self.top), "GF010", "has no nodes")
        if not data.get("outputs"):
            self.problem(mark_of(data, "outputs", self.top), "GF010", "has no outputs")
        models = data.get("models")
        models_mark = mark_of(data, "models", self.top)
        if models is not None and not isinstance(models, str | YamlMap):
            self.problem(models_mark, "GF010", f"models is a preset's name, a file or a mapping, not {kind_of(models)}")
        if self.problems:
            raise InvalidError(self.problems)
        return GraphSpec(
            Path(self.name).stem, title, self.folder, {k: v for k, v in inputs.items() if v},
            models, models_mark, {k: v for k, v in nodes.items() if v}, outputs, self.top, self.text,
        )  # fmt: skip

    def entries(self, data: YamlMap, section: str) -> list[tuple[str, Any, Mark]]:
        value = data.get(section)
        if value is None:
            return []
        if not isinstance(value, YamlMap):
            self.problem(mark_of(data, section, self.top), "GF010", f"{section} is a mapping, found {kind_of(value)}")
            return []
        out = []
        for key, entry in value.items():
            if not _NAME.fullmatch(key) or len(key) > LONGEST_NAME:
                message = f"{shown(key)} is no name: letters, digits and '_' only, at most {LONGEST_NAME}"
                self.problem(value.key_marks[key], "GF012", message)
            elif section == "nodes" and key in RESERVED:
                self.problem(value.key_marks[key], "GF012", f"a node can't be called '{key}': that name is reserved")
            else:
                out.append((key, entry, value.key_marks[key] if section != "outputs" else value.value_marks[key]))
        return out

    def input(self, name: str, value: Any, mark: Mark) -> InputSpec | None:
        if isinstance(value, str):
            short = YamlMap(mark, {"type": mark}, {"type": mark})
            short["type"] = value
            value = short
        if not isinstance(value, YamlMap):
            self.problem(mark, "GF010", f"input '{name}' is a mapping with a type, found {kind_of(value)}")
            return None
        self.unknown_keys(value, ("type", "default", "doc", "nonempty"), f"input '{name}'")
        found = type_by_name(value["type"]) if isinstance(value.get("type"), str) else None
        if found is None:
            given = value.get("type", "nothing")
            hint = did_you_mean(str(given), PORT_TYPES) or f"types: {', '.join(PORT_TYPES)}, list[…]"
            self.problem(mark_of(value, "type", mark), "GF013", f"input '{name}' has no type {shown(given)}", hint)
            return None
        doc = value.get("doc", "")
        if not isinstance(doc, str):
            self.problem(mark_of(value, "doc", mark), "GF010", f"'doc:' is text, found {kind_of(doc)}")
        nonempty = value.get("nonempty", False)
        if not isinstance(nonempty, bool):
            self.problem(mark_of(value, "nonempty", mark), "GF010", "'nonempty:' is true or false")
        return InputSpec(
            name, *found, mark, str(doc), plain(value.get("default")), "default" in value, bool(nonempty), self.folder
        )  # fmt: skip

    def node(self, name: str, value: Any, mark: Mark) -> NodeSpec | None:
        if not isinstance(value, YamlMap):
            self.problem(mark, "GF010", f"node '{name}' is a mapping with 'uses:', found {kind_of(value)}")
            return None
        self.unknown_keys(value, ("uses", "in", "map", "with", "doc"), f"node '{name}'")
        uses = value.get("uses")
        if not isinstance(uses, str) or not uses:
            self.problem(mark_of(value, "uses", mark), "GF010", f"node '{name}' has no 'uses:' that names a kind")
            return None
        sections = {key: self.submap(value, key, name, mark) for key in ("in", "map", "with")}
        inputs = {
            port: edge
            for edges in (sections["in"], sections["map"])
            for port, source in edges.items()
            if (edge := self.edge(source, mark_of(edges, port, mark), f"'{name}.{port}'")) is not None
        }
        for first, second in (("in", "map"), ("in", "with"), ("map", "with")):
            for key in sections[first].keys() & sections[second].keys():
                message = f"'{name}.{key}' stands under both '{first}:' and '{second}:'"
                self.problem(sections[second].key_marks[key], "GF111", message)
        return NodeSpec(
            name, uses, mark, mark_of(value, "uses", mark), inputs, plain(sections["with"]),
            sections["with"].value_marks, {**sections["in"].key_marks, **sections["map"].key_marks},
            frozenset(sections["map"]),
        )  # fmt: skip

    def edge(self, source: Any, mark: Mark, what: str) -> Edge | None:
        if not isinstance(source, YamlList):
            return self.ref(source, mark, what)
        refs = [self.ref(item, m, what) for item, m in zip(source, source.marks, strict=True)]
        return tuple(r for r in refs if r is not None)

    def submap(self, value: YamlMap, key: str, node: str, mark: Mark) -> YamlMap:
        found = value.get(key)
        if isinstance(found, YamlMap):
            return found
        if found is not None:
            what = "constants" if key == "with" else "edges"
            self.problem(mark_of(value, key, mark), "GF010", f"'{key}:' of node '{node}' maps names to {what}")
        return YamlMap(mark)

    def ref(self, value: Any, mark: Mark, what: str) -> Ref | None:
        if isinstance(value, str) and len(value) <= 2 * LONGEST_NAME and (match := _EDGE.fullmatch(value)):
            return Ref(match[1], match[2], mark)
        hint = "constants stand under 'with:'" if what.startswith("'") else ""
        self.problem(mark, "GF014", f"{what} is fed by node.port or inputs.name, found {shown(value)}", hint)
        return None

    def unknown_keys(self, value: YamlMap, known: tuple[str, ...], what: str, allow_x: bool = False) -> None:
        for key in value:
            if key not in known and not (allow_x and key.startswith("x-")):
                hint = did_you_mean(key, known) or f"{what} has: {', '.join(known)}"
                if " " in key and value[key] is None:
                    hint = "inside braces, text with a comma needs quotes"
                self.problem(value.key_marks[key], "GF015", f"{what} has no key {shown(key)}", hint)

    def problem(self, mark: Mark, code: str, message: str, hint: str = "") -> None:
        self.problems.append(Diagnostic(mark, code, message, hint))


def kind_of(value: Any) -> str:
    """What a YAML value is, in YAML's words."""
    if value is None:
        return "nothing"
    names = {YamlMap: "a mapping", YamlList: "a list", str: "text", bool: "true or false", int: "a number"}
    return names.get(type(value), "a number")


def plain(value: Any) -> Any:
    """The value without positions."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list) else value
