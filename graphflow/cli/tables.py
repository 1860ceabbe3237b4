"""Plans, kinds and records as text for people: works on 80 columns and on a pipe; colours only on a terminal."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from graphflow import units
from graphflow.cli.describe import bounds_text, cache_words, default_text, port_doc, signature, type_name
from graphflow.groups import grouped, one_text, title, without_positions

if TYPE_CHECKING:
    from graphflow.graph import Graph
    from graphflow.node import Node
    from graphflow.plan import Plan, PlannedNode
    from graphflow.record import NodeRecord, RunRecord

FOLDED = 30  # columns that long cells need beside the headings for these to stay whole
STYLES = {
    "cached": "dim", "run": "green", "maybe": "yellow", "ran": "green", "failed": "bold red", "interrupted": "yellow",
    "skipped": "dim",
}  # fmt: skip


def output() -> Console:
    """Standard output: as wide as the terminal, 100 columns on a pipe, where folded lines would only get in the way."""
    import sys

    return Console(highlight=False, width=None if sys.stdout.isatty() else 100)


def plan_table(plan: Plan, graph: Graph, console: Console | None = None, every: bool = False) -> None:
    """What a run would do, a line a node, and the sums below.

    Args:
        plan: what would run.
        graph: its graph.
        console: where it is printed.
        every: a line for each instance of a mapped node.
    """
    console = console or output()
    if graph.title:
        console.print(_text(graph.title, "bold"), soft_wrap=True)
    groups = [[name] for name in plan.nodes] if every else grouped(plan.nodes).values()
    rows = [[plan.nodes[name] for name in names] for names in groups]
    sizes = any(_bytes(nodes) for nodes in rows)
    times = any(_expected(nodes) for nodes in rows)
    table = _table("node", "kind", "status", "reason", *[">size"] * sizes, *[">time"] * times)
    for nodes in rows:
        name, kind = title([n.name for n in nodes]), nodes[0].kind
        cells = [_text(name), _text(kind, "dim"), _counted([n.status for n in nodes]), _text(_reason(nodes))]
        table.add_row(*cells, *[_text(_bytes(nodes))] * sizes, *[_text(_expected(nodes))] * times)
    console.print(table)
    for decided in dict.fromkeys(f"{n.node or n.name}: {n.decision}" for n in plan.nodes.values() if n.decision):
        console.print(_text(decided), soft_wrap=True)
    console.print(_text(plan_summary(plan)), soft_wrap=True)


def _counted(statuses: Sequence[str]) -> Text:
    """``cached``, ``run ×30``, or ``cached ×28, run ×2``, in the colour of what matters most."""
    counts = {status: n for status in STYLES if (n := statuses.count(status))}
    shown = ", ".join(f"{status} ×{count}" if len(statuses) > 1 else status for status, count in counts.items())
    first = next(s for s in ("failed", "interrupted", "run", "ran", "maybe", *STYLES) if s in counts)
    return _text(shown, STYLES[first])


def _reason(nodes: Sequence[PlannedNode]) -> str:
    """Why instances run; of several reasons the first, and how many more there are."""
    found = [n.reason for n in nodes if n.status == "run"] or [n.reason for n in nodes if n.status == "maybe"]
    if not found:
        return ""
    if (same := one_text(found)) is not None:
        return same
    others = len({without_positions(reason) for reason in found}) - 1
    return f"{found[0]} (and {units.plural(others, 'other reason')})"


def _bytes(nodes: Sequence[PlannedNode]) -> str:
    known = [n.bytes for n in nodes if n.bytes is not None]
    return units.size(sum(known)) if known else ""


def _expected(nodes: Sequence[PlannedNode]) -> str:
    known = [n.seconds for n in nodes if n.seconds is not None and n.status != "cached"]
    return units.duration(sum(known)) if known else ""


def plan_summary(plan: Plan) -> str:
    """``9 cached, 3 to run, 2 maybe; about 4.2 s by earlier runs, 38 s saved``, with what is known of the times."""
    nodes = list(plan.nodes.values())
    if nodes and all(n.status == "cached" for n in nodes):
        return f"everything is cached: {units.plural(len(nodes), 'node')}, nothing runs"
    words = {"cached": "cached", "run": "to run", "maybe": "maybe"}
    counts = ((sum(n.status == status for n in nodes), word) for status, word in words.items())
    out = ", ".join(f"{count} {word}" for count, word in counts if count)
    active = [n for n in nodes if n.status != "cached"]
    known = [n.seconds for n in active if n.seconds is not None]
    if known:
        about = "about" if len(known) == len(active) else "at least"
        out += f"; {about} {units.duration(sum(known))} by earlier runs"
    saved = sum(n.seconds or 0.0 for n in nodes if n.status == "cached")
    return out + (f", {units.duration(saved)} saved" if saved >= 0.001 else "")


def nodes_table(classes: Iterable[type[Node]], console: Console | None = None) -> None:
    """The catalogue: kinds by family with what goes in, what comes out, and a line of explanation."""
    console = console or output()
    family = None
    for cls in sorted(classes, key=lambda c: c.kind):
        found = cls.kind.partition(".")[0]
        if found != family:
            console.print(_text(("" if family is None else "\n") + found, "bold"))
            family = found
        line = Text.assemble("  ", (cls.kind, "cyan"), "  ", (signature(cls), "dim"))
        console.print(line, soft_wrap=not console.is_terminal)
        if summary := cls.summary():
            console.print(_text(f"      {summary}"), soft_wrap=not console.is_terminal)


def node_page(cls: type[Node], console: Console | None = None) -> None:
    """A kind's catalogue entry: docstring, ports, parameters, and what it says to the cache."""
    console = console or output()
    console.print(Text.assemble((cls.kind, "bold cyan"), (f"  version {cls.version}", "dim")))
    console.print()
    console.print(_text(inspect.getdoc(cls) or "no description"))
    for heading, ports in (("Inputs", cls.inputs()), ("Outputs", cls.outputs())):
        table = _table(heading, "type", "", head="bold")
        for port in ports.values():
            table.add_row(_text(port.name), _text(port.describe(), "cyan"), _text(port_doc(port), "dim"))
        if ports:
            console.print()
            console.print(table)
    if cls.model_fields:
        console.print(_text("\nParameters", "bold"))
    for name, info in cls.model_fields.items():
        bounds = bounds_text(info)
        console.print(
            Text.assemble(
                name,
                "  ",
                (type_name(info.annotation), "cyan"),
                default_text(info),
                (bounds and f"  {bounds}", "dim"),
            )
        )
        console.print(Padding(_text(info.description or "", "dim"), (0, 0, 0, 4), expand=False))
    console.print()
    console.print(_text(f"Cache: {cache_words(cls)}", "dim"))


