"""What differs between two runs, and where the difference begins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from graphflow.groups import node_of, one_text, title, titles, without_positions
from graphflow.record import NodeRecord, RunRecord

ABSENT = object()


def differences(a: RunRecord, b: RunRecord) -> list[str]:
    """A line for each difference between two runs: graph, inputs, models, then node by node in order of execution.

    A node is named when it computes something else (kind, version, parameters, models), or when its bytes differ
    although its key is the same. A node that differs only because its inputs do is summed up in the last line.
    Instances of a mapped node that differ in the same way share a line.
    """
    lines = []
    for name in ("graphflow", "graph", "preset", "device", "dtype"):
        lines += _change(name, getattr(a, name), getattr(b, name))
    lines += _mapping("input", _inputs(a), _inputs(b))
    lines += _mapping("setting", a.overrides, b.overrides)
    models = ({n: m.source for n, m in r.models.items()} for r in (a, b))
    lines += _mapping("model", *models)
    found: dict[tuple[str, str], dict[str, str]] = {}
    for name, text in _nodes(a.nodes, b.nodes):
        found.setdefault((node_of(name), without_positions(text)), {})[name] = text
    lines += [f"node {title(list(group))}{one_text(list(group.values()))}" for group in found.values()]
    if followers := titles(_followers(a.nodes, b.nodes)):
        lines.append(f"other bytes, because their inputs differ: {', '.join(followers)}")
    for name in a.outputs.keys() & b.outputs.keys():
        if a.outputs[name].digest != b.outputs[name].digest:
            lines.append(f"output {name} differs")
    return lines


def _nodes(a: Mapping[str, NodeRecord], b: Mapping[str, NodeRecord]) -> Iterator[tuple[str, str]]:
    """Each node that differs by itself, and how."""
    for name in [*a, *(n for n in b if n not in a)]:
        if name not in a or name not in b:
            yield name, f" is only in the {'second' if name not in a else 'first'}"
        elif found := _own_changes(a[name], b[name]):
            yield name, f": {', '.join(found)}"


def _own_changes(one: NodeRecord, two: NodeRecord) -> list[str]:
    """What of a node differs, apart from what it was fed."""
    found = [
        *_change("kind", one.kind, two.kind),
        *_change("version", one.version, two.version),
        *_mapping("parameter", one.parameters, two.parameters),
        *_mapping("edge", one.inputs, two.inputs),
    ]
    if not found and one.key == two.key and _bytes_differ(one, two):
        found.append("the same computation gave other bytes")
    if not found and one.status != two.status and "failed" in (one.status, two.status):
        found.append(f"{one.status} → {two.status}")
    return found


def _followers(a: Mapping[str, NodeRecord], b: Mapping[str, NodeRecord]) -> Iterator[str]:
    """Each node that gave other bytes only because it was fed others."""
    for name, one in a.items():
        if name in b and _bytes_differ(one, b[name]) and not _own_changes(one, b[name]):
            yield name


def _bytes_differ(one: NodeRecord, two: NodeRecord) -> bool:
    return _digests(one) != _digests(two) and bool(one.outputs and two.outputs)


def _inputs(record: RunRecord) -> dict[str, Any]:
    return {
        n: i.value if i.value is not None else f"{i.names or i.type} {(i.digest or '')[:12]}"
        for n, i in record.inputs.items()
    }


def _digests(node: NodeRecord) -> dict[str, str]:
    return {port: value.digest for port, value in node.outputs.items()}


def _mapping(what: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    names = [*a, *(n for n in b if n not in a)]
    return [line for n in names for line in _change(f"{what} {n}", a.get(n, ABSENT), b.get(n, ABSENT))]


def _change(what: str, a: Any, b: Any) -> list[str]:
    return [f"{what} {_quoted(a)} → {_quoted(b)}"] if a != b else []


def _quoted(value: Any) -> str:
    return "absent" if value is ABSENT else repr(value) if isinstance(value, str) else str(value)
