"""What a free device does next: it follows the route, and leaves it where that costs nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from graphflow.scheduler.board import DONE, READY, RUNNING
from graphflow.scheduler.memory import Memory
from graphflow.scheduler.route import Route

NEIGHBOURS = 32  # devices that one without work looks at


class Choice:
    """Chooses among ready tasks.

    A device takes the first of its ready tasks whose models are resident. When there is none, it goes on with the next
    task of its sequence, for which models move; while that waits for another device, so does this one. Taking ready
    tasks with resident models early never makes an eviction wrong afterwards: what was kept is used sooner.
    """

    def __init__(self, route: Route) -> None:
        self._route, self._board, self._devices = route, route.board, route.devices
        kinds = [d.kind for d in route.devices]
        self._alone = [kinds.count(kind) == 1 for kind in kinds]

    def choose(self, device: int, memory: Memory, running: Mapping[int, str]) -> int | None:
        """The task that a free device takes, or None."""
        route = self._route
        if route.ready_on[device]:
            found = self._resident(device, memory)
            if found is None:
                found = self._next(device)
        else:
            found = None
        if found is None and not self._alone[device]:
            self._look_around(device)
            found = self._neighbours(device, memory)
        if found is None and route.queued and not running and not self._others_go_on(device):
            found = self._any(device)
        if found is not None:
            route.reach(device, found)
        return found

    def _resident(self, device: int, memory: Memory) -> int | None:
        """The first ready task in the sequence for which no model has to move."""
        route, board, mask = self._route, self._board, memory.mask
        masks, best = board.group_mask, -1
        for group in list(route.queues[device]):
            if masks[group] & ~mask:
                continue
            first = route.first(device, group)
            if first is None or -1 < best < first:
                continue
            if memory.fits(board.tasks[route.order[first]]):
                best = first
        return None if best < 0 else route.order[best]

    def _next(self, device: int) -> int | None:
        """The next task of the sequence if it is ready, else a ready one of this device that it needs.

        None where others must go on first.
        """
        head = self._route.head(device)
        state, needs_of, device_of = self._board.state, self._board.needs, self._route.device
        while head is not None and state[head] != READY:
            needs = [n for n in needs_of[head] if state[n] != DONE]
            if not needs or any(state[n] == RUNNING or device_of[n] != device for n in needs):
                return None
            head = needs[0]
        return head

    def _look_around(self, device: int) -> None:
        """Notice when a device is through with its tasks while others are behind the plan."""
        route = self._route
        if route.checked or route.head(device) is not None:
            return
        route.checked = True
        for other in self._alike(device):
            head = route.head(other)
            if head is not None and route.position[head] < route.last[device]:
                route.starved = True
                return

    def _alike(self, device: int) -> Iterator[int]:
        kind = self._devices[device].kind
        return (i for i, d in enumerate(self._devices) if d.kind == kind and i != device)

    def _neighbours(self, device: int, memory: Memory) -> int | None:
        """A task whose models are here, and which another device should have begun by now."""
        route, masks, count = self._route, self._board.group_mask, len(self._devices)
        for step in range(1, min(count, NEIGHBOURS + 1)):
            other = (device + step) % count
            if route.ready_on[other] < 2 or self._devices[other].kind != self._devices[device].kind:
                continue
            for group in list(route.queues[other]):
                first = None if masks[group] & ~memory.mask else route.first(other, group)
                if first is None or first > route.reached[device] or len(route.queues[other][group]) < 2:
                    continue
                if memory.fits(self._board.tasks[route.order[first]]):
                    return route.order[first]
        return None

    def _others_go_on(self, device: int) -> bool:
        """Whether another device has something that it can begin."""
        route, state = self._route, self._board.state
        for other, spec in enumerate(self._devices):
            if other == device or not route.ready_on[other]:
                continue
            head = route.head(other)
            if spec.kind == "host" or (head is not None and state[head] == READY):
                return True
        return False

    def _any(self, device: int) -> int | None:
        """Any ready task, since nothing runs that could change anything."""
        route = self._route
        alike = (device, *self._alike(device))
        found = [p for i in alike for g in list(route.queues[i]) if (p := route.first(i, g)) is not None]
        return route.order[min(found)] if found else None
