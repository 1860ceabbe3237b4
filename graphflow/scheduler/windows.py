"""How many elements of a map are open at once, so that what waits for later nodes keeps within a bound."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from graphflow.scheduler.board import Board
from graphflow.scheduler.tasks import Device

CLOSED, OPEN, OVER = range(3)
ENDLESS = 1 << 60


@dataclass
class Axis:
    """One map: its elements that wait, by position, and what is known of it.

    Attributes:
        groups: what its tasks belong to.
        memory: of its largest task.
        held: bytes of results that one element held at most, as far as elements have come.
        seen: whether any element has come far enough to hold something.
    """

    waiting: list[tuple[int, int]] = field(default_factory=list)
    open: int = 0
    limit: int = 0
    groups: dict[int, None] = field(default_factory=dict)
    memory: int = 0
    held: int = 0
    seen: bool = False


class Windows:
    """The elements of all maps: closed, open or over.

    Args:
        board: the tasks.
        devices: a map whose models fit on each of them together has a window, others have as many open elements as
            `value_limit` allows.
        size_of: bytes of a model.
        window: open elements where the models fit.
        value_limit: bytes that open elements may hold; None for no limit.
    """

    def __init__(
        self,
        board: Board,
        devices: Sequence[Device],
        size_of: Callable[[str], int],
        window: int,
        value_limit: int | None,
    ) -> None:
        real = [d for d in devices if d.kind == "device"]
        slots = sum(d.slots for d in real)
        self.board, self.size_of, self.value_limit = board, size_of, value_limit
        self.window = max(window, 4 * slots)
        self.budget = min((d.memory for d in real if d.memory is not None), default=None)
        self.axes: dict[str, Axis] = {}
        self.state = bytearray()
        self.left: list[int] = []
        self._stale = True

    def copy(self) -> Windows:
        """The same, to look ahead with."""
        out = Windows(self.board, (), self.size_of, self.window, self.value_limit)
        out.window, out.budget = self.window, self.budget
        out.axes = {name: replace(axis, waiting=axis.waiting[:]) for name, axis in self.axes.items()}
        out.state, out.left, out._stale = self.state[:], self.left[:], self._stale
        return out

    def add(self, new: range) -> None:
        """Note new tasks."""
        board = self.board
        self._stale = True
        for number in range(len(self.state), len(board.elements)):
            axis, position = board.elements[number]
            self.state.append(CLOSED)
            self.left.append(0)
            heapq.heappush(self.axes.setdefault(axis, Axis()).waiting, (position, number))
        for task in new:
            element = board.element[task]
            if element < 0:
                continue
            found = self.axes[board.elements[element][0]]
            found.groups[board.group[task]] = None
            found.memory = max(found.memory, board.tasks[task].memory)
            self.left[element] += 1
            if self.state[element] == OVER:
                self.state[element] = OPEN
                found.open += 1

    def changed(self) -> None:
        """Sizes of models have changed: the limits are set anew before the next element is opened."""
        self._stale = True

    def may_run(self, task: int) -> bool:
        """Whether the task stands outside of maps, or in an open element."""
        element = self.board.element[task]
        return element < 0 or self.state[element] == OPEN

    def open_next(self, force: bool = False) -> list[int]:
        """Open what may be opened now, and one element more with `force`; returns the elements."""
        out: list[int] = []
        for axis in self.axes.values():
            if self._stale:
                axis.limit = self._limit(axis)
            while axis.waiting and (axis.open < axis.limit or (force and not out)):
                _, number = heapq.heappop(axis.waiting)
                if self.left[number] == 0:
                    self.state[number] = OVER
                    continue
                self.state[number] = OPEN
                axis.open += 1
                out.append(number)
        self._stale = False
        return out

    def finish(self, task: int) -> bool:
        """A task is over; returns whether that was the last one of an open element."""
        element = self.board.element[task]
        if element < 0:
            return False
        self.left[element] -= 1
        if self.left[element] or self.state[element] != OPEN:
            return False
        self.state[element] = OVER
        self.axes[self.board.elements[element][0]].open -= 1
        return True

    def observe(self, element: int, held: int) -> None:
        """An element holds so many bytes now."""
        axis = self.axes[self.board.elements[element][0]]
        if held > axis.held or not axis.seen:
            axis.held, axis.seen = max(held, axis.held), True
            axis.limit = self._limit(axis)

    def _limit(self, axis: Axis) -> int:
        limit = self.window if self._fits(axis) else ENDLESS
        if self.value_limit is None:
            return limit
        held = max(axis.held, self._expected(axis))
        if held:
            return min(limit, max(1, self.value_limit // held))
        return limit if axis.seen else min(limit, self.window)

    def _fits(self, axis: Axis) -> bool:
        if self.budget is None:
            return True
        models = {model for group in axis.groups for model in self.board.group_models[group]}
        return sum(map(self.size_of, models)) + axis.memory <= self.budget

    def _expected(self, axis: Axis) -> int:
        """The bytes that the next element is expected to hold at most, when it goes through in the graph's order."""
        if not axis.waiting:
            return 0
        tasks = self.board.tasks
        inside = sorted(self.board.element_tasks[axis.waiting[0][1]], key=lambda n: (tasks[n].rank, n))
        place = {number: i for i, number in enumerate(inside)}
        held = most = 0
        release: dict[int, int] = {}
        for number in inside:
            size = tasks[number].holds
            last = max((u for u in self.board.users[number] if u in place), key=place.__getitem__, default=None)
            if last is not None:  # what leaves the element is kept however small the window is
                held += size
                release[last] = release.get(last, 0) + size
                most = max(most, held)
            held -= release.pop(number, 0)
        return most
