"""The tasks of a run as rows of numbers: what each still needs, who needs it, how long the path behind it is."""

from __future__ import annotations

from collections.abc import Iterable

from graphflow.scheduler.rules import Urgency
from graphflow.scheduler.tasks import Task

WAITING, FRESH, READY, RUNNING, DONE = range(5)  # FRESH: all needs are met, `Scheduler.ready` has not named it yet
NOWHERE = -1


class Board:
    """Tasks by number, in the order in which they came.

    Tasks of equal models form a *group*; host tasks are grouped by the device groups that they feed.

    Attributes:
        path: seconds from a task's beginning to the end of the longest chain that hangs on it.
        feeds: bit set of the device groups that its results reach, directly or through host tasks alone.
        element: number of its element, or `NOWHERE`; `elements` has axis, position and tasks of each.
    """

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.ids: dict[str, int] = {}
        self.state = bytearray()
        self.pending: list[int] = []
        self.users: list[list[int]] = []
        self.needs: list[list[int]] = []
        self.path: list[float] = []
        self.feeds: list[int] = []
        self.group: list[int] = []
        self.element: list[int] = []
        self.model_bits: dict[str, int] = {}
        self.group_models: list[tuple[str, ...]] = []
        self.group_mask: list[int] = []
        self.group_host: list[bool] = []
        self.group_feeds: list[int] = []
        self.elements: list[tuple[str, int]] = []
        self.element_tasks: list[list[int]] = []
        self.left = 0
        self._groups: dict[tuple[bool, tuple[str, ...] | int], int] = {}
        self._element_ids: dict[tuple[str, int], int] = {}

    def add(self, tasks: Iterable[Task]) -> range:
        """Append rows and link them; returns their numbers.

        Raises:
            ValueError: a task is there already and has not finished, or tasks need each other in a circle.
        """
        first = len(self.tasks)
        for task in tasks:
            self._append(task)
        new = range(first, len(self.tasks))
        in_order = True
        for number in new:
            in_order &= self._link(number)
        self.left += len(new)
        self._measure(reversed(new) if in_order else self._sorted(new))
        return new

    def group_of(self, host: bool, key: tuple[str, ...] | int) -> int:
        """The number of a group: device tasks by their models, host tasks by what they feed."""
        found = self._groups.get((host, key))
        if found is None:
            found = self._groups[host, key] = len(self.group_models)
            models = () if isinstance(key, int) else key
            self.group_models.append(models)
            self.group_mask.append(sum({1 << self.model_bits.setdefault(m, len(self.model_bits)) for m in models}))
            self.group_host.append(host)
            self.group_feeds.append(key if isinstance(key, int) else 0)
        return found

    def need(self, number: int, on: int) -> None:
        """One more need of a task."""
        self.pending[number] += 1
        self.needs[number].append(on)
        self.users[on].append(number)

    def by_urgency(self, numbers: Iterable[int], urgency: Urgency) -> list[int]:
        """Those that have not begun, the most urgent first; elements and the graph's order settle ties."""
        tasks, path, element, elements, state = self.tasks, self.path, self.element, self.elements, self.state
        left = [n for n in numbers if state[n] < RUNNING]
        at = [elements[e][1] if (e := element[n]) >= 0 else NOWHERE for n in left]
        keyed: list[tuple[float, float, int, int]]
        if urgency == "path":
            keyed = [(-path[n], i, tasks[n].rank, n) for n, i in zip(left, at, strict=True)]
        elif urgency == "graph":
            keyed = [(tasks[n].rank, i, 0, n) for n, i in zip(left, at, strict=True)]
        else:
            keyed = [(i, -path[n], tasks[n].rank, n) for n, i in zip(left, at, strict=True)]
        keyed.sort()
        return [key[3] for key in keyed]

    def _append(self, task: Task) -> None:
        earlier = self.ids.get(task.name)
        if earlier is not None and self.state[earlier] != DONE:
            raise ValueError(f"task {task.name} is there already")
        self.ids[task.name] = len(self.tasks)
        self.tasks.append(task)
        self.state.append(WAITING)
        self.pending.append(0)
        self.users.append([])
        self.path.append(task.seconds)
        self.feeds.append(0)
        self.group.append(NOWHERE)
        self.element.append(NOWHERE if task.element is None else self._element(task.element))

    def _element(self, element: tuple[str, int]) -> int:
        found = self._element_ids.get(element)
        if found is None:
            found = self._element_ids[element] = len(self.elements)
            self.elements.append(element)
            self.element_tasks.append([])
        self.element_tasks[found].append(len(self.tasks) - 1)
        return found

    def _link(self, number: int) -> bool:
        """Find a new row's unfinished needs; returns whether all of them stand before it."""
        ids, state = self.ids, self.state
        unmet = []
        names = self.tasks[number].needs
        for name in names if len(names) < 2 else dict.fromkeys(names):
            need = ids.get(name)
            if need is not None and state[need] != DONE:
                unmet.append(need)
                self.users[need].append(number)
        self.needs.append(unmet)
        self.pending[number] = len(unmet)
        return all(need < number for need in unmet)

    def _sorted(self, new: range) -> list[int]:
        """New rows, those first that nothing new needs."""
        open_users = {n: sum(u >= new.start for u in self.users[n]) for n in new}
        stack = [n for n in new if open_users[n] == 0]
        out = []
        while stack:
            number = stack.pop()
            out.append(number)
            for need in self.needs[number]:
                if need >= new.start:
                    open_users[need] -= 1
                    if open_users[need] == 0:
                        stack.append(need)
        if len(out) < len(new):
            circle = ", ".join(self.tasks[n].name for n in new if open_users[n])
            raise ValueError(f"tasks need each other: {circle[:200]}")
        return out

    def _measure(self, backwards: Iterable[int]) -> None:
        """Paths, feeds and groups of new rows, from the ends; then of the older ones that they hang on."""
        older: dict[int, None] = {}
        for number in backwards:
            task = self.tasks[number]
            self._look_down(number)
            host = task.where == "host"
            self.group[number] = self.group_of(host, self.feeds[number] if host else task.models)
            older.update((need, None) for need in self.needs[number] if self.group[need] != NOWHERE)
        stack = list(older)
        while stack:
            number = stack.pop()
            before = self.path[number], self.feeds[number]
            self._look_down(number)
            if before != (self.path[number], self.feeds[number]):
                stack += (need for need in self.needs[number] if self.state[need] != DONE)

    def _look_down(self, number: int) -> None:
        longest, feeds = 0.0, 0
        for user in self.users[number]:
            group = self.group[user]
            if self.path[user] > longest:
                longest = self.path[user]
            feeds |= self.feeds[user] if self.group_host[group] else 1 << group
        self.path[number] = self.tasks[number].seconds + longest
        self.feeds[number] = feeds
