"""What stands on the page of a run: everything the template needs, already as text, pictures and percentages."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from graphflow import units
from graphflow.mapped import EACH
from graphflow.record import InputRecord, ModelRecord, RunRecord, ValueRecord
from graphflow.report.chart import Chart, chart
from graphflow.report.elements import Elements, elements
from graphflow.report.memory import Memory
from graphflow.report.pictures import Picture
from graphflow.report.steps import Bar, Step, bars, steps
from graphflow.report.timeline import Drawn, drawn
from graphflow.report.values import Load, View, Viewer
from graphflow.spec import shipped_graphs
from graphflow.yamlfile import typed_value

HERO = 1024  # pixels of the longer side of the pictures on top
MAX_FAILURES = 20


@dataclass(frozen=True)
class Hero:
    """Before and after; `before` is None when the graph takes no picture, `after` when it makes none."""

    before: Picture | None
    after: Picture | None
    name: str


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
    elements: Elements | None
    steps: list[Step]
    bars: list[Bar]
    times: list[tuple[str, str]]
    chart: Chart
    timeline: Drawn | None
    models: list[tuple[str, ModelRecord]]
    rerun: list[str]
    again: str


def build(record: RunRecord, load: Load, memory: Memory | None = None) -> Page:
    """Assemble the page; values that can't be loaded any more are marked as such."""
    viewer = Viewer(load, memory)
    hero, shown_input, shown_output = _hero(record, viewer)
    outputs = [viewer.view(n, v) for n, v in record.outputs.items() if n != shown_output]
    texts = [(n, i) for n, i in record.inputs.items() if i.value is not None]
    quoted = next((n for n, i in texts if i.type == "Text"), "")
    given = [_input_view(n, i, viewer) for n, i in record.inputs.items() if i.value is None and n != shown_input]
    table = elements(record, given, outputs)
    tabled_inputs, tabled_outputs = (table.inputs, table.outputs) if table else ((), ())
    return Page(
        record=record,
        title=units.printable(record.title or record.graph),
        facts=_facts(record),
        failure=_failure(record),
        hero=hero,
        plain_inputs=[(n, _value_text(i.value)) for n, i in texts if n != quoted and n not in tabled_inputs],
        instruction=_value_text(record.inputs[quoted].value) if quoted else "",
        input_views=[v for v in given if v.port not in tabled_inputs],
        output_views=[v for v in outputs if v.shape != "scores" and v.port not in tabled_outputs],
        scores=[(key, value) for v in outputs if v.shape == "scores" for key, value in v.rows],
        elements=table,
        steps=steps(record, viewer),
        bars=bars(record),
        times=_times(record),
        chart=chart(record),
        timeline=drawn(record),
        models=list(record.models.items()),
        rerun=rerun_command(record),
        again=_again_command(record),
    )


def _input_view(name: str, given: InputRecord, viewer: Viewer) -> View:
    if given.type == "Folder":
        return View(name, given.type, "text", text=units.printable(given.names))
    return viewer.view(name, ValueRecord(type=given.type, digest=given.digest or ""))


def _hero(record: RunRecord, viewer: Viewer) -> tuple[Hero, str, str]:
    """The two pictures on top, and the names of the input and output that they show."""
    given = next(((n, i) for n, i in record.inputs.items() if i.type == "Image" and i.digest), None)
    made = next(((n, v) for n, v in record.outputs.items() if v.type.removesuffix("?") == "Image"), None)
    after = viewer.picture(made[1], HERO) if made else None
    before = _before(record, *given, after, viewer) if given else None
    hero = Hero(before, after, made[0] if made else "")
    return hero, given[0] if before is not None and given else "", made[0] if after is not None and made else ""


def _before(record: RunRecord, name: str, given: InputRecord, after: Picture | None, viewer: Viewer) -> Picture | None:
    """The input picture, cut to the output's frame when a node of the graph did just that."""
    if after is not None:
        for node in record.nodes.values():
            if node.kind.startswith("image.") and f"inputs.{name}" in node.inputs.values():
                for value in node.outputs.values():
                    found = viewer.picture(value, HERO) if value.type == "Image" else None
                    if found is not None and (found.width, found.height) == (after.width, after.height):
                        return found
    return viewer.picture(ValueRecord(type="Image", digest=given.digest or ""), HERO)


