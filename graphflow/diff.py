"""What differs between two runs, and where the difference begins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from graphflow.record import NodeRecord, RunRecord

ABSENT = object()


def differences(a: RunRecord, b: RunRecord) -> list[str]:
    """A line for each difference between two runs: graph, inputs, models, then node by node in order of execution.

    A node is named when it computes something else (kind, version, parameters, models), or when its bytes differ
    although its key is the same. A node that differs only because its inputs do is summed up in the last line.
    """
    lines = []
    for name in ("graphflow", "graph", "preset", "device", "dtype"):
        lines += _change(name, getattr(a, name), getattr(b, name))
    lines += _mapping("input", _inputs(a), _inputs(b))
    lines += _mapping("setting", a.overrides, b.overrides)
    models = ({n: m.source for n, m in r.models.items()} for r in (a, b))
    lines += _mapping("model", *models)
    lines += _nodes(a.nodes, b.nodes)
    for name in a.outputs.keys() & b.outputs.keys():
        if a.outputs[name].digest != b.outputs[name].digest:
            lines.append(f"output {name} differs")
    return lines


def _nodes(a: Mapping[str, NodeRecord], b: Mapping[str, NodeRecord]) -> Iterator[str]:
    followers = []
    for name in [*a, *(n for n in b if n not in a)]:
        if name not in a or name not in b:
            yield f"node {name} is only in the {'second' if name not in a else 'first'}"
            continue
        one, two = a[name], b[name]
        found = [
            *_change("kind", one.kind, two.kind),
            *_change("version", one.version, two.version),
            *_mapping("parameter", one.parameters, two.parameters),
            *_mapping("edge", one.inputs, two.inputs),
        ]
        bytes_differ = _digests(one) != _digests(two) and bool(one.outputs and two.outputs)
        if found:
            yield f"node {name}: {', '.join(found)}"
        elif one.key == two.key and bytes_differ:
            yield f"node {name}: the same computation gave other bytes"
        elif one.status != two.status and "failed" in (one.status, two.status):
            yield f"node {name}: {one.status} → {two.status}"
        elif bytes_differ:
            followers.append(name)
    if followers:
        yield f"other bytes, because their inputs differ: {', '.join(followers)}"


def _inputs(record: RunRecord) -> dict[str, Any]:
    return {
        n: i.value if i.value is not None else f"{i.source or i.type} {(i.digest or '')[:12]}"
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
