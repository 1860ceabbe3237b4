"""The timeline as it stands on the page: lanes of marks at percentages of the whole time. A long run stays readable:
calls too short to be seen are told together with their neighbours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from graphflow import units
from graphflow.groups import node_of, title
from graphflow.record import RunRecord
from graphflow.timeline import Call, Lane, Timeline, Wait, arrives, rows, timeline

COLOURS = 6  # kinds that took longest have a colour of their own
FINEST = 1 / 400  # of the whole time: shorter marks are joined with what is beside them, whatever it is
SHORT = 1 / 60  # shorter ones are joined with neighbours of the same kind
LETTER = 0.9  # percent that a letter takes; a mark has a label when seven letters of it have room
MAX_LANES, MAX_ROWS, MAX_LOADS, MAX_WAITS = 16, 4, 40, 6
TICKS = 8


@dataclass(frozen=True)
class Mark:
    """A bar in a lane; `fill` are (colour, share) of what it stands for, `row` of `rows` is its height's place."""

    left: float
    width: float
    style: str
    tip: str
    label: str = ""
    anchor: str = ""
    fill: list[tuple[str, float]] = field(default_factory=list)
    row: int = 0
    rows: int = 1


@dataclass(frozen=True)
class Track:
    """A line of the timeline: who, what happened, and what there is to say about it."""

    name: str
    note: str
    marks: list[Mark]
    style: str = ""


@dataclass(frozen=True)
class Weights:
    """Resident weights of a device as an SVG path in a box of 1000 by 100; `budget` is at that height from the top."""

    device: str
    note: str
    path: str
    budget: float | None


@dataclass(frozen=True)
class Drawn:
    """The section: figures, ticks as (percent, text), tracks, legend as (colour, kind), loads and the longest waits."""

    figures: list[tuple[str, str]]
    ticks: list[tuple[float, str]]
    tracks: list[Track | Weights]
    legend: list[tuple[str, str]]
    loads: list[tuple[str, ...]]
    more_loads: int
    waits: list[tuple[str, ...]]


def drawn(record: RunRecord) -> Drawn | None:
    """The timeline of a run; None when nothing was computed, or no time is known."""
    found = timeline(record)
    if found.seconds <= 0 or not (found.lanes or found.host):
        return None
    return _Drawing(record, found).whole()


