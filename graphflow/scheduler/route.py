"""Follows the order that the look-ahead has found, and keeps it fit when the run turns out otherwise."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from graphflow.scheduler.board import DONE, NOWHERE, READY, RUNNING, Board
from graphflow.scheduler.lookahead import Lookahead
from graphflow.scheduler.memory import Memory
from graphflow.scheduler.rules import RULES, SEVERAL_RULES, Order, Rule
from graphflow.scheduler.tasks import Device, ModelSpec
from graphflow.scheduler.windows import Windows

NEVER = float("inf")
SMALL = 256  # so few tasks are looked through whenever something changes
NEAR = 1.01  # of two orders that take about as long, the one with fewer loads is better
SEVERAL = 3_000  # up to so many tasks, rules of choice are compared with all of them
SAMPLE = 1_000  # else with so many, on a few devices
FEW = 8


class Route:
    """The planned order: for each device a sequence of tasks, and where each model is used next.

    Attributes:
        queued, ready_on: how many tasks are ready, of all and on each device.
        order, position, device: position → task, task → position, task → device.
        queues: for each device and group the positions of ready tasks, as a heap.
        reached, last: for each device the latest position that has begun, and the position of its last task.
        starved: a device is through with its tasks while others are behind; `checked`: that was looked for this round.
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
        self.ready_on = [0] * len(devices)
        self.numbers = {d.name: i for i, d in enumerate(devices)}
        self._alive: list[int] = []
        self._new: list[int] = []
        self.starved = self.checked = False
        self._rule: Rule | None = None
        self._judged = 0  # tasks that were left when the rule was chosen
        self._churn = 0  # tasks that have finished since the order was found
        self.order: list[int] = []  # position → task
        self.position: list[int] = []
        self.device: list[int] = []
        self.queues: list[dict[int, list[int]]] = [{} for _ in devices]
        self._sequences: list[list[int]] = [[] for _ in devices]  # what is left, last first
        self._uses: list[dict[str, list[int]]] = [{} for _ in devices]  # the same for each model
        self._largest = [0] * len(devices)
        self.reached = [NOWHERE] * len(devices)  # the latest position that each has begun
        self.last = [NOWHERE] * len(devices)  # the position of each one's last task

    # --- the order --------------------------------------------------------------------------------------------------

    def add(self, new: range) -> None:
        """Note tasks that have no place yet."""
        self._new += new
        self.position += [NOWHERE] * len(new)
        self.device += [NOWHERE] * len(new)

    def plan(self, running: Mapping[int, str]) -> None:
        """Find places for new tasks: by looking ahead anew, or at the end when that was done a moment ago.

        Also when a device is through with its own tasks and others lag behind.
        """
        self.checked = False
        if not self._new and not self.starved:
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
        self._new, self._churn, self.starved = [], 0, False
        self.order = []
        self.reached = [NOWHERE] * len(self.devices)
        found = self._best({n: self.numbers[d] for n, d in running.items()})
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
        """Play the rest through by the rule that fits it; that is found anew when much has come."""
        play = partial(
            Lookahead, self.board, self.windows, self.devices, self.resident, self.models, self.on_host(), running
        )
        if self._rule is None or len(self._alive) > 1.5 * self._judged:
            self._judged = len(self._alive)
            sample = self._sample()
            self._rule, order = self._judge(lambda rule: play(sample, rule).run(), sample)
            if len(sample) == len(self._alive):
                return order
        return play(self._alive, self._rule).run()

    def _judge(self, play: Callable[[Rule], Order], sample: Sequence[int]) -> tuple[Rule, Order]:
        """The rule with the shortest play; of those that take about as long, the one with the fewest loads."""
        rules = SEVERAL_RULES if sum(d.kind == "device" for d in self.devices) > 1 else RULES
        first = play(rules[0])
        many = len(self._alive) > SEVERAL and len(self.devices) > FEW  # a sample would keep only some of them busy
        if many or (not first.evictions and first.seconds <= NEAR * self._least(sample)):
            return rules[0], first
        orders = {rules[0]: first, **{rule: play(rule) for rule in rules[1:]}}
        enough = NEAR * min(order.seconds for order in orders.values())
        return min(orders.items(), key=lambda o: (o[1].seconds > enough, o[1].loads, o[1].seconds))

    def _sample(self) -> list[int]:
        """What stands for the rest when rules are compared: of maps the first elements."""
        board = self.board
        at = [(board.elements[e][1], n) for n in self._alive if (e := board.element[n]) != NOWHERE]
        space = SAMPLE - (len(self._alive) - len(at))
        if len(self._alive) <= SEVERAL:
            return self._alive
        if space <= 0 or len(at) <= space:
            return self._alive[:SAMPLE]
        at.sort()
        last = at[space][0]
        inside = {n for position, n in at if position < last}
        return [n for n in self._alive if board.element[n] == NOWHERE or n in inside]

    def _least(self, numbers: Iterable[int]) -> float:
        """Seconds that tasks take at least: by the longest path, and by the work on devices and host."""
        work = {"device": 0.0, "host": 0.0}
        longest = 0.0
        for number in numbers:
            task = self.board.tasks[number]
            work[task.where] += task.seconds
            longest = max(longest, self.board.path[number])
        slots = {kind: sum(d.slots for d in self.devices if d.kind == kind) or len(self.devices) for kind in work}
        return max(longest, *(work[kind] / slots[kind] for kind in work))

    def _place(self, number: int, device: int) -> None:
        self.last[device] = self.position[number] = len(self.order)
        self.device[number] = device
        self.order.append(number)

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
        self.queues = [{} for _ in self.devices]
        self.queued, self.ready_on = 0, [0] * len(self.devices)
        for number in self.order:
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
        device = self.device[number]
        self.queued += 1
        self.ready_on[device] += 1
        queue = self.queues[device].setdefault(self.board.group[number], [])
        heapq.heappush(queue, self.position[number])

    def again(self, number: int) -> None:
        """A task that was given out is ready once more."""
        device = self.device[number]
        self._sequences[device].append(number)
        for model in self.board.tasks[number].models:
            self._uses[device].setdefault(model, []).append(number)
        self.enter(number)

    def leave(self, number: int) -> None:
        """A task is not ready any more."""
        self.queued -= 1
        self.ready_on[self.device[number]] -= 1

    def finished(self) -> None:
        """A task is over."""
        self._churn += 1

    def first(self, device: int, group: int) -> int | None:
        """The position of the first ready task of a group in a device's queue."""
        queue, state, order = self.queues[device][group], self.board.state, self.order
        while queue and state[order[queue[0]]] != READY:
            heapq.heappop(queue)
        if queue:
            return queue[0]
        del self.queues[device][group]
        return None

    def head(self, device: int) -> int | None:
        """The first task of a device's sequence that has not begun."""
        sequence, state = self._sequences[device], self.board.state
        while sequence and state[sequence[-1]] >= RUNNING:
            sequence.pop()
        return sequence[-1] if sequence else None

    def like(self, first: int, count: int) -> list[int]:
        """Up to `count` further ready tasks of the same batch, in order."""
        board, device, group = self.board, self.device[first], self.board.group[first]
        queue = self.queues[device].get(group, [])
        out: list[int] = []
        others: list[int] = []
        while queue and len(out) < count and len(others) <= 2 * count:
            position = heapq.heappop(queue)
            number = self.order[position]
            if number == first or number in out or board.state[number] != READY:
                continue
            if board.tasks[number].batch == board.tasks[first].batch:
                out.append(number)
            else:
                others.append(position)
        for position in others:
            heapq.heappush(queue, position)
        return out

    def reach(self, device: int, number: int) -> None:
        """A device takes a task."""
        if self.position[number] > self.reached[device]:
            self.reached[device] = self.position[number]

    # --- models -----------------------------------------------------------------------------------------------------

    def next_use(self, name: str, model: str) -> float:
        """The position of the next task on a device that uses a model."""
        uses = self._uses[self.numbers[name]].get(model)
        state = self.board.state
        while uses and state[uses[-1]] >= RUNNING:
            uses.pop()
        return self.position[uses[-1]] if uses else NEVER

    def coming(self, name: str, memory: Memory) -> list[str]:
        """The models that a device will need and that are neither there nor in host memory, the next one first."""
        uses = self._uses[self.numbers[name]]
        lacking = [m for m in uses if m not in memory.resident and m not in memory.on_host]
        if not lacking:
            return []
        found = [(self.next_use(name, m), m) for m in lacking]
        return [m for use, m in sorted(found) if use < NEVER]

    def largest(self, name: str) -> int:
        """The activations of the largest task that was planned for a device."""
        return self._largest[self.numbers[name]]
