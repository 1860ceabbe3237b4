"""The nodes of a run as the page tells them: instances of a mapped node are one step, and one bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from graphflow import units
from graphflow.groups import grouped, one_text, position, title
from graphflow.record import NodeRecord, RunRecord, ValueRecord
from graphflow.report.values import View, Viewer, number

MAX_ELEMENTS = 100  # instances that are listed below a bar; those that failed stand there in any case
WORDS = {
    "ran": "computed", "cached": "cached", "failed": "failed", "interrupted": "interrupted", "skipped": "not run",
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """A node in the gallery, with what came out of it."""

    name: str
    kind: str
    status: str
    time: str
    views: list[View]


@dataclass(frozen=True)
class Element:
    """An instance of a mapped node below its bar."""

    position: str
    status: str
    time: str
    reason: str
    peak: str = ""


@dataclass(frozen=True)
class Bar:
    """A node's computing time; `left` and `width` are percentages of the whole computing time."""

    name: str
    anchor: str
    status: str
    time: str
    left: float
    width: float
    facts: list[tuple[str, str]]
    key: str = ""
    elements: list[Element] = field(default_factory=list)
    more: int = 0


def steps(record: RunRecord, viewer: Viewer) -> list[Step]:
    """The gallery."""
    out = []
    for names in grouped(record.nodes).values():
        nodes = [record.nodes[n] for n in names]
        views = _views(names, nodes, viewer)
        if views:
            out.append(Step(title(names), nodes[0].kind, status_of(nodes), time_text(nodes), views))
    return out


def _views(names: Sequence[str], nodes: Sequence[NodeRecord], viewer: Viewer) -> list[View]:
    if len(nodes) == 1:
        return [viewer.view(port, value) for port, value in nodes[0].outputs.items()]
    ports: dict[str, list[tuple[str, ValueRecord]]] = {}
    for name, node in zip(names, nodes, strict=True):
        for port, value in node.outputs.items():
            ports.setdefault(port, []).append((position(name), value))
    return [viewer.merged(port, values) for port, values in ports.items()]


def status_of(nodes: Sequence[NodeRecord]) -> str:
    """What several instances have come to: the worst, or the most that had to be done."""
    found = {node.status for node in nodes}
    return next(s for s in ("failed", "interrupted", "ran", "cached", "skipped") if s in found)


def time_text(nodes: Sequence[NodeRecord]) -> str:
    """``1.20 s``, ``cached, saved 3.40 s``, or ``28 computed in 3.20 s, 2 cached``."""
    if len(nodes) > 1:
        parts = []
        for status, word in WORDS.items():
            those = [n.seconds for n in nodes if n.status == status]
            took = f" in {units.duration(sum(those))}" if status == "ran" else ""
            parts += [f"{len(those)} {word}{took}"] * bool(those)
        return ", ".join(parts)
    [node] = nodes
    if node.status in ("skipped", "failed", "interrupted"):
        return WORDS[node.status]
    text = units.duration(node.seconds)
    return f"cached, saved {text}" if node.status == "cached" else text


def bars(record: RunRecord) -> list[Bar]:
    """Nodes one after the other by computing time, so that saved and spent time are seen on one scale."""
    total = sum(n.seconds for n in record.nodes.values()) or 1.0
    out, begin = [], 0.0
    for anchor, names in grouped(record.nodes).items():
        nodes = [record.nodes[n] for n in names]
        seconds = sum(n.seconds for n in nodes)
        width = max(100 * seconds / total, 0.4)
        elements, more = _elements(names, nodes) if len(nodes) > 1 else ([], 0)
        out.append(
            Bar(
                title(names), anchor, status_of(nodes), time_text(nodes), min(100 * begin / total, 100 - width), width,
                _facts(nodes), nodes[0].key or "" if len(nodes) == 1 else "", elements, more,
            )
        )  # fmt: skip
        begin += seconds
    return out


def _facts(nodes: Sequence[NodeRecord]) -> list[tuple[str, str]]:
    """What stands below a bar: of several instances what is the same for all."""
    first = nodes[0]
    out = [("kind", f"{first.kind}, version {first.version}")]
    if len(nodes) == 1:
        out.append(("status", first.status + (f": {first.reason}" if first.reason else "")))
    out += _where(nodes)
    for port in first.inputs:
        texts = [_edge(n.inputs[port]) for n in nodes if port in n.inputs]
        out.append((port, f"← {one_text(texts) or 'several'}"))
    for name in first.parameters:
        texts = [number(n.parameters[name]) for n in nodes if name in n.parameters]
        out.append((name, texts[0] if len(set(texts)) == 1 else "several"))
    if len(nodes) == 1:
        outputs = first.outputs.items()
        out += [(f"→ {k}", f"{v.type}, {units.size(v.bytes)}, {v.digest[:12]}") for k, v in outputs]
    return out


def _where(nodes: Sequence[NodeRecord]) -> list[tuple[str, str]]:
    """Device, batch and peak memory, as far as they are known; of several instances the largest."""
    devices = dict.fromkeys(n.device for n in nodes if n.device)
    out = [("computed on", ", ".join(devices))] if devices else []
    if (batch := max(n.batch for n in nodes)) > 1:
        out.append(("batch", f"{batch} together" if len(nodes) == 1 else f"up to {batch} together"))
    if peak := peak_text(nodes):
        out.append(("peak memory", f"{peak} beside the weights"))
    return out


def peak_text(nodes: Sequence[NodeRecord]) -> str:
    """The largest peak of several instances; empty where none is known."""
    peaks = [n.peak for n in nodes if n.peak is not None]
    return units.size(max(peaks)) if peaks else ""


def _edge(found: str | list[str]) -> str:
    return found if isinstance(found, str) else ", ".join(found)


def _elements(names: Sequence[str], nodes: Sequence[NodeRecord]) -> tuple[list[Element], int]:
    out: list[Element] = []
    more = 0
    for name, node in zip(names, nodes, strict=True):
        if len(out) < MAX_ELEMENTS or node.status == "failed":
            out.append(Element(position(name), node.status, time_text([node]), node.reason, peak_text([node])))
        else:
            more += 1
    return out, more