class _Drawing:
    def __init__(self, record: RunRecord, found: Timeline) -> None:
        self.found, self.whole_time = found, found.seconds
        self.known = frozenset(node_of(name) for name in record.nodes)
        times: Counter[str] = Counter()
        for call in (*found.host, *(c for lane in found.lanes for c in lane.calls)):
            times[call.kind] += call.seconds  # type: ignore[assignment]  # Counter adds floats as well
        self.colours = {kind: f"k{i}" for i, (kind, _) in enumerate(times.most_common(COLOURS))}
        self.others = len(times) > COLOURS

    def whole(self) -> Drawn:
        tracks: list[Track | Weights] = []
        for lane in self.found.lanes[:MAX_LANES]:
            if lane.calls:
                tracks.append(self._lane(lane))
            if lane.weights:
                tracks.append(self._weights(lane))
        if self.found.host:
            busy = sum(call.seconds for call in self.found.host)
            tracks.append(Track("host", f"{units.duration(busy)} computed", self._workers()))
        if self.found.loads:
            tracks.append(self._loading())
        legend = [(colour, units.printable(kind)) for kind, colour in self.colours.items()]
        waits = sorted((w for lane in self.found.lanes for w in lane.waits), key=lambda w: -w.seconds)
        return Drawn(
            self._figures(), list(self._ticks()), tracks, legend + [("other", "other kinds")] * self.others,
            [self._load_row(i) for i in range(min(len(self.found.loads), MAX_LOADS))],
            max(0, len(self.found.loads) - MAX_LOADS),
            [self._wait_row(w) for w in waits[:MAX_WAITS] if w.seconds >= self.whole_time / 100],
        )  # fmt: skip

    # --- figures and tables -------------------------------------------------------------------------------------------

    def _figures(self) -> list[tuple[str, str]]:
        used = [lane for lane in self.found.lanes[:MAX_LANES] if lane.calls]
        out = [(f"{lane.device} busy", self._share(lane.busy)) for lane in used]
        if onto := self.found.arrivals:
            out.append((f"{units.plural(len(onto), 'load')} onto devices", units.size(self.found.loaded)))
            out.append(("waits for loads", units.duration(self._waited("loading "))))
        return out

    def _waited(self, reason: str) -> float:
        return sum(w.seconds for lane in self.found.lanes for w in lane.waits if w.reason.startswith(reason))

    def _share(self, seconds: float) -> str:
        return f"{100 * seconds / self.whole_time:.0f} %"

    def _load_row(self, index: int) -> tuple[str, ...]:
        load = self.found.loads[index]
        way = f"{'host' if load.stage == 'device' else 'disk'} → {load.device if arrives(load) else 'host'}"
        return (
            units.duration(load.started), units.printable(load.model), units.printable(way),
            units.size(load.bytes), units.duration(load.seconds), _rate(load.bytes, load.seconds),
        )  # fmt: skip

    def _wait_row(self, wait: Wait) -> tuple[str, ...]:
        reason = wait.reason or "nothing was ready for it"
        return (
            units.duration(wait.start), units.printable(wait.device), units.duration(wait.seconds),
            units.printable(reason),
        )  # fmt: skip

    def _ticks(self) -> Iterator[tuple[float, str]]:
        """Round times, from zero on; one that would stand at the edge is left out."""
        step = next(s for s in _steps() if self.whole_time / s <= TICKS)
        for number in range(TICKS + 1):
            if (left := self._percent(number * step)) <= 92:
                yield left, _clock(number * step)

    # --- lanes --------------------------------------------------------------------------------------------------------

    def _percent(self, seconds: float) -> float:
        return 100 * seconds / self.whole_time

    def _lane(self, lane: Lane) -> Track:
        waits = [
            self._mark(
                w.start, w.seconds, "wait", f"waited {units.duration(w.seconds)} {w.reason}".rstrip(),
                label=w.reason,
            )
            for w in lane.waits
            if w.seconds >= self.whole_time * FINEST
        ]  # fmt: skip
        return Track(lane.device, f"{self._share(lane.busy)} busy", waits + self._calls(lane.calls))

    def _workers(self) -> list[Mark]:
        """What the host's workers did; more workers than there is room for share rows."""
        lines = rows(self.found.host)
        if len(lines) > MAX_ROWS:
            lines = [
                sorted((c for line in lines[i::MAX_ROWS] for c in line), key=lambda c: c.start) for i in range(MAX_ROWS)
            ]
        return [m for i, line in enumerate(lines) for m in self._calls(line, i, len(lines))]

    def _calls(self, calls: Sequence[Call], row: int = 0, of: int = 1) -> list[Mark]:
        return [self._joined(group, row, of) for group in _groups(calls, self.whole_time)]

    def _joined(self, group: list[Call], row: int, of: int) -> Mark:
        start, end = group[0].start, max(call.end for call in group)
        times: Counter[str] = Counter()
        for call in group:
            times[self.colours.get(call.kind, "other")] += call.seconds  # type: ignore[assignment]
        total = sum(times.values())
        fill = [(c, s / total if total else 1 / len(times)) for c, s in times.most_common()]
        nodes = {node_of(call.names[0]) for call in group}
        anchor = nodes.pop() if len(nodes) == 1 else ""
        style = "call failed" if any(call.failed for call in group) else "call"
        return self._mark(
            start, end - start, style, _tip(group), _label(group), anchor if anchor in self.known else "", fill, row, of
        )  # fmt: skip

    def _mark(
        self, start: float, seconds: float, style: str, tip: str, label: str = "", anchor: str = "",
        fill: list[tuple[str, float]] | None = None, row: int = 0, of: int = 1,
    ) -> Mark:  # fmt: skip
        left, width = self._percent(start), self._percent(seconds)
        label = label if of <= 2 and width >= LETTER * (min(len(label), 7) + 1) else ""
        tip = f"{tip}, at {units.duration(start)}"
        return Mark(left, width, style, units.printable(tip), units.printable(label), anchor, fill or [], row, of)

    def _loading(self) -> Track:
        two = len({load.stage for load in self.found.loads}) > 1
        marks = [
            self._mark(
                load.started, load.seconds, "load" if load.stage == "device" else "load disk",
                f"{load.model} {'onto ' + load.device if arrives(load) else 'into host memory'}, "
                f"{units.size(load.bytes)} in {units.duration(load.seconds)}",
                load.model, row=int(load.stage == "device") if two else 0, of=1 + two,
            )
            for load in self.found.loads
        ]  # fmt: skip
        seconds = sum(load.seconds for load in self.found.loads)
        return Track("models", f"{units.duration(seconds)} loading", marks)

    def _weights(self, lane: Lane) -> Weights:
        top = max(lane.most, lane.budget or 0) or 1
        parts, level = ["M0 100"], 100.0
        for at, count in lane.weights:
            x, y = 10 * self._percent(at), 100 - 96 * count / top
            parts.append(f"L{x:.1f} {level:.1f}L{x:.1f} {y:.1f}")
            level = y
        path = "".join([*parts, f"L1000 {level:.1f}L1000 100Z"])
        budget = None if lane.budget is None else 100 - 96 * lane.budget / top
        limit = f" of {units.size(lane.budget)}" if lane.budget is not None else ""
        return Weights(lane.device, f"{units.size(lane.most)}{limit}", path, budget)