def _value_text(value: Any) -> str:
    return units.printable(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _facts(record: RunRecord) -> list[str]:
    preset = record.preset if isinstance(record.preset, str) else ""
    when = re.sub(r"T(\d\d:\d\d).*", r" \1", record.started)
    parts = [record.graph, f"models {preset}" if preset else "", f"{record.device} {record.dtype}", when]
    return [units.printable(part) for part in parts if part]


def _times(record: RunRecord) -> list[tuple[str, str]]:
    """The figures above the bars."""
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
    failed = {name: node for name, node in record.nodes.items() if node.status == "failed"}
    if len(failed) > 1:
        lines = [f"{name} ({node.kind}): {node.reason}" for name, node in list(failed.items())[:MAX_FAILURES]]
        more = [f"and {len(failed) - MAX_FAILURES} more"] * (len(failed) > MAX_FAILURES)
        return f"{len(failed)} of the nodes failed", units.printable("\n".join([*lines, *more]))
    for name, node in failed.items():
        return f"{name} ({node.kind}) failed", units.printable(node.reason)
    if record.status == "cancelled":
        return "The run was cancelled", "Finished nodes are stored: the same command goes on where it stopped."
    return "The run failed", "No node is to blame; see the command's message."


def _rerunnable(file: str) -> bool:
    return file.endswith(".png") and "*" not in file


def rerun_command(record: RunRecord) -> list[str]:
    """The command line that does the run again, quoted for a POSIX shell, in pieces that should not be torn apart.

    What was typed, where something was; else what the record tells of a run from Python, which knows no folders.
    """
    if record.command:
        return [units.printable(shlex.join(words)) for words in _pieces(["graphflow", *record.command])]
    parts = [["graphflow", "run", _graph_argument(record)]]
    if isinstance(record.preset, str) and not re.search(rf"(?m)^models:\s*{re.escape(record.preset)}\b", record.text):
        parts.append(["--models", record.preset])
    for name, given in record.inputs.items():
        if given.default:
            continue
        value = given.source if given.value is None else given.value
        if given.items is not None and given.source is not None:
            value = _glob(given.source if isinstance(given.source, list) else given.source.split(", "))
        if value is not None:
            option = "--map" if name in record.mapped else "-i"
            parts.append(
                [option, f"{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"]
            )
    for name, value in record.overrides.items():
        inner = name.removeprefix(f"{EACH}/") if record.mapped else name
        parts.append(["--set", f"{inner}={typed_value(value)}"])
    return [units.printable(shlex.join(words)) for words in parts]


def _again_command(record: RunRecord) -> str:
    """The command line that runs what the out folder holds.

    It names what was typed and the file does not tell: the files of nodes, and the store with what was computed.
    """
    made = next((v.file for v in record.outputs.values() if v.file and _rerunnable(v.file)), "run.json")
    needed: list[str] = []
    for word, following in itertools.pairwise([*record.command, ""]):
        if word in ("--nodes", "--store"):
            needed += [word, following]
        elif word.startswith(("--nodes=", "--store=")):
            needed.append(word)
    return units.printable(shlex.join(["graphflow", "run", made, *needed]))


def _pieces(words: list[str]) -> list[list[str]]:
    """The program and its command with the graph, then each option with what follows it."""
    pieces: list[list[str]] = [[]]
    for word in words:
        if word.startswith("-"):
            pieces.append([])
        pieces[-1].append(word)
    return pieces


def _glob(names: list[str]) -> str:
    """What finds the files of a list again, of which the record has only the names."""
    if len(names) == 1:
        return names[0]
    suffixes = {PurePath(name).suffix for name in names}
    return f"*{suffixes.pop()}" if len(suffixes) == 1 else "*"


def _graph_argument(record: RunRecord) -> str:
    """The shipped graph's name when the run was made with just that file, else the user's own file."""
    for name, path in shipped_graphs().items():
        if path.stem == record.graph and path.read_text(encoding="utf-8-sig") == record.text:
            return name
    return f"{record.graph}.yaml"
