"""A graph as a drawing: mermaid for Markdown pages, dot for Graphviz, a tree for the terminal.

`statuses` (node → cached, run or maybe, as a plan has them) colours the nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from graphflow.graph import Graph
    from graphflow.spec import Ref

# Fill, border and text, readable on light and on dark pages.
COLOURS = {
    "cached": ("#e4e7ea", "#8a949e", "#30363c"),
    "run": ("#cdebe4", "#0f8a72", "#0b3b31"),
    "maybe": ("#fdf0cf", "#b98a1d", "#4a3608"),
}


class Arrow(NamedTuple):
    """An edge between two drawn things; ids are ``n_caption``, ``in_image``, ``out_image``."""

    source: str
    target: str
    label: str


def arrows(graph: Graph) -> Iterator[Arrow]:
    """Every edge once, in order of execution, then those to the outputs."""
    for name in graph.order:
        for port, edge in graph.nodes[name].edges.items():
            for ref in edge if isinstance(edge, tuple) else (edge,):
                yield Arrow(_id(ref), f"n_{name}", _edge_label(ref, port))
    for name, ref in graph.outputs.items():
        yield Arrow(_id(ref), f"out_{name}", "" if ref.node == "inputs" or ref.port == name else ref.port)


def _id(ref: Ref) -> str:
    return f"in_{ref.port}" if ref.node == "inputs" else f"n_{ref.node}"


def _edge_label(ref: Ref, port: str) -> str:
    if ref.node == "inputs":
        return "" if ref.port == port else port
    return port if ref.port == port else f"{ref.port} → {port}"


def mermaid(graph: Graph, statuses: Mapping[str, str] | None = None) -> str:
    """The graph as a mermaid flowchart; GitHub draws it in a ```mermaid block."""
    lines = ["flowchart LR"]
    for name, given in graph.inputs.items():
        lines.append(f'  in_{name}[/"{_mermaid_text(name)}: {_mermaid_text(given.describe())}"/]')
    for name in graph.order:
        kind = graph.nodes[name].cls.kind
        label = _mermaid_text(name) + ("" if kind == name else f"<br/><small>{_mermaid_text(kind)}</small>")
        lines.append(f'  n_{name}["{label}"]')
    lines += [f'  out_{name}(["{_mermaid_text(name)}"])' for name in graph.outputs]
    for arrow in arrows(graph):
        label = f'|"{_mermaid_text(arrow.label)}"|' if arrow.label else ""
        lines.append(f"  {arrow.source} -->{label} {arrow.target}")
    for status, (fill, border, text) in COLOURS.items():
        found = [f"n_{n}" for n in graph.order if (statuses or {}).get(n) == status]
        if found:
            lines.append(f"  classDef {status} fill:{fill},stroke:{border},color:{text}")
            lines.append(f"  class {','.join(found)} {status}")
    return "\n".join(lines) + "\n"


def _mermaid_text(text: str) -> str:
    return text.replace("#", "#35;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")


def dot(graph: Graph, statuses: Mapping[str, str] | None = None) -> str:
    """The graph in Graphviz's language: ``graphflow dag FILE --format dot | dot -Tsvg``."""
    lines = [
        f"digraph {_quoted(graph.name)} {{",
        "  rankdir=LR;",
        '  node [shape=box, style="rounded,filled", fillcolor=white, fontname="Helvetica"];',
        '  edge [fontname="Helvetica", fontsize=10];',
    ]
    for name, given in graph.inputs.items():
        lines.append(f"  in_{name} [shape=parallelogram, style=solid, label={_quoted(f'{name}: {given.describe()}')}];")
    for name in graph.order:
        kind = graph.nodes[name].cls.kind
        label = name if kind == name else f"{name}\n{kind}"
        lines.append(f"  n_{name} [label={_quoted(label)}{_dot_colour((statuses or {}).get(name))}];")
    lines += [f"  out_{name} [shape=oval, style=bold, label={_quoted(name)}];" for name in graph.outputs]
    for arrow in arrows(graph):
        label = f" [label={_quoted(arrow.label)}]" if arrow.label else ""
        lines.append(f"  {arrow.source} -> {arrow.target}{label};")
    return "\n".join([*lines, "}"]) + "\n"


def _dot_colour(status: str | None) -> str:
    if status not in COLOURS:
        return ""
    fill, border, text = COLOURS[status]
    return f', fillcolor="{fill}", color="{border}", fontcolor="{text}", tooltip="{status}"'


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def tree(graph: Graph, statuses: Mapping[str, str] | None = None) -> str:
    """The graph as a text tree from outputs down to inputs; a node that several others use is drawn out once."""
    drawer = _Tree(graph, statuses or {})
    for name, ref in graph.outputs.items():
        drawer.output(name, ref)
    return "\n".join(drawer.lines) + "\n"


class _Branch(NamedTuple):
    ref: Ref
    port: str
    indent: str
    last: bool


class _Tree:
    def __init__(self, graph: Graph, statuses: Mapping[str, str]) -> None:
        self.graph, self.statuses = graph, statuses
        self.lines: list[str] = []
        self.drawn: set[str] = set()

    def output(self, name: str, ref: Ref) -> None:
        if ref.node in self.drawn or ref.node == "inputs":
            self.lines.append(f"{name} ← {ref}")
            return
        self.lines.append(name)
        stack = [_Branch(ref, "", "", last=True)]
        while stack:  # not recursive: a chain may be longer than Python's stack
            stack.extend(reversed(self.branch(stack.pop())))

    def branch(self, at: _Branch) -> list[_Branch]:
        """Write one line; the branches below it come back."""
        head, below = ("└── ", "    ") if at.last else ("├── ", "│   ")
        prefix = f"{at.indent}{head}{at.port}: " if at.port else f"{at.indent}{head}"
        if at.ref.node == "inputs":
            self.lines.append(prefix + str(at.ref))
            return []
        node = self.graph.nodes[at.ref.node]
        shown = at.ref.node if at.port in ("", at.ref.port) else str(at.ref)
        kind = "" if node.cls.kind == at.ref.node else f" ({node.cls.kind})"
        status = f"  [{self.statuses[at.ref.node]}]" if at.ref.node in self.statuses else ""
        again = at.ref.node in self.drawn and bool(node.edges)
        self.lines.append(f"{prefix}{shown}{kind}{status}{'  … above' if again else ''}")
        if again:
            return []
        self.drawn.add(at.ref.node)
        edges = [(p, r) for p, e in node.edges.items() for r in (e if isinstance(e, tuple) else (e,))]
        return [_Branch(r, p, at.indent + below, i == len(edges) - 1) for i, (p, r) in enumerate(edges)]