def _groups(calls: Iterable[Call], whole: float) -> Iterator[list[Call]]:
    """Calls that are told together: those of one kind in a row, and what is too short to be seen by itself."""
    group: list[Call] = []
    begin = end = 0.0
    kinds: set[str] = set()
    for call in calls:
        near = call.start - end < whole * FINEST
        seen = end - begin >= whole * FINEST
        if group and near and call.seconds < whole * SHORT and (call.kind in kinds or not seen):
            group.append(call)
        else:
            if group:
                yield group
            group, begin, kinds = [call], call.start, set()
        kinds.add(call.kind)
        end = max(end, call.end)
    if group:
        yield group


def _label(group: Sequence[Call]) -> str:
    """What stands in a mark: the nodes, without the sub-graph or map that they stand in, and how many instances."""
    nodes = dict.fromkeys(node_of(name).rpartition("/")[2] for call in group for name in call.names)
    count = sum(len(call.names) for call in group)
    if len(nodes) == 1:
        return next(iter(nodes)) + (f" ×{count}" if count > 1 else "")
    return ", ".join(list(nodes)[:2]) + (f" and {len(nodes) - 2} more" if len(nodes) > 2 else "") + f" ×{count}"


def _tip(group: Sequence[Call]) -> str:
    """What is told of a mark that one points at."""
    names: dict[str, list[str]] = {}
    for call in group:
        names.setdefault(call.kind, []).extend(call.names)
    shown = "; ".join(f"{title(found)} ({kind})" for kind, found in list(names.items())[:4])
    parts = [shown + (f" and {len(names) - 4} other kinds" if len(names) > 4 else "")]
    parts.append(units.duration(sum(call.seconds for call in group)))
    if (calls := len(group)) > 1:
        parts.append(f"{calls} calls")
    if (batch := max(call.batch for call in group)) > 1:
        parts.append(f"batch of {batch}" if calls == 1 else f"batches up to {batch}")
    if peaks := [call.peak for call in group if call.peak is not None]:
        parts.append(f"peak {units.size(max(peaks))}")
    if failed := sum(call.failed for call in group):
        parts.append(f"{failed} failed" if calls > 1 else "failed")
    return ", ".join(parts)


def _rate(size: int, seconds: float) -> str:
    return f"{units.size(int(size / seconds))}/s" if seconds >= 0.001 and size > 0 else ""


def _clock(seconds: float) -> str:
    """A round time: ``0``, ``50 ms``, ``0.2 s``, ``5 s``, ``4 min``, ``1 h 30 min``."""
    if seconds < 0.1:
        return f"{seconds * 1000:g} ms" if seconds else "0"
    if seconds < 60:
        return f"{seconds:g} s"
    hours, minutes = divmod(seconds / 60, 60)
    parts = [f"{hours:.0f} h"] * (hours > 0) + [f"{minutes:g} min"] * (minutes > 0)
    return " ".join(parts)


def _steps() -> Iterator[float]:
    """Round steps of a clock: 1, 2 and 5 of a decimal power below a minute, then minutes and hours."""
    for power in range(-4, 1):
        yield from (round(digit * 10.0**power, 4) for digit in (1, 2, 5))
    yield from (10, 20, 60, 120, 300, 600, 1200, 1800)
    hours = 3600.0
    while True:
        yield hours
        hours *= 2