def record_page(record: RunRecord, console: Console | None = None) -> None:
    """What ``graphflow show`` prints of a picture or a ``run.json``."""
    console = console or output()
    console.print(_text(record.title or record.graph, "bold"))
    preset = record.preset if isinstance(record.preset, str) else "inline" if record.preset else "none"
    facts: list[tuple[str, str]] = [
        ("graph", record.graph), ("models", preset), ("made by", f"graphflow {record.graphflow}"),
        ("when", record.started), ("device", f"{record.device} {record.dtype}"),
        ("status", f"{record.status} in {units.duration(record.seconds)}"), *_device_facts(record),
    ]  # fmt: skip
    listing([(k, v) for k, v in facts if v], console)
    for heading, rows in _record_sections(record):
        if rows:
            console.print(_text(f"\n{heading}", "bold"))
            listing(rows, console)
    if record.nodes:
        console.print()
        console.print(_record_table(record))
    for name, node in record.nodes.items():
        if node.status == "failed":
            console.print(_text(f"{name} failed: {node.reason}", "bold red"))


def _device_facts(record: RunRecord) -> list[tuple[str, str]]:
    """How each device was used, where models were loaded."""
    from graphflow.timeline import timeline

    found = timeline(record)
    out = []
    for lane in found.lanes:
        loads = [load for load in found.arrivals if load.device == lane.device]
        if loads:
            share = f"busy {100 * lane.busy / found.seconds:.0f} %" if found.seconds else ""
            limit = f" of {units.size(lane.budget)}" if lane.budget is not None else ""
            weights = f"{units.plural(len(loads), 'load')}, at most {units.size(lane.most)}{limit} of weights"
            out.append((lane.device, ", ".join(filter(None, (share, weights)))))
    return out


