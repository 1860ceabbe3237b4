"""What happens during a run, as one stream of frozen records.

The progress display, the log on disk and the report all read this stream; nothing else tells them anything.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TextIO


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events; `time` is in seconds since the epoch."""

    time: float = field(default_factory=time.time)


@dataclass(frozen=True, kw_only=True)
class RunStarted(Event):
    """The plan is made; `nodes` maps each demanded node to cached, run or maybe, in order of execution."""

    graph: str
    nodes: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class NodeStarted(Event):
    """A node begins to compute on a device, alone or as one of `batch` elements that are computed in one call."""

    node: str
    kind: str
    device: str = ""
    batch: int = 1


@dataclass(frozen=True, kw_only=True)
class NodeProgress(Event):
    """A node has done `step` of `total` steps; `total` is None when nobody knows."""

    node: str
    step: int
    total: int | None
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class NodeFinished(Event):
    """A node has its outputs: computed just now (`ran`) or found in the store (`cached`).

    `peak` is the memory that it needed beside the weights, in bytes, where the device tells.
    """

    node: str
    how: Literal["ran", "cached"]
    seconds: float = 0.0
    peak: int | None = None


@dataclass(frozen=True, kw_only=True)
class NodeFailed(Event):
    """A node raised an error."""

    node: str
    message: str


@dataclass(frozen=True, kw_only=True)
class NodeSkipped(Event):
    """A node can't run because one that it needs has failed; the run goes on with the others."""

    node: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ModelLoading(Event):
    """A model begins its way into host memory, or onto a device; `ModelLoaded` or the node's failure follows."""

    role: str
    name: str
    device: str = ""
    bytes: int = 0
    stage: Literal["host", "device"] = "device"


@dataclass(frozen=True, kw_only=True)
class ModelLoaded(Event):
    """A model has come from disk into host memory (stage ``host``), or onto a device (``device``).

    `seconds` is how long that took, `bytes` the size of its weights.
    """

    role: str
    name: str
    seconds: float
    device: str = ""
    bytes: int = 0
    stage: Literal["host", "device"] = "device"


@dataclass(frozen=True, kw_only=True)
class ModelReleased(Event):
    """A model has made room on a device."""

    name: str
    device: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Logged(Event):
    """A line that a node wrote, or a warning of the engine (`node` is empty then)."""

    node: str
    message: str


@dataclass(frozen=True, kw_only=True)
class RunFinished(Event):
    """The run is over."""

    status: Literal["done", "failed", "cancelled"]
    seconds: float


Listener = Callable[[Event], None]


class Bus:
    """Hands each event to every listener, in order."""

    def __init__(self, *listeners: Listener) -> None:
        self.listeners = list(listeners)

    def __call__(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)


class JsonLines:
    """A listener that writes events to a file, a JSON object a line; usable as a context manager.

    The file appears with the first event: a run that is refused before it begins leaves none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: TextIO | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, NodeProgress):  # a thousand steps a second would drown the rest
            return
        if self.file is None:
            self.file = self.path.open("w", encoding="utf-8")
        self.file.write(json.dumps(as_json(event)) + "\n")
        self.file.flush()

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.file is not None:
            self.file.close()


def as_json(event: Event) -> dict[str, Any]:
    """The event as a JSON object, its class name under ``event``."""
    return {"event": type(event).__name__, **dataclasses.asdict(event)}
