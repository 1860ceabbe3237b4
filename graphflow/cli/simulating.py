"""``plan --simulate``: what a run would take on other hardware, as text for people and as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from graphflow import units
from graphflow.cli.tables import output
from graphflow.errors import UsageError
from graphflow.scheduler.simulate import Simulated
from graphflow.scheduler.whatif import WhatIf, parse_machine, what_if

if TYPE_CHECKING:
    from graphflow.plan import Plan
    from graphflow.session import Session

SHOWN = 8  # devices with a line of their own
WIDTH = 64  # characters of the timeline
BUSY, LOADING, BOTH, READING, IDLE = "█", "░", "▓", "─", " "


def show(plan: Plan, session: Session, machine: str | None, assume: Mapping[str, str], as_json: bool) -> None:
    """Simulate a plan and print what came of it.

    Raises:
        UsageError: the machine or an assumption is not understood.
    """
    if machine is None:
        raise UsageError("--assume goes with --simulate")
    lengths, sizes = _assumed(assume)
    out = what_if(plan, session.graph, parse_machine(machine), session.dtype, lengths, sizes)
    if as_json:
        print(json.dumps(data_of(out), indent=1))
    elif not out.tasks:
        print("nothing would run: everything is cached")
    else:
        print_what_if(out)


def _assumed(assume: Mapping[str, str]) -> tuple[dict[str, int], dict[str, int]]:
    """Lengths of lists, which are plain numbers, and sizes of models, which have a unit."""
    lengths, sizes = {}, {}
    for name, value in assume.items():
        if re.fullmatch(r"[0-9]{1,7}", value):
            lengths[name] = int(value)
            continue
        try:
            sizes[name] = units.parse_size(value)
        except ValueError:
            hint = "expected the length of a list, such as 32, or the size of a model, such as 1.7GB"
            raise UsageError(f"--assume {name}={value}: {hint}") from None
    return lengths, sizes


def print_what_if(out: WhatIf, console: Console | None = None) -> None:
    """The sums, the devices, the models, a timeline, and what was assumed."""
    console = console or output()
    result = out.result
    console.print(_sums(out), soft_wrap=True)
    console.print()
    console.print(_devices(out))
    if result.loads:
        console.print()
        console.print(_models(out))
    console.print()
    console.print(timeline(out), soft_wrap=True)
    console.print()
    console.print(Text("\n".join(assumptions(out)), "dim"), soft_wrap=True)


def _sums(out: WhatIf) -> Text:
    result, bound = out.result, out.bound
    text = Text()
    text.append(units.duration(result.makespan), "bold")
    text.append(f" for {units.plural(len(out.tasks), 'task')}")
    if result.makespan > bound.seconds * 1.005:
        text.append(f", {result.makespan / bound.seconds - 1:.0%} more")
        text.append(f" than {bound.what} alone {'take' if bound.what == 'the devices' else 'takes'}")
        text.append(f" ({units.duration(bound.seconds)})")
    else:
        text.append(f", no longer than {bound.what} alone {'take' if bound.what == 'the devices' else 'takes'}")
    if loads := sum(result.loads.values()):
        text.append(f"; {units.plural(len(result.loads), 'model')}, {units.plural(loads, 'load')}")
        text.append(f", {units.plural(result.evictions, 'eviction')}")
    return text


def _devices(out: WhatIf) -> Table:
    table = _table("device", ">computes", ">loads", ">waits", ">peak memory", ">tasks")
    shown, rest = _split(out)
    for name in shown:
        table.add_row(name, *_shares(out, [name]))
    if rest:
        table.add_row(f"{len(rest)} others", *_shares(out, rest))
    return table


def _split(out: WhatIf) -> tuple[list[str], list[str]]:
    """Devices to show one by one, and the others; those that do nothing last."""
    names = [d.name for d in out.machine.devices if d.kind == "device"]
    host = [d.name for d in out.machine.devices if d.kind == "host" and any(t.where == "host" for t in out.tasks)]
    if len(names) <= SHOWN:
        return names + host, []
    return names[: SHOWN - 1] + host, names[SHOWN - 1 :]


def _shares(out: WhatIf, names: list[str]) -> list[str]:
    result = out.result
    span = max(result.makespan, 1e-9) * len(names) * (out.machine.cpus if names == ["host"] else 1)
    busy = sum(result.busy[n] for n in names) / span
    loading = sum(result.loading[n] for n in names) / span
    wanted = set(names)
    tasks = sum(len(step.tasks) for step in result.steps if step.device in wanted)
    peak = max(result.peak[n] for n in names)
    memory = "" if names == ["host"] else units.size(peak)
    return [f"{busy:.0%}", f"{loading:.0%}", f"{max(0.0, 1 - busy - loading):.0%}", memory, str(tasks)]


def _models(out: WhatIf) -> Table:
    table = _table("model", ">size", ">from disk", ">to device", ">loads")
    for key, count in sorted(out.result.loads.items(), key=lambda item: -_bytes(out, item[0])):
        spec = out.models.get(key)
        name = out.names[key]
        if spec is None or spec.bytes == 0:
            table.add_row(name, "unknown", "", "", str(count))
            continue
        times = [units.duration(spec.load_seconds), units.duration(spec.transfer_seconds)]
        table.add_row(name, units.size(spec.bytes), *times, str(count))
    return table


def _bytes(out: WhatIf, key: str) -> int:
    return out.models[key].bytes if key in out.models else 0


def timeline(out: WhatIf) -> Group:
    """A line a device: what it does in each of `WIDTH` parts of the time."""
    result = out.result
    shown, rest = _split(out)
    pad = max(len(name) for name in [*shown, "disk"])
    lines = [Text(f"{name:{pad}} ").append(_line(result, name), "green") for name in shown]
    if rest:
        lines.append(Text(f"{'':{pad}} and {len(rest)} more", "dim"))
    if any(s.what == "read" and s.end > s.start for s in result.spans):
        lines.append(Text(f"{'disk':{pad}} ").append(_disk(result), "yellow"))
    right = units.duration(result.makespan)
    lines.append(Text(f"{'':{pad}} 0{right:>{WIDTH - 1}}", "dim"))
    lines.append(Text(f"{'':{pad}} {BUSY} computes  {LOADING} waits for models  {BOTH} both  {READING} reads", "dim"))
    return Group(*lines)


def _line(result: Simulated, device: str) -> str:
    busy, loading = [0.0] * WIDTH, [0.0] * WIDTH
    for span in result.spans:
        if span.device == device and span.what != "read":
            _spread(busy if span.what == "run" else loading, span.start, span.end, result.makespan)
    half = result.makespan / WIDTH / 2
    return "".join(
        (BOTH if b > 0 and b + w >= half and w > b / 4 else BUSY if b >= half else LOADING if w >= half else IDLE)
        for b, w in zip(busy, loading, strict=True)
    )


def _disk(result: Simulated) -> str:
    reading = [0.0] * WIDTH
    for span in result.spans:
        if span.what == "read":
            _spread(reading, span.start, span.end, result.makespan)
    return "".join(READING if seconds > 0 else IDLE for seconds in reading)


def _spread(cells: list[float], start: float, end: float, whole: float) -> None:
    """Add a span's seconds to the cells that it covers."""
    if whole <= 0:
        return
    width = whole / len(cells)
    for cell in range(min(int(start / width), len(cells) - 1), min(int(end / width), len(cells) - 1) + 1):
        cells[cell] += max(0.0, min(end, (cell + 1) * width) - max(start, cell * width))


