"""How a run is shown while it goes on: live bars on a terminal, plain lines elsewhere, nothing when asked.

All three are context managers and listeners of the event stream; events may come from any thread.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO

from graphflow import units
from graphflow.cli.batches import Batch, Batches
from graphflow.cli.usage import Usage
from graphflow.events import (
    Event,
    Logged,
    ModelLoaded,
    NodeFailed,
    NodeFinished,
    NodeProgress,
    NodeSkipped,
    NodeStarted,
    RunFinished,
    RunStarted,
)

QUIET_SECONDS = 30.0  # between two lines of a long node where nothing can be redrawn
BATCH_SECONDS = 2.0  # between two lines of a mapped node there


def progress(quiet: bool, stream: TextIO | None = None) -> Progress:
    """The display that fits: warnings alone when `quiet`, live bars on a terminal, else plain lines.

    Args:
        quiet: show no progress, for ``--quiet`` and ``--json``.
        stream: where it is shown; standard error by default, so that it never mixes with results.
    """
    stream = sys.stderr if stream is None else stream
    if quiet:
        return Quiet(stream)
    if not stream.isatty():
        return PlainProgress(stream)
    from graphflow.cli.live import RichProgress

    return RichProgress(stream)


class Progress:
    """Shows nothing; base of the displays. Counts what every display tells at the end.

    Instances of a mapped node are told together: they are collected in `batches` until something is to be shown.
    `usage` adds up what devices did.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.batches = Batches({})
        self.usage = Usage()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def __call__(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, RunStarted):
                self.batches = Batches(event.nodes)
            elif isinstance(event, NodeFinished):
                self.batches.settle(event.node, event.how, event.seconds, event.time)
            elif isinstance(event, NodeFailed):
                self.batches.settle(event.node, "failed", 0.0, event.time)
            elif isinstance(event, NodeSkipped):
                self.batches.settle(event.node, "skipped", 0.0, event.time, event.reason)
            self.usage(event)
            handler: Callable[[Any], None] | None = getattr(self, f"on_{type(event).__name__}", None)
            if handler is not None:
                handler(event)

    def summary(self, event: RunFinished) -> str:
        """The last line: ``done in 3.20 s: 5 computed, 9 cached``."""
        counted = self.batches.counted()
        return f"{event.status} in {units.duration(event.seconds)}{counted and f': {counted}'}"


class Quiet(Progress):
    """Warnings alone: a script must learn that its results are those of other code."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream

    def on_Logged(self, event: Logged) -> None:
        if not event.node and event.message.startswith("warning: "):
            print(units.printable(event.message), file=self.stream, flush=True)


class PlainProgress(Progress):
    """A line for each thing that happened: for logs, pipes and CI."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream
        self._last_line: dict[str, float] = {}

    def line(self, text: str) -> None:
        """Write a line at once."""
        print(units.printable(text), file=self.stream, flush=True)

    def tell(self, batch: Batch) -> None:
        """Write a line about what has settled of a node since the last one."""
        self.line(f"[{self.batches.place}] {batch.title}: {batch.outcome}")
        batch.clear()

    def on_settled(self, event: NodeFinished | NodeSkipped) -> None:
        batch = self.batches.of(event.node)
        for other in self.batches.waiting(known=False):
            if other is not batch:  # nobody knows whether more of it comes
                self.tell(other)
        if batch.complete or event.time - batch.began >= BATCH_SECONDS:
            self.tell(batch)

    def on_RunStarted(self, event: RunStarted) -> None:
        cached = sum(status == "cached" for status in event.nodes.values())
        self.line(f"{event.graph}: {units.plural(len(event.nodes), 'node')}, {cached} cached")

    def on_NodeStarted(self, event: NodeStarted) -> None:
        self._last_line[event.node] = event.time

    def on_NodeProgress(self, event: NodeProgress) -> None:
        if event.time - self._last_line.get(event.node, event.time) >= QUIET_SECONDS:
            self._last_line[event.node] = event.time
            step = f"{event.step}/{event.total}" if event.total else str(event.step)
            self.line(f"       {event.node} {step} {event.label}".rstrip())

    on_NodeFinished = on_NodeSkipped = on_settled

    def on_NodeFailed(self, event: NodeFailed) -> None:
        self.line(f"[{self.batches.place}] {event.node}: FAILED: {event.message}")
        batch = self.batches.of(event.node)
        if batch.complete and batch.names:
            self.tell(batch)

    def on_ModelLoaded(self, event: ModelLoaded) -> None:
        if (seconds := self.usage.took(event)) is not None:
            self.line(f"       loaded {event.role} {loaded_text(event, seconds)}")

    def on_Logged(self, event: Logged) -> None:
        self.line(f"       {event.node}: {event.message}" if event.node else f"       {event.message}")

    def on_RunFinished(self, event: RunFinished) -> None:
        for batch in self.batches.waiting():
            self.tell(batch)
        self.line(self.summary(event))
        if used := self.usage.text():
            self.line(used)


def loaded_text(event: ModelLoaded, seconds: float) -> str:
    """``pocket/weights/vae, 2.1 MiB onto cuda:0 in 0.12 s``."""
    size = f", {units.size(event.bytes)}" if event.bytes else ""
    where = f" onto {event.device}" if event.device.partition(":")[0] not in ("", "cpu") else ""
    return f"{event.name}{size}{where} in {units.duration(seconds)}"
