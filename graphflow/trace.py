"""A run as a trace that Perfetto and Chrome's tracing page open: the JSON object format of trace events.

A process is a device or the host; its threads are what computes there and what loads models, each one event at a time.
The format: "Trace Event Format", Google, with `ts` and `dur` in microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from graphflow.record import LoadRecord, NodeRecord, RunRecord
from graphflow.timeline import HOST, Call, Lane, Timeline, arrives, rows, timeline
from graphflow.units import printable

TraceEvent = dict[str, Any]
RUN = 1  # the process of the run itself; host and devices follow
CALLS, LOADS, WAITS = (
    100,
    1000,
    2000,
)  # the numbers of a process's first threads; one that equals the process would be its main one


def write_trace(record: RunRecord, path: Path) -> None:
    """Write the trace of a run.

    Raises:
        OSError: the file can't be written.
    """
    path.write_text(json.dumps(trace(record), allow_nan=False) + "\n", encoding="utf-8")


def trace(record: RunRecord) -> dict[str, Any]:
    """The trace of a run as the format's JSON object."""
    found = timeline(record)
    return {
        "traceEvents": list(_events(record, found)),
        "displayTimeUnit": "ms",
        "otherData": {"graph": record.graph, "graphflow": record.graphflow, "started": record.started},
    }


def _events(record: RunRecord, found: Timeline) -> Iterator[TraceEvent]:
    yield from _process(RUN, f"run of {record.graph}")
    yield from _thread(RUN, CALLS, "run")
    args = {"status": record.status, "device": record.device, "dtype": record.dtype}
    yield _complete(RUN, CALLS, record.title or record.graph, "run", 0, _micro(found.seconds), args)
    numbers = count(RUN + 1)
    to_host = [load for load in found.loads if not arrives(load)]
    if found.host or to_host:
        process = next(numbers)
        yield from _process(process, HOST)
        yield from _calls(record, process, rows(found.host), "worker")
        yield from _loads(process, to_host, "from disk")
    for lane in found.lanes:
        yield from _device(record, next(numbers), lane, found)


def _device(record: RunRecord, process: int, lane: Lane, found: Timeline) -> Iterator[TraceEvent]:
    yield from _process(process, lane.device)
    yield from _calls(record, process, rows(lane.calls), "compute")
    own = [load for load in found.arrivals if load.device == lane.device]
    yield from _loads(process, own, "loads")
    for move in found.released:
        if move.device == lane.device and own:
            args = {"model": printable(move.model), "bytes": move.bytes}
            when = _micro(move.started)
            yield _event("i", process, f"release {move.model}", tid=LOADS, ts=when, s="t", cat="release", args=args)
    yield from _waits(process, lane)
    if lane.weights:
        steps = [(0.0, 0), *lane.weights, (found.seconds, lane.weights[-1][1])]
        for at, size in steps:
            yield _event("C", process, "weights", ts=_micro(at), args={"bytes": size})
    if lane.budget is not None:
        for at in (0.0, found.seconds):
            yield _event("C", process, "budget", ts=_micro(at), args={"bytes": lane.budget})


def _calls(record: RunRecord, process: int, lines: Sequence[Sequence[Call]], name: str) -> Iterator[TraceEvent]:
    """A thread a row of calls."""
    for thread, line in enumerate(lines, CALLS):
        yield from _thread(process, thread, name if len(lines) == 1 else f"{name} {thread - CALLS + 1}")
        spans = [(_micro(c.start), _micro(c.end), c) for c in line]
        for start, end, call in _apart(spans):
            shown = call.names[0] if len(call.names) == 1 else f"{call.kind} ×{len(call.names)}"
            args = _call_args(call, record.nodes[call.names[0]])
            yield _complete(process, thread, shown, call.kind, start, end - start, args)


def _call_args(call: Call, node: NodeRecord) -> TraceEvent:
    found: TraceEvent = {"node": printable(", ".join(call.names)), "kind": printable(call.kind)}
    if len(call.names) == 1:
        found |= {"key": node.key, "reason": printable(node.reason)}
    if call.batch > 1:
        found["batch"] = call.batch
    if call.peak is not None:
        found["peak"] = call.peak
    if call.failed:
        found["failed"] = True
    return {name: value for name, value in found.items() if value not in (None, "")}


def _loads(process: int, loads: Sequence[LoadRecord], name: str) -> Iterator[TraceEvent]:
    """Loads in threads behind those of calls; several loads at a time stand in several threads."""
    free: list[int] = []
    for load in loads:
        start, end = _micro(load.started), _micro(load.started + load.seconds)
        thread = next((i for i, since in enumerate(free) if since <= start), len(free))
        if thread == len(free):
            free.append(0)
            yield from _thread(process, LOADS + thread, name if thread == 0 else f"{name} {thread + 1}")
        free[thread] = end
        args = {"model": printable(load.model), "bytes": load.bytes}
        yield _complete(process, LOADS + thread, load.model, "load", start, end - start, args)


def _waits(process: int, lane: Lane) -> Iterator[TraceEvent]:
    """Why a device computed nothing, where that is known."""
    known = [wait for wait in lane.waits if wait.reason]
    if known:
        yield from _thread(process, WAITS, "waits")
    free = 0
    for wait in known:
        start, end = max(free, _micro(wait.start)), _micro(wait.start + wait.seconds)
        free = max(start, end)
        yield _complete(process, WAITS, wait.reason, "wait", start, free - start, {})


def _apart(spans: Iterable[tuple[int, int, Call]]) -> Iterator[tuple[int, int, Call]]:
    """Spans of a row, those cut that overlap by what two readings of a clock differ: a thread does one at a time."""
    free = 0
    for start, end, call in spans:
        start = max(start, free)
        free = max(end, start)
        yield start, free, call


def _process(number: int, name: str) -> Iterator[TraceEvent]:
    yield _event("M", number, "process_name", args={"name": printable(name)})
    yield _event("M", number, "process_sort_index", args={"sort_index": number})


def _thread(process: int, number: int, name: str) -> Iterator[TraceEvent]:
    yield _event("M", process, "thread_name", tid=number, args={"name": printable(name)})
    yield _event("M", process, "thread_sort_index", tid=number, args={"sort_index": number})


def _complete(process: int, thread: int, name: str, kind: str, start: int, length: int, args: TraceEvent) -> TraceEvent:
    return _event("X", process, name, tid=thread, ts=start, dur=length, cat=printable(kind), args=args)


def _event(phase: str, process: int, name: str, **more: Any) -> TraceEvent:
    return {"name": printable(name), "ph": phase, "pid": process, "tid": 0, **more}


def _micro(seconds: float) -> int:
    return round(seconds * 1e6)
