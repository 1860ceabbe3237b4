"""What the scheduler is told: tasks, models with their sizes, devices; and what it answers: steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Task:
    """One instance of a node that may have to run.

    Attributes:
        name: the instance, such as ``photos[3]/encode``.
        needs: tasks that must have finished before.
        models: keys of the models that must be on the device while it runs.
        where: ``host`` is a CPU worker; its tasks have no models.
        seconds: expected compute time of this one task.
        memory: expected bytes of activations beside the weights.
        holds: expected bytes of its results, which stay in host memory until every consumer has finished.
        batch: tasks of equal, non-empty batch may run in one call.
        element: name of the outermost axis, and the position along it.
        rank: place in the graph's own order; it settles ties.
    """

    name: str
    needs: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    where: Literal["device", "host"] = "host"
    seconds: float = 0.0
    memory: int = 0
    holds: int = 0
    batch: str = ""
    element: tuple[str, int] | None = None
    rank: int = 0


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a model takes: bytes on a device, seconds from disk to host memory, and from there to a device."""

    bytes: int
    load_seconds: float = 0.0
    transfer_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Device:
    """Where tasks run. The CPU workers are ``Device("host", kind="host", slots=n)``.

    Attributes:
        name: such as ``cuda:0``.
        kind: a ``host`` takes the tasks of that kind; where there is none, devices take them too.
        memory: budget in bytes of weights and activations together; None for no limit.
        shares_host: its memory is host memory, so a prefetched model counts against the budget.
        slots: how many steps run at once.
        ahead: how many steps a slot may be given in advance, itself included. They run one after the other, in the
            order in which they were given out: what a later one moves, it moves when the earlier one is over.
    """

    name: str
    kind: Literal["device", "host"] = "device"
    memory: int | None = None
    shares_host: bool = False
    slots: int = 1
    ahead: int = 1


@dataclass(frozen=True, slots=True)
class Step:
    """What a device does next: move `evict` off it, bring `load` onto it, then run `tasks` in one call."""

    device: str
    tasks: tuple[str, ...]
    evict: tuple[str, ...] = ()
    load: tuple[str, ...] = ()
