"""Random graphs: nodes of `samples`, sub-graphs in files, maps, zips, broadcasts, gathered lists, fed parameters."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import PIL.Image
from hypothesis import strategies as st
from reference import KINDS, PLAIN_KINDS, UNSTORED_KINDS, Data, Kind, Type

MAIN = "g.yaml"
CONSTANTS: dict[str, list[Any]] = {
    "Text": ["", "a", "A", "b", "ab", "Ab", "abc", "hello"], "int": [-1, 0, 1, 2, 3, 5], "few": [0, 1, 2, 3],
    "float": [0.5, 1.0, 2.5], "Image": [(0, 0, 0), (9, 8, 7), (250, 1, 2)],
}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """What an edge may come from; lists of one `length` can be zipped."""

    ref: str
    type: Type
    length: str = ""


@dataclass
class Signature:
    """A graph file as a node: its inputs as declared, its outputs by type."""

    inputs: Mapping[str, Data]
    outputs: Mapping[str, Type]


@dataclass
class Graphs:
    """Graph files as data, by place; that of the whole graph is called ``g.yaml``."""

    files: dict[str, Data] = field(default_factory=dict)

    @property
    def inputs(self) -> Mapping[str, Data]:
        """The inputs of the whole graph."""
        found: Mapping[str, Data] = self.files[MAIN]["inputs"]
        return found

    @property
    def text(self) -> str:
        """The whole graph, as a file has it."""
        return json.dumps(self.files[MAIN])

    def write(self, folder: Path) -> None:
        """Write all files: JSON is YAML."""
        for place, graph in self.files.items():
            (folder / place).write_text(json.dumps(graph, indent=1))

    def settings(self) -> list[tuple[str, str]]:
        """What ``--set`` may change, with its type: constants, and edges that are not mapped."""
        return sorted(self._settings(MAIN, ""))

    def _settings(self, place: str, path: str) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for name, node in self.files[place]["nodes"].items():
            if node["uses"] in KINDS:
                names = {n: t for n, (t, _) in KINDS[node["uses"]].parameters.items()}
            else:
                found += self._settings(node["uses"], f"{path}{name}/")
                declared = self.files[node["uses"]]["inputs"]
                names = {n: i["type"] for n, i in declared.items() if i["type"] in ("Text", "int", "float")}
            found += [(f"{path}{name}.{n}", t) for n, t in names.items() if n not in node.get("map", {})]
        return found


@st.composite
def graphs(draw: st.DrawFn, unstored: bool = False, more: Mapping[str, Kind] | None = None) -> Graphs:
    """A graph with up to three sub-graphs; with `unstored` also with kinds whose results are not stored.

    `more` are further kinds, which are as likely as all others together.

    How large it is is hypothesis' choice. What stands in it is not: it likes small and simple things too much.
    """
    size, chance = draw(st.sampled_from([2, 4, 6, 7, 8])), random.Random(draw(st.integers(0, 10**6)))
    kinds = dict(PLAIN_KINDS | UNSTORED_KINDS if unstored else PLAIN_KINDS)
    kinds |= more or {}
    made = Graphs()
    signatures: dict[str, Signature] = {}
    for i in range(chance.randint(0, min(3, size))):
        place = f"part{i}.yaml"
        made.files[place] = graph = _Writer(chance, kinds, signatures, False).graph(chance.randint(1, min(3, size)))
        signatures[place] = Signature(graph["inputs"], graph.pop("types"))
    made.files[MAIN] = _Writer(chance, kinds, signatures, True).graph(size)
    del made.files[MAIN]["types"]
    return made


def givens(inputs: Mapping[str, Data]) -> st.SearchStrategy[dict[str, Any]]:
    """Values for all inputs of a graph; all lists have one length, so that they can be zipped."""

    def of_length(length: int) -> st.SearchStrategy[dict[str, Any]]:
        return st.fixed_dictionaries({name: values(declared["type"], length) for name, declared in inputs.items()})

    return st.sampled_from([2, 3, 1, 0, 2]).flatmap(of_length)


def values(type_name: str, length: int = 2) -> st.SearchStrategy[Any]:
    """Values of a type."""
    if type_name.startswith("list["):
        return st.lists(values(type_name[5:-1]), min_size=length, max_size=length)
    return st.sampled_from(CONSTANTS[type_name])


def picture(colour: tuple[int, int, int]) -> PIL.Image.Image:
    """The picture that stands for a colour among the inputs."""
    return PIL.Image.new("RGB", (2, 2), colour)


def for_engine(given: Mapping[str, Any], image: Callable[[tuple[int, int, int]], Any] = picture) -> dict[str, Any]:
    """Input values as the engine takes them."""
    return _mapped(given, image)


def for_reference(given: Mapping[str, Any]) -> dict[str, Any]:
    """Input values as the reference takes them."""
    return _mapped(given, lambda colour: ("RGB", 2, 2, bytes(colour) * 4))


def _mapped(given: Mapping[str, Any], image: Callable[[Any], Any]) -> dict[str, Any]:
    def one(value: Any) -> Any:
        if isinstance(value, list):
            return [one(v) for v in value]
        return image(tuple(value)) if isinstance(value, tuple) else value

    return {name: one(value) for name, value in given.items()}


def plain_value(value: Any) -> Any:
    """A value of the engine as the reference has it."""
    if isinstance(value, PIL.Image.Image):
        return (value.mode, *value.size, value.tobytes())
    if not isinstance(value, str) and hasattr(value, "__len__"):
        return [plain_value(v) for v in value]
    return value


class _Writer:
    """Writes a graph file, node by node; each is fed by what stands before it."""

    def __init__(
        self, chance: random.Random, kinds: Mapping[str, Any], signatures: Mapping[str, Signature], main: bool
    ) -> None:
        self.chance, self.kinds, self.signatures, self.main = chance, kinds, signatures, main
        self.sources: list[Source] = []
        self.used: set[str] = set()

    def graph(self, size: int) -> Data:
        inputs = {f"i{i}": self.input(f"i{i}") for i in range(self.chance.randint(1, 3))}
        nodes = {f"n{i}": self.node(f"n{i}") for i in range(size)}
        ends = [s for s in self.sources if not s.ref.startswith("inputs.") and s.ref not in self.used]
        chosen = [s for s in ends if self.likely(0.8)] or [self.sources[-1]]
        if self.likely(0.3):
            chosen.append(self.chance.choice(self.sources))
        outputs = {f"o{i}": source for i, source in enumerate(chosen)}
        return {
            "graphflow": 1, "inputs": inputs, "nodes": nodes, "outputs": {n: s.ref for n, s in outputs.items()},
            "types": {n: s.type for n, s in outputs.items()},
        }  # fmt: skip

    def likely(self, share: float) -> bool:
        return self.chance.random() < share

    def constant(self, type_name: str) -> Any:
        if type_name.startswith("list["):
            return [self.constant(type_name[5:-1]) for _ in range(self.chance.randint(0, 3))]
        return self.chance.choice(CONSTANTS[type_name])

    def input(self, name: str) -> Data:
        type_name = "Text" if name == "i0" else self.chance.choice(["Text", "int", "float", "Image"])
        is_list = self.likely(0.5)
        declared: Data = {"type": f"list[{type_name}]" if is_list else type_name}
        if type_name != "Image" and self.likely(0.5) and not (self.main and is_list):
            declared["default"] = self.constant(declared["type"])
        length = "the inputs" if self.main else name
        self.sources.append(Source(f"inputs.{name}", (type_name, is_list), length if is_list else ""))
        return declared

    def node(self, name: str) -> Data:
        for _ in range(8):
            uses = self.chance.choice([*self.signatures, *self.signatures, *self.signatures, *self.kinds])
            if (node := self.fed(uses)) is not None:
                break
        else:
            uses, node = "sample.join", {"uses": "sample.join", "in": {"texts": []}}
        mapped = node.get("map", {})
        for edge in (node.get("in", {}) | mapped).values():
            self.used.update(edge if isinstance(edge, list) else [edge])
        length = next((s.length for s in self.sources if s.ref in mapped.values()), "")
        for port, (type_name, is_list) in self.signature(uses)[2].items():
            if not (mapped and is_list):  # there are no lists of lists
                type_, own = (type_name, is_list or bool(mapped)), length or f"{name}.{port}"
                self.sources.append(Source(f"{name}.{port}", type_, own))
        return node

    def signature(self, uses: str) -> tuple[Mapping[str, Type], list[str], Mapping[str, Type]]:
        """Ports and parameters, those that must be fed, and the outputs."""
        if uses in self.kinds:
            kind = self.kinds[uses]
            parameters = {n: (t, False) for n, (t, _) in kind.parameters.items()}
            return {**kind.ports, **parameters}, list(kind.ports), kind.outputs
        found = self.signatures[uses]
        ports = {
            n: (i["type"].removeprefix("list[").removesuffix("]"), "[" in i["type"]) for n, i in found.inputs.items()
        }
        return ports, [n for n, i in found.inputs.items() if "default" not in i], found.outputs

    def fed(self, uses: str) -> Data | None:
        """A node of this kind or graph; None when there is nothing to feed it with."""
        ports, needed, _ = self.signature(uses)
        node: Data = {"uses": uses}
        lengths = self.lengths(ports)
        length = self.chance.choice(lengths) if lengths and self.likely(0.6) else ""
        for port, found in ports.items():
            self.feed(node, port, found, port in needed, length)
        there = {name for part in ("in", "map", "with") for name in node.get(part, {})}
        return node if there.issuperset(needed) else None

    def lengths(self, ports: Mapping[str, Type]) -> list[str]:
        """The lengths of lists over which a node with these ports can be mapped."""
        singles = [t for t, is_list in ports.values() if not is_list]
        found = [s.length for s in self.sources if s.type[1] and any(_fits(s.type[0], t) for t in singles)]
        return list(dict.fromkeys(found))

    def feed(self, node: Data, port: str, kind: Type, needed: bool, length: str) -> None:
        type_name, is_list = kind
        fitting = [s for s in self.sources if _fits(s.type[0], type_name)]
        zipped = [s for s in fitting if s.type[1] and s.length == length] if length and not is_list else []
        whole = [s for s in fitting if s.type[1] == is_list]
        singles = [s.ref for s in fitting if not s.type[1]]
        if zipped and ("map" not in node or self.likely(0.5)):
            node.setdefault("map", {})[port] = self.chance.choice(zipped).ref
        elif whole and (needed or self.likely(0.4)):
            node.setdefault("in", {})[port] = self.chance.choice(whole).ref
        elif is_list and singles and (needed or self.likely(0.4)):
            node.setdefault("in", {})[port] = self.chance.choices(singles, k=self.chance.randint(0, 3))
        elif type_name != "Image" and not (needed and node["uses"] in self.kinds) and (needed or self.likely(0.4)):
            constant = f"list[{type_name}]" if is_list else type_name
            node.setdefault("with", {})[port] = self.constant(constant)
        if is_list and singles and isinstance(node.get("in", {}).get(port), str) and self.likely(0.25):
            node["in"][port] = self.chance.choices(singles, k=self.chance.randint(0, 3))


def _fits(source: str, target: str) -> bool:
    return source == target or (source, target) == ("int", "float")
