"""What no schedule can beat: the longest path, and the busiest resource with the loads that can't be spared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from graphflow.scheduler.board import Board
from graphflow.scheduler.tasks import Device, ModelSpec, Task

NO_SPEED: Mapping[str, float] = {}


class Bound(NamedTuple):
    """Seconds that a run takes at least, by what they are spent on."""

    path: float
    devices: float
    host: float
    disk: float

    @property
    def seconds(self) -> float:
        """The largest of them."""
        return max(self)

    @property
    def what(self) -> str:
        """Which one that is."""
        named = zip(("the longest path", "the devices", "the host", "the disk"), self, strict=True)
        return max(named, key=lambda pair: pair[1])[0]


def lower_bound(
    tasks: Iterable[Task],
    devices: Sequence[Device],
    models: Mapping[str, ModelSpec],
    speed: Mapping[str, float] = NO_SPEED,
) -> Bound:
    """The bound of a run that begins with no model in memory, on devices that compute `speed` times faster.

    A task can't begin before its models have been read and moved. The devices compute all their tasks and take one
    transfer of each model; the host its tasks; one disk reads all models.
    """
    board = Board()
    board.add(tasks)
    fastest = max((speed.get(d.name, 1.0) for d in devices), default=1.0)
    starts = _starts(board, models, fastest)
    on_host = any(d.kind == "host" for d in devices)
    on_device = any(d.kind == "device" for d in devices)
    host: list[int] = []
    device: list[int] = []
    for number, task in enumerate(board.tasks):
        (host if (task.where == "host" and on_host) or not on_device else device).append(number)
    used = {m: models.get(m, ModelSpec(0)) for task in board.tasks for m in task.models}
    return Bound(
        max((s + t.seconds / fastest for s, t in zip(starts, board.tasks, strict=True)), default=0.0),
        _resource(board, device, starts, models, [d for d in devices if d.kind == "device"], speed),
        _resource(board, host, starts, models, [d for d in devices if d.kind == "host"], speed),
        sum(m.load_seconds for m in used.values())
        + min((board.path[n] / fastest for n in device if board.tasks[n].models), default=0.0),
    )


def _starts(board: Board, models: Mapping[str, ModelSpec], fastest: float) -> list[float]:
    """When each task can begin at the earliest."""
    starts = [0.0] * len(board.tasks)
    waiting = [len(needs) for needs in board.needs]
    stack = [n for n, count in enumerate(waiting) if count == 0]
    while stack:
        number = stack.pop()
        task = board.tasks[number]
        starts[number] = max(starts[number], _arrival(task, models))
        end = starts[number] + task.seconds / fastest
        for user in board.users[number]:
            starts[user] = max(starts[user], end)
            waiting[user] -= 1
            if waiting[user] == 0:
                stack.append(user)
    return starts


def _arrival(task: Task, models: Mapping[str, ModelSpec]) -> float:
    """When the models of a task can be there at the earliest."""
    found = [models.get(m, ModelSpec(0)) for m in task.models]
    last = max((m.load_seconds + m.transfer_seconds for m in found), default=0.0)
    return max(last, sum(m.load_seconds for m in found), sum(m.transfer_seconds for m in found))


def _resource(
    board: Board,
    numbers: Sequence[int],
    starts: Sequence[float],
    models: Mapping[str, ModelSpec],
    devices: Sequence[Device],
    speed: Mapping[str, float],
) -> float:
    """Work over capacity: of all tasks, and of those that can't begin before some moment.

    Each lies between the first moment at which one of them may begin and the shortest rest after any of them.
    """
    if not numbers or not devices:
        return 0.0
    speeds = [speed.get(d.name, 1.0) for d in devices for _ in range(d.slots)]
    fastest, together = max(speeds), sum(speeds)
    used = {m for n in numbers for m in board.tasks[n].models}
    transfers = sum(models[m].transfer_seconds for m in used if m in models)
    first = min(max(0.0, starts[n] - _transfers(board.tasks[n], models)) for n in numbers)
    work, rest, most = 0.0, float("inf"), 0.0
    for number in sorted(numbers, key=starts.__getitem__, reverse=True):
        seconds = board.tasks[number].seconds
        work += seconds
        rest = min(rest, (board.path[number] - seconds) / fastest)
        most = max(most, starts[number] + work / together + rest)
    return max(most, first + (work + min(speeds) * transfers) / together + rest)


def _transfers(task: Task, models: Mapping[str, ModelSpec]) -> float:
    return sum(models[m].transfer_seconds for m in task.models if m in models)
