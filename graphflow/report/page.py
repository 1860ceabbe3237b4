"""What stands on the page of a run: everything the template needs, already as text, pictures and percentages."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from typing import Any

from graphflow import units
from graphflow.record import InputRecord, ModelRecord, NodeRecord, RunRecord, ValueRecord
from graphflow.report.chart import Chart, chart
from graphflow.report.pictures import Picture, picture
from graphflow.report.values import Load, View, number, view
from graphflow.spec import shipped_graphs

HERO = 1024  # pixels of the longer side of the pictures on top


@dataclass(frozen=True)
class Hero:
    """Before and after; `before` is None when the graph takes no picture, `after` when it makes none."""

    before: Picture | None
    after: Picture | None
    name: str


@dataclass(frozen=True)
class Step:
    """A node in the gallery, with what came out of it."""

    name: str
    kind: str
    status: str
    time: str
    views: list[View]


@dataclass(frozen=True)
class Bar:
    """A node in the timeline; `left` and `width` are percentages of the whole computing time."""

    name: str
    node: NodeRecord
    time: str
    left: float
    width: float
    parameters: list[tuple[str, str]]
    inputs: list[tuple[str, str]]
    outputs: list[tuple[str, str]]


@dataclass(frozen=True)
class Page:
    """The whole page."""

    record: RunRecord
    title: str
    facts: list[str]
    failure: tuple[str, str] | None
    hero: Hero
    plain_inputs: list[tuple[str, str]]
    instruction: str
    input_views: list[View]
    output_views: list[View]
    scores: list[tuple[str, str]]
    steps: list[Step]
    bars: list[Bar]
    times: list[tuple[str, str]]
    chart: Chart
    models: list[tuple[str, ModelRecord]]
    rerun: list[str]
    again: str


def build(record: RunRecord, load: Load) -> Page:
    """Assemble the page; values that can't be loaded any more are marked as such."""
    hero, shown_input, shown_output = _hero(record, load)
    outputs = [view(n, v, load) for n, v in record.outputs.items() if n != shown_output]
    texts = [(n, i) for n, i in record.inputs.items() if i.value is not None]
    quoted = next((n for n, i in texts if i.type == "Text"), "")
    return Page(
        record=record,
        title=units.printable(record.title or record.graph),
        facts=_facts(record),
        failure=_failure(record),
        hero=hero,
        plain_inputs=[(n, _value_text(i.value)) for n, i in texts if n != quoted],
        instruction=_value_text(record.inputs[quoted].value) if quoted else "",
        input_views=[
            view(n, ValueRecord(type=i.type, digest=i.digest), load)
            for n, i in record.inputs.items()
            if i.digest is not None and i.value is None and n != shown_input
        ],
        output_views=[v for v in outputs if v.shape != "scores"],
        scores=[(key, value) for v in outputs if v.shape == "scores" for key, value in v.rows],
        steps=_steps(record, load),
        bars=_bars(record),
        times=_times(record),
        chart=chart(record),
        models=list(record.models.items()),
        rerun=rerun_command(record),
        again=next((v.file for v in record.outputs.values() if v.file and v.file.endswith(".png")), "run.json"),
    )


def _hero(record: RunRecord, load: Load) -> tuple[Hero, str, str]:
    """The two pictures on top, and the names of the input and output that they show."""
    given = next(((n, i) for n, i in record.inputs.items() if i.type == "Image" and i.digest), None)
    made = next(((n, v) for n, v in record.outputs.items() if v.type.removesuffix("?") == "Image"), None)
    after = _load_image(made[1], load) if made else None
    before = _before(record, *given, after, load) if given else None
    hero = Hero(
        picture(before, HERO) if before is not None else None,
        picture(after, HERO) if after is not None else None,
        made[0] if made else "",
    )
    return hero, given[0] if before is not None and given else "", made[0] if after is not None and made else ""


def _before(record: RunRecord, name: str, given: InputRecord, after: Any, load: Load) -> Any:
    """The input picture, cut to the output's frame when a node of the graph did just that."""
    if after is not None:
        for node in record.nodes.values():
            if node.kind.startswith("image.") and f"inputs.{name}" in node.inputs.values():
                for value in node.outputs.values():
                    image = _load_image(value, load) if value.type == "Image" else None
                    if image is not None and image.size == after.size:
                        return image
    return _load_image(ValueRecord(type="Image", digest=given.digest or ""), load)


