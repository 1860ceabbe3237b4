"""Follows the order that the look-ahead has found, and keeps it fit when the run turns out otherwise."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from graphflow.scheduler.board import DONE, NOWHERE, READY, RUNNING, Board
from graphflow.scheduler.lookahead import RULES, Lookahead, Order
from graphflow.scheduler.memory import Memory
from graphflow.scheduler.tasks import Device, ModelSpec
from graphflow.scheduler.windows import Windows

NEVER = float("inf")
SMALL = 256  # so few tasks are looked through whenever something changes
NEAR = 1.01  # of two orders that take about as long, the one with fewer loads is better
SEVERAL = 3_000  # up to so many, several rules of choice are played through
NEIGHBOURS = 32  # devices that one without work looks at


class Route:
    """The planned order: for each device a sequence of tasks, and where each model is used next.

    A device takes the first of its ready tasks whose models are resident. When there is none, it goes on with the next
    task of its sequence, for which models move; while that waits for another device, so does this one. Taking ready
    tasks with resident models early never makes an eviction wrong afterwards: what was kept is used sooner.
    """

    def __init__(
        self,
        board: Board,
        windows: Windows,
        devices: Sequence[Device],
        resident: Mapping[str, Mapping[str, None]],
        models: Mapping[str, ModelSpec],
        on_host: Callable[[], set[str]],
    ) -> None:
        self.board, self.windows, self.devices = board, windows, devices
        self.resident, self.models, self.on_host = resident, models, on_host
        self.queued = 0
        self._numbers = {d.name: i for i, d in enumerate(devices)}
        self._alive: list[int] = []
        self._new: list[int] = []
        self._starved = False  # a device is through with its tasks earlier than planned
        self._churn = 0  # tasks that have finished since the order was found
        self._order: list[int] = []  # position → task
        self._position: list[int] = []
        self._device: list[int] = []
        self._queues: list[dict[int, list[int]]] = [{} for _ in devices]
        self._sequences: list[list[int]] = [[] for _ in devices]  # what is left, last first
        self._uses: list[dict[str, list[int]]] = [{} for _ in devices]  # the same for each model
        self._largest = [0] * len(devices)
        self._reached = [NOWHERE] * len(devices)  # the latest position that each has begun
        self._last = [NOWHERE] * len(devices)  # the position of each one's last task

    # --- the order --------------------------------------------------------------------------------------------------

    def add(self, new: range) -> None:
        """Note tasks that have no place yet."""
        self._new += new
        self._position += [NOWHERE] * len(new)
        self._device += [NOWHERE] * len(new)

    def plan(self, running: Mapping[int, str]) -> None:
        """Find places for new tasks: by looking ahead anew, or at the end when that was done a moment ago.

        Also when a device is through with its own tasks and others lag behind.
        """
        if not self._new and not self._starved:
            return
        left = self.board.left
        if 4 * (self._churn + len(self._new)) >= left or (self._new and left <= SMALL):
            self._look_ahead(running)
        else:
            self._append()

    def _append(self) -> None:
        """Put the new tasks at the ends of the sequences."""
        for number in self._new:
            device = self._nearest(number)
            self._sequences[device].insert(0, number)
            self._place(number, device)
            for model in self.board.tasks[number].models:
                self._uses[device].setdefault(model, []).insert(0, number)
        self._new = []

    def _look_ahead(self, running: Mapping[int, str]) -> None:
        state = self.board.state
        self._alive = [n for n in (*self._alive, *self._new) if state[n] < DONE]
        self._new, self._churn, self._starved = [], 0, False
        self._order = []
        self._reached = [NOWHERE] * len(self.devices)
        found = self._best({n: self._numbers[d] for n, d in running.items()})
        self._sequences = [sequence[::-1] for sequence in found.sequences]
        self._uses = [{} for _ in self.devices]
        self._largest = [0] * len(self.devices)
        for number, device in found.begun:
            self._place(number, device)
        for device, sequence in enumerate(self._sequences):
            self._note_uses(device, sequence)
        if len(found.begun) + len(running) < len(self._alive):  # what waits for something that is no task
            placed = {number for number, _ in found.begun}
            self._new = [n for n in self._alive if state[n] < RUNNING and n not in placed]
            self._append()
        self._refill()

    def _best(self, running: Mapping[int, int]) -> Order:
        play = partial(
            Lookahead, self.board, self.windows, self.devices, self.resident, self.models, self.on_host(), running,
            self._alive,
        )  # fmt: skip
        first = play().run()
        if not first.evictions or len(self._alive) > SEVERAL:
            return first
        orders = [first, *(play(rule=rule).run() for rule in RULES[1:])]
        enough = NEAR * min(order.seconds for order in orders)
        return min(orders, key=lambda order: (order.seconds > enough, order.loads, order.seconds))

    def _place(self, number: int, device: int) -> None:
        self._last[device] = self._position[number] = len(self._order)
        self._device[number] = device
        self._order.append(number)

    def _note_uses(self, device: int, sequence: Sequence[int]) -> None:
        tasks, uses = self.board.tasks, self._uses[device]
        largest = 0
        for number in sequence:
            task = tasks[number]
            if task.memory > largest:
                largest = task.memory
            for model in task.models:
                found = uses.get(model)
                if found is None:
                    uses[model] = [number]
                else:
                    found.append(number)
        self._largest[device] = largest

    def _refill(self) -> None:
        state = self.board.state
        self._queues = [{} for _ in self.devices]
        self.queued = 0
        for number in self._order:
            if state[number] == READY:
                self.enter(number)

    def _nearest(self, number: int) -> int:
        """A device for a task without a place: one that has its models, with little to do."""
        mask = self.board.group_mask[self.board.group[number]]
        bits = self.board.model_bits
        host = self.board.tasks[number].where == "host"

        def rank(device: int) -> tuple[bool, int, int]:
            spec = self.devices[device]
            here = sum(1 << bits[m] for m in self.resident[spec.name] if m in bits)
            return ((spec.kind == "host") != host, bin(mask & ~here).count("1"), len(self._sequences[device]))

        return min(range(len(self.devices)), key=rank)

    # --- tasks ------------------------------------------------------------------------------------------------------

    def enter(self, number: int) -> None:
        """A task is ready."""
        self.queued += 1
        device = self._device[number]
        queue = self._queues[device].setdefault(self.board.group[number], [])
        heapq.heappush(queue, self._position[number])

    def again(self, number: int) -> None:
        """A task that was given out is ready once more."""
        device = self._device[number]
        self._sequences[device].append(number)
        for model in self.board.tasks[number].models:
            self._uses[device].setdefault(model, []).append(number)
        self.enter(number)

    def leave(self, number: int) -> None:
        """A task is not ready any more."""
        self.queued -= 1

    def finished(self) -> None:
        """A task is over."""
        self._churn += 1

    # --- choosing ---------------------------------------------------------------------------------------------------

    def choose(self, name: str, memory: Memory, running: Mapping[int, str]) -> int | None:
        """The task that a free device takes, or None."""
        if not self.queued:
            return None
        device = self._numbers[name]
        found = self._choose(device, memory, running)
        if found is not None and self._position[found] > self._reached[device]:
            self._reached[device] = self._position[found]
        return found

    def _choose(self, device: int, memory: Memory, running: Mapping[int, str]) -> int | None:
        found = self._resident(device, memory)
        if found is not None:
            return found
        head = self._head(device)
        if head is None:
            self._starved = self._starved or self._ahead(device)
        else:
            head = self._unblocked(head, device)
            if head is not None:
                return head
        if len(self.devices) > 1 and (found := self._neighbours(device, memory)) is not None:
            return found
        return None if running or self._others_go_on(device) else self._any(device)

    def _first(self, device: int, group: int) -> int | None:
        """The position of the first ready task of a group in a device's queue."""
        queue, state, order = self._queues[device][group], self.board.state, self._order
        while queue and state[order[queue[0]]] != READY:
            heapq.heappop(queue)
        if queue:
            return queue[0]
        del self._queues[device][group]
        return None

    def _resident(self, device: int, memory: Memory) -> int | None:
        masks, mask = self.board.group_mask, memory.mask
        best = None
        for group in list(self._queues[device]):
            if masks[group] & ~mask:
                continue
            first = self._first(device, group)
            if first is None or (best is not None and first > best):
                continue
            if memory.fits(self.board.tasks[self._order[first]]):
                best = first
        return None if best is None else self._order[best]

    def _head(self, device: int) -> int | None:
        sequence, state = self._sequences[device], self.board.state
        while sequence and state[sequence[-1]] >= RUNNING:
            sequence.pop()
        return sequence[-1] if sequence else None

    def _unblocked(self, head: int, device: int) -> int | None:
        """The task itself if it is ready, else a ready one of this device that it needs; None if others must go on."""
        state, board = self.board.state, self.board
        while state[head] != READY:
            needs = [n for n in board.needs[head] if state[n] != DONE]
            if not needs or any(state[n] == RUNNING or self._device[n] != device for n in needs):
                return None
            head = needs[0]
        return head

    def _ahead(self, device: int) -> bool:
        """Whether a device that is through with its tasks has come further than planned, beside others."""
        spec, last = self.devices[device], self._last[device]
        for other, alike in enumerate(self.devices):
            if alike.kind == spec.kind and other != device:
                head = self._head(other)
                if head is not None and self._position[head] < last:
                    return True
        return False

    def _neighbours(self, device: int, memory: Memory) -> int | None:
        """A task whose models are here, and which another device should have begun by now."""
        count, masks = len(self.devices), self.board.group_mask
        kind = self.devices[device].kind
        for step in range(1, min(count, NEIGHBOURS + 1)):
            other = (device + step) % count
            if self.devices[other].kind != kind:
                continue
            for group in list(self._queues[other]):
                if len(self._queues[other][group]) < 2 or masks[group] & ~memory.mask:
                    continue
                first = self._first(other, group)
                if first is None or first > self._reached[device]:
                    continue
                if memory.fits(self.board.tasks[self._order[first]]):
                    return self._order[first]
        return None

    def _others_go_on(self, device: int) -> bool:
        """Whether another device has something that it can begin."""
        for other, spec in enumerate(self.devices):
            if other == device or not self._queues[other]:
                continue
            head = self._head(other)
            if head is not None and self.board.state[head] == READY:
                return True
            if spec.kind == "host" and any(self._first(other, g) is not None for g in list(self._queues[other])):
                return True
        return False

    def _any(self, device: int) -> int | None:
        """Any ready task, since nothing runs that could change anything."""
        kind = self.devices[device].kind
        alike = [i for i, d in enumerate(self.devices) if d.kind == kind]
        found = [p for i in alike for g in list(self._queues[i]) if (p := self._first(i, g)) is not None]
        return self._order[min(found)] if found else None

    def like(self, first: int, count: int) -> list[int]:
        """Up to `count` further ready tasks of the same batch, in order."""
        board, device, group = self.board, self._device[first], self.board.group[first]
        queue = self._queues[device].get(group, [])
        out: list[int] = []
        others: list[int] = []
        while queue and len(out) < count and len(others) <= 2 * count:
            position = heapq.heappop(queue)
            number = self._order[position]
            if number == first or board.state[number] != READY:
                continue
            if board.tasks[number].batch == board.tasks[first].batch:
                out.append(number)
            else:
                others.append(position)
        for position in others:
            heapq.heappush(queue, position)
        return out

    # --- models -----------------------------------------------------------------------------------------------------

    def next_use(self, name: str, model: str) -> float:
        """The position of the next task on a device that uses a model."""
        uses = self._uses[self._numbers[name]].get(model)
        state = self.board.state
        while uses and state[uses[-1]] >= RUNNING:
            uses.pop()
        return self._position[uses[-1]] if uses else NEVER

    def coming(self, name: str, memory: Memory) -> list[str]:
        """The models that a device will need and that are neither there nor in host memory, the next one first."""
        uses = self._uses[self._numbers[name]]
        lacking = [m for m in uses if m not in memory.resident and m not in memory.on_host]
        if not lacking:
            return []
        found = [(self.next_use(name, m), m) for m in lacking]
        return [m for use, m in sorted(found) if use < NEVER]

    def largest(self, name: str) -> int:
        """The activations of the largest task that was planned for a device."""
        return self._largest[self._numbers[name]]