def _record_table(record: RunRecord) -> Table:
    """A line a node; memory only where a device told it."""
    from graphflow.timeline import NOT_COMPUTED

    peaks = any(node.peak is not None for node in record.nodes.values())
    table = _table("node", "kind", "status", "parameters", *[">peak"] * peaks, ">time")
    for names in grouped(record.nodes).values():
        nodes = [record.nodes[name] for name in names]
        kind, seconds = f"{nodes[0].kind} v{nodes[0].version}", sum(n.seconds for n in nodes)
        took = units.duration(seconds) if any(n.status not in NOT_COMPUTED for n in nodes) else ""
        peak = max((n.peak for n in nodes if n.peak is not None), default=None)
        table.add_row(
            _text(title(names)), _text(kind, "dim"), _counted([n.status for n in nodes]), _text(_parameters(nodes)),
            *[_text("" if peak is None else units.size(peak))] * peaks, _text(took),
        )  # fmt: skip
    return table


def _record_sections(record: RunRecord) -> list[tuple[str, list[tuple[str, str]]]]:
    inputs = [
        (n, i.names or (json.dumps(i.value, ensure_ascii=False) if i.value is not None else f"{i.type} {i.digest}"))
        for n, i in record.inputs.items()
    ]
    overrides = [(n, json.dumps(v, ensure_ascii=False)) for n, v in record.overrides.items()]
    models = [(n, f"{m.source}  {m.loader}") for n, m in record.models.items()]
    outputs = [(n, " ".join(filter(None, (v.type, v.file, units.size(v.bytes))))) for n, v in record.outputs.items()]
    return [("inputs", inputs), ("set", overrides), ("models", models), ("outputs", outputs)]


def _parameters(nodes: Sequence[NodeRecord]) -> str:
    """Parameters, and ``several`` where instances have different ones."""
    found: dict[str, set[str]] = {}
    for node in nodes:
        for name, value in node.parameters.items():
            found.setdefault(name, set()).add(json.dumps(value, ensure_ascii=False))
    return ", ".join(f"{name}={texts.pop() if len(texts) == 1 else 'several'}" for name, texts in found.items())


def listing(rows: Sequence[tuple[str, str]], console: Console | None = None) -> None:
    """Names and values in two columns, values wrapped under themselves."""
    console = console or output()
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(_text(f"  {name}"), _text(value))
    console.print(table)


def rows_table(columns: Sequence[str], rows: Iterable[Sequence[str]], console: Console | None = None) -> None:
    """Any table of texts, such as the cache's listing; a column whose name begins with ``>`` is flush right."""
    console = console or output()
    headings = sum(len(column) + 2 for column in columns)
    table = _table(*columns, whole=headings < console.width - FOLDED)
    for row in rows:
        table.add_row(*map(_text, row))
    console.print(table)


MARKS = {"good": ("✓", "green"), "note": ("·", "dim"), "todo": ("!", "yellow"), "bad": ("✗", "bold red")}


def checks(findings: Iterable[tuple[str, str, str, str]], console: Console | None = None) -> None:
    """What ``doctor`` found: how it is, what was looked at, what was found, and below that what to do next."""
    console = console or output()
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for state, name, found, todo in findings:
        mark, style = MARKS[state]
        table.add_row(Text(mark, style), _text(name), _text(found, "dim"))
        if todo:
            table.add_row("", "", _text(f"→ {todo}", "" if style == "dim" else style))
    console.print(table)


def _table(*columns: str, head: str = "dim", whole: bool = False) -> Table:
    """An empty table; with `whole`, headings are not folded."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=head)
    for column in columns:
        right = column.startswith(">")
        long = column in ("reason", "parameters", "")
        table.add_column(
            column.lstrip(">"), justify="right" if right else "left", no_wrap=right, overflow="fold",
            ratio=None, min_width=12 if long else len(column.lstrip(">")) if whole else None,
        )  # fmt: skip
    return table


def _text(text: str, style: str = "") -> Text:
    """Never markup, never control characters: graphs and records come from strangers."""
    return Text(units.printable(text), style=style)
