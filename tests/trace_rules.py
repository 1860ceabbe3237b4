"""The rules of the trace event format that a file must obey for Perfetto and Chrome to show all of it."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise
from typing import Any

REQUIRED = {
    "X": {"name", "cat", "ph", "ts", "dur", "pid", "tid", "args"},
    "C": {"name", "ph", "ts", "pid", "args"},
    "i": {"name", "ph", "ts", "pid", "tid", "s"},
    "M": {"name", "ph", "pid", "args"},
}
METADATA = {
    "process_name": str, "thread_name": str, "process_sort_index": int, "thread_sort_index": int,
}  # fmt: skip


def problems(text: str) -> list[str]:
    """What is wrong with a trace in the JSON object format; empty when nothing is."""
    data = json.loads(text, parse_constant=lambda name: 1 / 0)  # NaN and Infinity are no JSON
    out = [] if isinstance(data.get("traceEvents"), list) else ["traceEvents is no list"]
    if data.get("displayTimeUnit") not in ("ms", "ns"):
        out.append("displayTimeUnit is neither ms nor ns")
    named: set[tuple[str, int, int]] = set()
    threads: defaultdict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    instants: set[tuple[int, int]] = set()
    counters: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
    for event in data["traceEvents"]:
        out += _of(event)
        place = event["pid"], event.get("tid", 0)
        if event["ph"] == "M":
            named.add((event["name"], event["pid"], place[1] if event["name"].startswith("thread") else 0))
        elif event["ph"] == "X":
            threads[place].append((event["ts"], event["ts"] + event["dur"]))
        elif event["ph"] == "i" and event["s"] == "t":
            instants.add(place)
        elif event["ph"] == "C":
            counters[event["pid"], event["name"]].append(event["ts"])
    for process, thread in {*threads, *instants}:
        out += [f"process {process} has no name"] * (("process_name", process, 0) not in named)
        out += [f"thread {thread} of {process} has no name"] * (("thread_name", process, thread) not in named)
    for place, spans in threads.items():
        out += [f"{place}: {a} and {b} overlap" for a, b in pairwise(sorted(spans)) if b[0] < a[1]]
    out += [f"{place}: times go back" for place, times in counters.items() if times != sorted(times)]
    return out


def _of(event: dict[str, Any]) -> list[str]:
    out = [f"{event} lacks {key}" for key in REQUIRED.get(event["ph"], {"a known phase"}) - set(event)]
    for key in ("ts", "dur", "pid", "tid"):
        if key in event and (type(event[key]) is not int or event[key] < 0):
            out.append(f"{key} of {event} is no count")
    if event["ph"] == "C" and not all(type(v) is int for v in event["args"].values()):
        out.append(f"{event} counts no numbers")
    if event["ph"] == "i" and event["s"] not in ("g", "p", "t"):
        out.append(f"{event} has no scope")
    if event["ph"] == "M" and not isinstance(next(iter(event["args"].values())), METADATA[event["name"]]):
        out.append(f"{event} names nothing")
    return out
