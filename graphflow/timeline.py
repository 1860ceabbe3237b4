"""When and where a run's work was done, from its record: calls, loads, waits and resident weights by device.

The report's timeline and the trace are drawn from this. Records come from strangers, too: a time that no run could have
is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from graphflow.groups import node_of
from graphflow.record import LoadRecord, NodeRecord, RunRecord

HOST = "host"  # where nodes run that need no device
_CPU = "cpu"  # a device whose memory is the host's: what has been read from disk is on it
_LONGEST = 1e9  # seconds
NOT_COMPUTED = ("skipped", "interrupted")  # what an interrupted node did so far is gone
_SAME = 1e-3  # seconds between two clock readings of one moment
_EXPLAINED = 200  # waits of a device that are explained, the longest ones


@dataclass(frozen=True)
class Call:
    """One call of a node: an instance, or several in one batch.

    `names` are the instances of this record and `batch` is how many were computed together, which is more where a
    record was cut down to what made one picture. Times are in seconds after the run's beginning.
    """

    names: tuple[str, ...]
    kind: str
    device: str
    start: float
    seconds: float
    batch: int
    peak: int | None
    failed: bool

    @property
    def end(self) -> float:
        """When it was over."""
        return self.start + self.seconds


@dataclass(frozen=True)
class Wait:
    """A time in which a device computed nothing; `reason` is what it waited for, empty where that is not known."""

    device: str
    start: float
    seconds: float
    reason: str


@dataclass(frozen=True)
class Lane:
    """One device.

    Attributes:
        calls: one after the other.
        waits: the gaps between them, and before the first.
        weights: (time, bytes): from then on the weights on the device are that large.
        budget: what weights and activations may take; None without a limit.
    """

    device: str
    calls: list[Call]
    waits: list[Wait]
    weights: list[tuple[float, int]]
    budget: int | None

    @property
    def busy(self) -> float:
        """Seconds in which it computed."""
        return sum(call.seconds for call in self.calls)

    @property
    def most(self) -> int:
        """The most bytes of weights that were on it at a time."""
        return max((count for _, count in self.weights), default=0)


@dataclass(frozen=True)
class Timeline:
    """A run's work; `host` are the calls of nodes that need no device, `seconds` is the whole time."""

    seconds: float
    lanes: list[Lane]
    host: list[Call]
    loads: list[LoadRecord]
    released: list[LoadRecord]

    @property
    def loaded(self) -> int:
        """Bytes that came onto devices."""
        return sum(load.bytes for load in self.arrivals)

    @property
    def arrivals(self) -> list[LoadRecord]:
        """The loads that ended on a device."""
        return [load for load in self.loads if arrives(load)]


def arrives(load: LoadRecord) -> bool:
    """Whether a load ends on a device, and not in host memory on the way to one."""
    return load.stage == "device" or (load.stage == "host" and load.device.partition(":")[0] == _CPU)


def timeline(record: RunRecord) -> Timeline:
    """The timeline of a run; without lanes when nothing was computed."""
    calls = list(_calls(record))
    moves = sorted((m for m in record.loads if _possible(m.started, m.seconds)), key=lambda m: m.started)
    loads = [m for m in moves if m.stage != "released"]
    ends = [call.end for call in calls] + [m.started + m.seconds for m in moves]
    whole = record.seconds if _possible(record.seconds) else 0.0
    used = [call.device for call in calls] + [m.device for m in moves if arrives(m)]
    names = [name for name in dict.fromkeys(used) if name != HOST]
    waiting = _Waiting(record, calls, loads)
    lanes = []
    for name in names:
        own = [call for call in calls if call.device == name]
        lanes.append(Lane(name, own, list(waiting.of(name, own)), _weights(name, moves), record.memory.get(name)))
    released = [m for m in moves if m.stage == "released"]
    return Timeline(max([whole, *ends]), lanes, [c for c in calls if c.device == HOST], loads, released)


def rows(calls: Iterable[Call]) -> list[list[Call]]:
    """Calls that ran at the same time in rows of which each holds one at a time, as few as possible."""
    out: list[list[Call]] = []
    for call in sorted(calls, key=lambda c: c.start):
        for row in out:
            if row[-1].end <= call.start + _SAME:
                row.append(call)
                break
        else:
            out.append([call])
    return out


def _possible(started: float, seconds: float = 0.0) -> bool:
    return 0.0 <= started < _LONGEST and 0.0 <= seconds < _LONGEST