def _load_image(value: ValueRecord, load: Load) -> Any:
    from PIL.Image import Image

    try:
        found = load(value)
    except Exception:  # it is shown among the values, with the reason
        return None
    return found if isinstance(found, Image) else None


def _value_text(value: Any) -> str:
    return units.printable(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _facts(record: RunRecord) -> list[str]:
    preset = record.preset if isinstance(record.preset, str) else ""
    when = re.sub(r"T(\d\d:\d\d).*", r" \1", record.started)
    parts = [record.graph, f"models {preset}" if preset else "", f"{record.device} {record.dtype}", when]
    return [units.printable(part) for part in parts if part]


def _times(record: RunRecord) -> list[tuple[str, str]]:
    """The figures above the timeline."""
    ran = [n.seconds for n in record.nodes.values() if n.status == "ran"]
    cached = [n.seconds for n in record.nodes.values() if n.status == "cached"]
    out = [("whole run", units.duration(record.seconds))]
    if ran:
        out.append((f"{units.plural(len(ran), 'node')} computed", units.duration(sum(ran))))
    if cached:
        out.append((f"saved by {units.plural(len(cached), 'cached node')}", units.duration(sum(cached))))
    return out


def _failure(record: RunRecord) -> tuple[str, str] | None:
    if record.status == "done":
        return None
    for name, node in record.nodes.items():
        if node.status == "failed":
            return f"{name} ({node.kind}) failed", units.printable(node.reason)
    if record.status == "cancelled":
        return "The run was cancelled", "Finished nodes are stored: the same command goes on where it stopped."
    return "The run failed", "No node is to blame; see the command's message."


def _steps(record: RunRecord, load: Load) -> list[Step]:
    steps = []
    for name, node in record.nodes.items():
        views = [view(port, value, load) for port, value in node.outputs.items()]
        if views:
            steps.append(Step(name, node.kind, node.status, _time_text(node), views))
    return steps


def _time_text(node: NodeRecord) -> str:
    if node.status == "skipped":
        return "not run"
    if node.status == "failed":
        return "failed"
    text = units.duration(node.seconds)
    return f"cached, saved {text}" if node.status == "cached" else text


def _bars(record: RunRecord) -> list[Bar]:
    """Nodes one after the other by computing time, so that saved and spent time are seen on one scale."""
    total = sum(n.seconds for n in record.nodes.values()) or 1.0
    bars, begin = [], 0.0
    for name, node in record.nodes.items():
        width = max(100 * node.seconds / total, 0.4)
        bars.append(
            Bar(
                name,
                node,
                _time_text(node),
                min(100 * begin / total, 100 - width),
                width,
                [(k, number(v)) for k, v in node.parameters.items()],
                [(k, v if isinstance(v, str) else ", ".join(v)) for k, v in node.inputs.items()],
                [(k, f"{v.type}, {units.size(v.bytes)}, {v.digest[:12]}") for k, v in node.outputs.items()],
            )
        )
        begin += node.seconds
    return bars


def rerun_command(record: RunRecord) -> list[str]:
    """The command line that does the run again, quoted for a POSIX shell, in pieces that should not be torn apart."""
    parts = [["graphflow", "run", _graph_argument(record)]]
    if isinstance(record.preset, str) and not re.search(rf"(?m)^models:\s*{re.escape(record.preset)}\b", record.text):
        parts.append(["--models", record.preset])
    for name, given in record.inputs.items():
        value = given.source if given.value is None else given.value
        if value is not None:
            parts.append(["-i", f"{name}={value if isinstance(value, str) else json.dumps(value)}"])
    for name, value in record.overrides.items():
        parts.append(["--set", f"{name}={value if isinstance(value, str) else json.dumps(value)}"])
    return [units.printable(shlex.join(words)) for words in parts]


def _graph_argument(record: RunRecord) -> str:
    """The shipped graph's name when the run was made with just that file, else the user's own file."""
    for name, path in shipped_graphs().items():
        if path.stem == record.graph and path.read_text(encoding="utf-8-sig") == record.text:
            return name
    return f"{record.graph}.yaml"