def assumptions(out: WhatIf) -> list[str]:
    """What the figures rest on."""
    machine = out.machine
    lines = []
    if out.known:
        lines.append(f"times known from earlier runs: {', '.join(sorted(out.known))}")
    for seconds in sorted(set(out.guessed.values()), reverse=True):
        kinds = sorted(kind for kind, guess in out.guessed.items() if guess == seconds)
        lines.append(f"never run, taken as {units.duration(seconds)} each: {', '.join(kinds)}")
    for axis, length in out.lengths.items():
        lines.append(f"length of what '{axis}' is mapped over is not known, taken as {length}: see --assume {axis}=N")
    if out.sizes:
        lines.append(f"size unknown, counted as nothing: {', '.join(out.sizes)}; see --assume NAME=SIZE")
    memory = "no memory limit" if machine.memory is None else units.size(machine.memory)
    kind = units.plural(machine.gpus, "GPU") if machine.gpus else "a CPU"
    moves = f"{_rate(machine.transfer)} to each GPU, " if machine.gpus else ""
    lines.append(
        f"on {kind} with {memory}, {_rate(machine.load)} from disk, {moves}nodes "
        f"{machine.speed:g} times as fast as above, {units.plural(machine.cpus, 'CPU worker')}; one task at a time"
    )
    return lines


def _rate(rate: int) -> str:
    return f"{rate / 1e9:g} GB/s"


def data_of(out: WhatIf) -> dict[str, Any]:
    """The same as JSON."""
    result = out.result
    return {
        "makespan": result.makespan,
        "lower_bound": {"seconds": out.bound.seconds, **out.bound._asdict()},
        "tasks": len(out.tasks),
        "loads": {out.names[key]: count for key, count in result.loads.items()},
        "evictions": result.evictions,
        "devices": {
            name: {"busy": result.busy[name], "loading": result.loading[name], "peak": result.peak[name]}
            for name in result.busy
        },
        "timeline": [
            {"device": s.device, "what": s.what, "start": s.start, "end": s.end, "label": s.label, "count": s.count}
            for s in result.spans
        ],
        "assumed": assumptions(out),
    }


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", no_wrap=True)
    return table
