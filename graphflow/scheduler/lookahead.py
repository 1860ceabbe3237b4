"""The order in which the remaining tasks will run, found by playing the run through on a virtual clock.

The order decides what is evicted: with the future known, the model whose next use is farthest away (Belady 1966,
"A study of replacement algorithms for a virtual-storage computer"). Choosing among ready tasks is list scheduling by
the longest path (Graham 1969, "Bounds on multiprocessing timing anomalies"), resident models first.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping, Sequence

from graphflow.scheduler.board import DONE, NOWHERE, RUNNING, Board
from graphflow.scheduler.machines import Machine, Machines
from graphflow.scheduler.rules import RULES, Order, Rule
from graphflow.scheduler.tasks import Device, ModelSpec, Task
from graphflow.scheduler.windows import Windows

WORTH = 2.0  # another device loads a model too when that leaves each server work for so many loads of it


class Lookahead:
    """One play of the remaining tasks.

    Args:
        board, windows: the tasks and the elements that may begin; both stay as they are.
        devices: with what is resident on each.
        models: sizes and times.
        on_host: models in host memory.
        running: task → device of what runs; taken as just begun.
        alive: the tasks that are played, of those that are left or run.
        rule: how to choose.
    """

    def __init__(
        self,
        board: Board,
        windows: Windows,
        devices: Sequence[Device],
        resident: Mapping[str, Mapping[str, None]],
        models: Mapping[str, ModelSpec],
        on_host: Collection[str],
        running: Mapping[int, int],
        alive: Sequence[int],
        rule: Rule = RULES[0],
    ) -> None:
        self.board, self.windows, self.rule = board, windows.copy(), rule
        self.pool = Machines(board, devices, resident, models, on_host)
        self.machines = self.pool.machines
        self.pending, self.state = board.pending[:], board.state[:]
        self.order = Order([[] for _ in devices])
        self.clock = 0.0
        self.events: list[tuple[float, int, int]] = []  # time, task, device
        groups = len(board.group_models)
        self.queues: list[list[int]] = [[] for _ in range(groups)]
        self.active: dict[int, None] = {}  # groups with a queue
        self.foreign = [0] * groups  # unmet needs from other groups, in elements that may run
        self.work = [0.0] * groups  # seconds of tasks that may run and have not begun
        self.open = [0] * groups  # how many those are
        self.left = [0] * groups
        self.idle: dict[int, list[int]] = {}  # machines that are free, by alikeness
        self.kinds: dict[tuple[bool, int, int | None], int] = {}
        self.by_urgency = board.by_urgency(alive, rule.urgency)
        self.urgency = [NOWHERE] * len(board.tasks)  # of those that are played
        for place, number in enumerate(self.by_urgency):
            self.urgency[number] = place
        self._begin(running)

    def _begin(self, running: Mapping[int, int]) -> None:
        board, may_run = self.board, self.windows.may_run
        for number in self.by_urgency:
            self.left[board.group[number]] += 1
            if may_run(number):
                self._admit(number)
        for element in self.windows.open_next():
            self._open(element)
        free = [machine.spec.slots for machine in self.machines]
        for number, device in running.items():
            heapq.heappush(self.events, (board.tasks[number].seconds, number, device))
            self.machines[device].running.append(number)
            free[device] -= 1
        for device, slots in enumerate(free):
            for _ in range(slots):
                self._release(device)

    # --- tasks ------------------------------------------------------------------------------------------------------

    def _open(self, element: int) -> None:
        for number in self.board.element_tasks[element]:
            if self.state[number] < RUNNING:
                self._admit(number)

    def _admit(self, number: int) -> None:
        """The task may run once its needs are met."""
        if self.urgency[number] == NOWHERE:
            return
        board = self.board
        group = board.group[number]
        self.work[group] += board.tasks[number].seconds
        self.open[group] += 1
        if self.pending[number] == 0:
            self._queue(number)
            return
        for need in board.needs[number]:
            if board.group[need] != group and self.state[need] != DONE:
                self.foreign[group] += 1

    def _queue(self, number: int) -> None:
        group = self.board.group[number]
        queue = self.queues[group]
        if not queue:
            self.active[group] = None
        heapq.heappush(queue, self.urgency[number])

    def _complete(self, number: int) -> None:
        board, pending, may_run, state = self.board, self.pending, self.windows.may_run, self.state
        urgency = self.urgency
        mine = board.group[number]
        state[number] = DONE
        for user in board.users[number]:
            pending[user] -= 1
            if state[user] < RUNNING and may_run(user) and urgency[user] != NOWHERE:
                group = board.group[user]
                if group != mine:
                    self.foreign[group] -= 1
                if pending[user] == 0:
                    self._queue(user)
        if self.windows.finish(number):
            for element in self.windows.open_next():
                self._open(element)

    # --- devices ----------------------------------------------------------------------------------------------------

    def _release(self, device: int) -> None:
        machine = self.machines[device]
        key = (machine.spec.kind == "host", machine.mask, machine.spec.memory)
        kind = self.kinds.setdefault(key, len(self.kinds))
        self.idle.setdefault(kind, []).append(device)

    def run(self) -> Order:
        """Play to the end."""
        goal = len(self.by_urgency)
        begun = 0
        while True:
            begun += self._assign()
            if self.events:
                self._advance()
            elif begun < goal:
                opened = self.windows.open_next(force=True)
                for element in opened:
                    self._open(element)
                if not opened:
                    break  # what is left waits for something that is no task
            else:
                break
        self.order.seconds, self.order.loads, self.order.evictions = self.clock, self.pool.loads, self.pool.evictions
        return self.order

    def _advance(self) -> None:
        """Go on to the next moment at which something ends."""
        events = self.events
        self.clock = events[0][0]
        while events and events[0][0] <= self.clock:
            _, number, device = heapq.heappop(events)
            self.machines[device].running.remove(number)
            self._complete(number)
            self._release(device)

    def _assign(self) -> int:
        """Give the free devices work: first where no model has to move, then where it pays; returns how many began."""
        begun = 0
        for choose in (self._resident, self._switch):
            for kind in list(self.idle):
                free = self.idle[kind]
                while free and self.active:
                    group = choose(free[0])
                    if group is None:
                        break
                    device = free.pop(0)
                    self._start(device, group)
                    begun += 1
                if not free:
                    del self.idle[kind]
        return begun

    def _resident(self, device: int) -> int | None:
        """The group with the most urgent task whose models are all there."""
        machine, best, found = self.machines[device], -1, None
        masks, queues, mask = self.board.group_mask, self.queues, machine.mask
        for group in self.active:
            if masks[group] & ~mask or not self.pool.takes(machine, group):
                continue
            first = queues[group][0]
            if (found is None or first < best) and self.pool.has_room(machine, group, self._first(group).memory):
                best, found = first, group
        return found

    def _switch(self, device: int) -> int | None:
        """The group to bring models for; None when waiting is better."""
        machine = self.machines[device]
        best: tuple[float, ...] | None = None
        found = None
        for group in self.active:
            if not self.pool.takes(machine, group) or not self._pays(device, group):
                continue
            key = (self.pool.servers(group) > 0, *self._rate(machine, group), self.queues[group][0])
            if best is None or key < best:
                best, found = key, group
        if found is not None and self._should_wait(machine, found):
            return None
        return found

    def _rate(self, machine: Machine, group: int) -> tuple[float, float]:
        """How well it is to bring the models of a group: the smallest is best."""
        missing = self.board.group_mask[group] & ~machine.mask
        closed, share = 0.0, 0.0
        if self.rule.switch == "closed":
            closed = float(bool(self._missed(missing)))
        elif self.rule.switch == "work":
            share = -self._ready_work(group) / (
                1e-9 + sum(spec.transfer_seconds for spec in self.pool.specs_of(missing))
            )
        if self.pool.several and share == 0.0:
            share = -self.work[group] / (self.pool.servers(group) + 1)
        return closed, share

    def _missed(self, mask: int) -> int:
        """How many needs of tasks with these models would not be met without other models."""
        masks = self.board.group_mask
        return sum(count for group, count in enumerate(self.foreign) if count and masks[group] & mask)

    def _pays(self, device: int, group: int) -> bool:
        """Whether it is worth it to have the models of a group here too."""
        servers, machine = self.pool.servers(group), self.machines[device]
        missing = self.board.group_mask[group] & ~machine.mask
        return servers == 0 or not missing or self.work[group] / servers > WORTH * self.pool.cost(machine, missing)

    def _should_wait(self, machine: Machine, group: int) -> bool:
        """Whether models would go that running tasks are about to bring work for."""
        going = self.pool.victims(machine, group, self._first(group).memory, self._next_use)
        if not going or not self.events:
            return False
        board, hurt = self.board, sum(1 << bit for bit in going)
        exchange = self.pool.cost(machine, hurt | board.group_mask[group] & ~machine.mask)
        if self._ready_work(group) > self.rule.patience * exchange:
            return False
        coming = 0
        for _, number, _ in self.events:
            coming |= board.feeds[number]
        for other in self.active:
            coming |= board.group_feeds[other]
        return any(
            coming >> g & 1 and mask & hurt and not mask & ~machine.mask for g, mask in enumerate(board.group_mask)
        )

    def _ready_work(self, group: int) -> float:
        """Seconds of the ready tasks of a group, about."""
        return len(self.queues[group]) * self.work[group] / max(1, self.open[group])

    def _first(self, group: int) -> Task:
        """The most urgent ready task of a group."""
        return self.board.tasks[self.by_urgency[self.queues[group][0]]]

    def _next_use(self, bit: int) -> tuple[int, int]:
        """About when a model is wanted again: ready work, then work in open elements, then any, then none."""
        soonest = (3, bit)
        for group, mask in enumerate(self.board.group_mask):
            if mask >> bit & 1 and self.left[group]:
                when = (2, 0)
                if self.queues[group]:
                    when = (0, self.queues[group][0])
                elif self.foreign[group]:
                    when = (1, -int(self.work[group]))
                soonest = min(soonest, when)
        return soonest

    def _start(self, device: int, group: int) -> None:
        machine, board = self.machines[device], self.board
        begin = self.clock
        if board.group_mask[group] & ~machine.mask or not self.pool.has_room(machine, group, self._first(group).memory):
            begin = self.pool.bring(machine, group, self._first(group).memory, self._next_use, self.clock)
        queue = self.queues[group]
        number = self.by_urgency[heapq.heappop(queue)]
        if not queue:
            del self.active[group]
        self.state[number] = RUNNING
        seconds = board.tasks[number].seconds
        self.work[group] -= seconds
        self.open[group] -= 1
        self.left[group] -= 1
        machine.running.append(number)
        self.order.sequences[device].append(number)
        self.order.begun.append((number, device))
        heapq.heappush(self.events, (begin + seconds, number, device))