def _calls(record: RunRecord) -> Iterator[Call]:
    """What was computed, by beginning; elements of a batch have been given the same beginning, or one after another."""
    timed = [(node.started, name, node) for name, node in record.nodes.items() if node.started is not None]
    timed = [entry for entry in timed if _possible(entry[0], entry[2].seconds) and entry[2].status not in NOT_COMPUTED]
    timed.sort(key=lambda entry: entry[0])
    unfinished: dict[tuple[str, str], list[tuple[float, str, NodeRecord]]] = {}
    found = []
    for at, name, node in timed:
        device = node.device or record.device
        if node.batch < 2:
            found.append(_call(device, [(at, name, node)]))
            continue
        whose = node_of(name), device
        batch = unfinished.setdefault(whose, [])
        if batch and not _together(batch, at, node):
            found.append(_call(device, unfinished.pop(whose)))
            batch = unfinished.setdefault(whose, [])
        batch.append((at, name, node))
    found += [_call(device, batch) for (_, device), batch in unfinished.items()]
    yield from sorted(found, key=lambda call: call.start)


def _together(batch: Sequence[tuple[float, str, NodeRecord]], at: float, node: NodeRecord) -> bool:
    began, _, first = batch[0]
    end = began + sum(other.seconds for _, _, other in batch)
    return len(batch) < first.batch == node.batch and (at - began <= _SAME or abs(at - end) <= _SAME)


def _call(device: str, batch: Sequence[tuple[float, str, NodeRecord]]) -> Call:
    start, _, first = batch[0]
    nodes = [node for _, _, node in batch]
    peaks = [node.peak for node in nodes if node.peak is not None]
    return Call(
        tuple(name for _, name, _ in batch), first.kind, device, start, sum(node.seconds for node in nodes),
        max(first.batch, len(batch)), max(peaks, default=None), any(node.status == "failed" for node in nodes),
    )  # fmt: skip


def _weights(device: str, moves: Sequence[LoadRecord]) -> list[tuple[float, int]]:
    """Resident bytes as steps: a load counts from its end, a release from its beginning."""
    changes = [
        (m.started + (m.seconds if arrives(m) else 0.0), m.model, m.bytes if arrives(m) else 0)
        for m in moves
        if m.device == device and (arrives(m) or m.stage == "released")
    ]
    resident: dict[str, int] = {}
    steps = []
    for at, model, count in sorted(changes, key=lambda change: change[0]):
        resident[model] = max(count, 0)
        steps.append((at, sum(resident.values())))
    return steps


class _Waiting:
    """Says why devices were idle."""

    def __init__(self, record: RunRecord, calls: Sequence[Call], loads: Sequence[LoadRecord]) -> None:
        self._loads = loads
        self._ends: dict[str, Call] = {}  # by instance, and for lists that are gathered by node the one that ended last
        for call in calls:
            for name in (*call.names, *{node_of(name) for name in call.names}):
                if name not in self._ends or self._ends[name].end < call.end:
                    self._ends[name] = call
        self._sources = {name: list(_sources(record.nodes[name])) for call in calls for name in call.names}

    def of(self, device: str, calls: Sequence[Call]) -> Iterator[Wait]:
        """The gaps before a device's calls."""
        gaps, free = [], 0.0
        for call in calls:
            if call.start - free > _SAME:
                gaps.append((call.start - free, free, call))
            free = max(free, call.end)
        least = sorted((gap for gap, _, _ in gaps), reverse=True)[:_EXPLAINED][-1:] or [0.0]
        for gap, at, call in gaps:
            yield Wait(device, at, gap, self._reason(call, at) if gap >= least[0] else "")

    def _reason(self, call: Call, free: float) -> str:
        """What a call waited for since the device was free: a model, or the last of what it needed."""
        gap = call.start - free
        shares = [
            (min(m.started + m.seconds, call.start) - max(m.started, free), m)
            for m in self._loads
            if m.device == call.device
        ]  # fmt: skip
        share, load = max(shares, key=lambda found: found[0], default=(0.0, None))
        if load is not None and share > gap / 2:
            return f"loading {load.model}"
        above = [self._ends[s] for name in call.names for s in self._sources[name] if s in self._ends]
        last = max(above, key=lambda found: found.end, default=None)
        if last is not None and last.device != call.device and last.end > free + _SAME:
            return f"for {last.names[-1]} on {last.device}"
        return f"loading {load.model}, and more" if load is not None and share > _SAME else ""


def _sources(node: NodeRecord) -> Iterator[str]:
    for refs in node.inputs.values():
        for ref in [refs] if isinstance(refs, str) else refs:
            name = ref.partition(".")[0]
            yield node_of(name) if "…" in name else name
