"""The scheduler; see the package for what it is and `Scheduler` for how it is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from graphflow.scheduler.board import DONE, FRESH, READY, RUNNING, WAITING, Board
from graphflow.scheduler.choice import Choice
from graphflow.scheduler.held import Held
from graphflow.scheduler.memory import Memory
from graphflow.scheduler.route import Route
from graphflow.scheduler.tasks import Device, ModelSpec, Step, Task
from graphflow.scheduler.windows import Windows


class Scheduler:
    """Hands out steps to free devices.

    A driver loops: `ready` (look each up; `finish` those found), `next` for each free device, `finish` for each task
    that is over. `next` gives out only tasks that `ready` has named. Same calls, same answers.

    Args:
        devices: at least one.
        models: key → size; a key that is missing counts as size 0.
        batch_limit: how many tasks like this one may run in one call.
        value_limit: bytes of held results that open elements may have together.
        window: elements of a map that are open at once while all models of the map fit on the device together.

    Attributes:
        resident: device → the models on it.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        models: Mapping[str, ModelSpec],
        *,
        batch_limit: Callable[[Task], int] = lambda t: 1,
        value_limit: int | None = None,
        window: int = 64,
    ) -> None:
        self.devices = {d.name: d for d in devices}
        self.models = dict(models)
        self._board = Board()
        self._windows = Windows(self._board, devices, self._bytes, window, value_limit)
        self._held = Held(self._board, self._windows) if value_limit is not None else None
        self._memory = {d.name: Memory(d, self.models, self._board.model_bits) for d in devices}
        self.resident: Mapping[str, Mapping[str, None]] = {name: m.resident for name, m in self._memory.items()}
        self._route = Route(self._board, self._windows, devices, self.resident, self.models, self._on_host)
        self._choice = Choice(self._route)
        self._next_use = {d.name: partial(self._route.next_use, d.name) for d in devices}
        self._batch_limit = batch_limit
        self._fresh: list[int] = []
        self._steps: dict[int, list[int]] = {}  # running task → the tasks of its step that are left
        self._busy = {d.name: 0 for d in devices}
        self._where: dict[int, str] = {}  # running task → its device

    @property
    def idle(self) -> bool:
        """Whether nothing is left to run and nothing runs."""
        return self._board.left == 0

    def add(self, tasks: Iterable[Task]) -> None:
        """Take tasks on; needs that are unknown or finished count as met.

        Raises:
            ValueError: a task is there already and has not finished, or tasks need each other in a circle.
        """
        new = self._board.add(tasks)
        self._windows.add(new)
        self._route.add(new)
        for number in new:
            self._met(number)

    def set_model(self, key: str, spec: ModelSpec) -> None:
        """Say how large a model is, once that is known."""
        self.models[key] = spec
        self._windows.changed()
        for memory in self._memory.values():
            memory.resized()

    def ready(self) -> list[str]:
        """The tasks that became ready since the last call, in rank order."""
        tasks, state = self._board.tasks, self._board.state
        self._open(force=False)
        fresh = [n for n in self._fresh if state[n] == FRESH]
        if not fresh and not self._where and self._route.queued == 0:
            self._open(force=True)
            fresh = [n for n in self._fresh if state[n] == FRESH]
        self._fresh = []
        self._route.plan(self._where)
        for number in fresh:
            self._enqueue(number)
        return [tasks[n].name for n in sorted(fresh, key=lambda n: (tasks[n].rank, n))]

    def wait(self, name: str, on: str) -> None:
        """One more need of a task that has not begun: `on` computes the same."""
        number, other = self._board.ids[name], self._board.ids.get(on)
        if other is None or self._board.state[other] == DONE:
            return
        self._board.need(number, other)
        if self._board.state[number] == READY:
            self._route.leave(number)
        self._board.state[number] = WAITING

    def next(self, device: str) -> Step | None:
        """What a free device does now, or None; its tasks are running from here on."""
        spec, memory = self.devices[device], self._memory[device]
        if self._busy[device] >= spec.slots * spec.ahead or not self._route.queued:
            return None
        first = self._choice.choose(self._route.numbers[device], memory, self._where)
        if first is None:
            return None
        tasks = self._board.tasks
        task = tasks[first]
        evict, load = (
            memory.make_room(task.models, task.memory, self._next_use[device])
            if task.models or task.memory
            else ((), ())
        )
        batch = [first]
        self._begin(first, device, batch)
        if task.batch and (limit := self._batch_limit(task)) > 1:
            for number in self._route.like(first, memory.batch(task, limit) - 1):
                batch.append(number)
                self._begin(number, device, batch)
        memory.begin(id(batch), task.models, task.memory * len(batch))
        self._busy[device] += 1
        names = (task.name,) if len(batch) == 1 else tuple(tasks[n].name for n in batch)
        return Step(device, names, evict, load)

    def prefetch(self, device: str) -> str | None:
        """The model to bring from disk to host memory while the device computes; asked again it names the next."""
        memory = self._memory[device]
        for model in self._route.coming(device, memory):
            if not memory.may_prefetch(model, self._route.largest(device), self._next_use[device]):
                return None
            memory.prefetch(model)
            return model
        return None

    def finish(self, name: str, holds: int | None = None) -> None:
        """A task ran, was found, failed or is skipped; `holds`: the bytes of its results.

        Raises:
            ValueError: it has finished already.
        """
        board = self._board
        number = board.ids[name]
        if board.state[number] == DONE:
            raise ValueError(f"task {name} has finished already")
        if board.state[number] == READY:
            self._route.leave(number)
        self._stop(number)
        board.state[number] = DONE
        board.left -= 1
        self._route.finished()
        if self._held is not None:
            self._held.finish(number, holds)
        for user in board.users[number]:
            board.pending[user] -= 1
            if board.pending[user] == 0:
                self._met(user)
        self._windows.finish(number)

    def give_back(self, step: Step) -> None:
        """The step's tasks did not run: they are ready again."""
        for name in step.tasks:
            number = self._board.ids[name]
            self._stop(number)
            self._board.state[number] = READY
            self._route.again(number)

    def park(self, name: str) -> None:
        """A running task waits for somebody outside: until it is given back, or finishes, its device is free."""
        self._stop(self._board.ids[name])

    def place(self, device: str, models: Iterable[str]) -> None:
        """These models of tasks lie on the device already, from an earlier run."""
        self._memory[device].place(models)

    def forget(self, device: str, models: Iterable[str]) -> None:
        """These models are no longer on the device."""
        for model in models:
            self._memory[device].drop(model)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _bytes(self, model: str) -> int:
        spec = self.models.get(model)
        return spec.bytes if spec is not None else 0

    def _on_host(self) -> set[str]:
        return {model for memory in self._memory.values() for model in memory.on_host}

    def _met(self, number: int) -> None:
        """A task may have become ready."""
        board = self._board
        if board.pending[number] == 0 and board.state[number] == WAITING and self._windows.may_run(number):
            self._freshen(number)

    def _freshen(self, number: int) -> None:
        self._board.state[number] = FRESH
        self._fresh.append(number)

    def _open(self, force: bool) -> None:
        for element in self._windows.open_next(force):
            for number in self._board.element_tasks[element]:
                self._met(number)

    def _enqueue(self, number: int) -> None:
        self._board.state[number] = READY
        self._route.enter(number)

    def _begin(self, number: int, device: str, step: list[int]) -> None:
        self._board.state[number] = RUNNING
        self._route.leave(number)
        self._where[number] = device
        self._steps[number] = step

    def _stop(self, number: int) -> None:
        """Take a task out of the step that it runs in, if it does."""
        device = self._where.pop(number, None)
        if device is None:
            return
        step = self._steps.pop(number)
        step.remove(number)
        if not step:
            self._memory[device].end(id(step))
            self._busy[device] -= 1
