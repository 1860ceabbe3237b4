"""How a run is shown while it goes on: live bars on a terminal, plain lines elsewhere, nothing when asked.

All three are context managers and listeners of the event stream; events may come from any thread.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from graphflow import units
from graphflow.events import (
    Event,
    Logged,
    ModelLoaded,
    NodeFailed,
    NodeFinished,
    NodeProgress,
    NodeStarted,
    RunFinished,
    RunStarted,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

REFRESH = 10  # a second
QUIET_SECONDS = 30.0  # between two lines of a long node where nothing can be redrawn


def progress(quiet: bool, stream: TextIO | None = None) -> Progress:
    """The display that fits: none when `quiet`, live bars on a terminal, else plain lines.

    Args:
        quiet: show nothing, for ``--quiet`` and ``--json``.
        stream: where it is shown; standard error by default, so that it never mixes with results.
    """
    stream = sys.stderr if stream is None else stream
    if quiet:
        return Progress()
    return RichProgress(stream) if stream.isatty() else PlainProgress(stream)


class Progress:
    """Shows nothing; base of the displays. Counts what every display tells at the end."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.planned: dict[str, str] = {}
        self.ran = self.cached = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def __call__(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, RunStarted):
                self.planned = dict(event.nodes)
                self.ran = self.cached = 0
            elif isinstance(event, NodeFinished):
                self.ran += event.how == "ran"
                self.cached += event.how == "cached"
            handler: Callable[[Any], None] | None = getattr(self, f"on_{type(event).__name__}", None)
            if handler is not None:
                handler(event)

    @property
    def place(self) -> str:
        """How many nodes are finished: `` 3/14``."""
        total = str(len(self.planned))
        return f"{self.ran + self.cached:>{len(total)}}/{total}"

    def summary(self, event: RunFinished) -> str:
        """The last line: ``done in 3.20 s: 5 computed, 9 cached``."""
        parts = [f"{n} {what}" for n, what in ((self.ran, "computed"), (self.cached, "cached")) if n]
        counted = f": {', '.join(parts)}" if parts else ""
        return f"{event.status} in {units.duration(event.seconds)}{counted}"


class PlainProgress(Progress):
    """A line for each thing that happened: for logs, pipes and CI."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream
        self._last_line: dict[str, float] = {}

    def line(self, text: str) -> None:
        """Write a line at once."""
        print(units.printable(text), file=self.stream, flush=True)

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

    def on_NodeFinished(self, event: NodeFinished) -> None:
        how = "cached" if event.how == "cached" else units.duration(event.seconds)
        self.line(f"[{self.place}] {event.node}: {how}")

    def on_NodeFailed(self, event: NodeFailed) -> None:
        self.line(f"[{self.place}] {event.node}: FAILED: {event.message}")

    def on_ModelLoaded(self, event: ModelLoaded) -> None:
        self.line(f"       loaded {event.role} {event.name} in {units.duration(event.seconds)}")

    def on_Logged(self, event: Logged) -> None:
        self.line(f"       {event.node}: {event.message}" if event.node else f"       {event.message}")

    def on_RunFinished(self, event: RunFinished) -> None:
        self.line(self.summary(event))


class RichProgress(Progress):
    """Ticks for finished nodes, a bar for each running one, and a line for the whole run below.

    Cached nodes in a row share one line: a rerun of a hundred nodes stays readable.
    """

    def __init__(self, stream: TextIO, console: Console | None = None) -> None:
        super().__init__()
        from rich.console import Console
        from rich.live import Live
        from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as Bars
        from rich.text import Text

        class Detail(ProgressColumn):
            """``12/50 · 8.1 it/s · 0:05 left``."""

            def render(self, task: Any) -> Text:
                return Text(_detail(task), style="dim")

        self.console = console or Console(file=stream, highlight=False)
        self._bars = Bars(
            SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), Detail(),
            console=self.console, auto_refresh=False,
        )  # fmt: skip
        self._live = Live(get_renderable=self._render, console=self.console, refresh_per_second=REFRESH, transient=True)
        self._tasks: dict[str, TaskID] = {}
        self._updated: dict[str, float] = {}
        self._steps: dict[str, int] = {}
        self._cached_names: list[str] = []
        self._began = time.time()

    def __enter__(self) -> RichProgress:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._flush_cached()
        self._live.stop()

    def _render(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        if not self.planned:
            return Text()
        elapsed = int(time.time() - self._began)
        whole = Text(f"  {self.place} nodes · {elapsed // 60}:{elapsed % 60:02d}", style="dim")
        return Group(self._bars, whole) if self._tasks else whole

    def _print(self, mark: str, style: str, text: str, note: str = "") -> None:
        from rich.text import Text

        line = Text.assemble((mark, style), " ", units.printable(text))
        if note:
            line.append(f"  {units.printable(note)}", style="dim")
        self.console.print(line)

    def _flush_cached(self) -> None:
        names, self._cached_names = self._cached_names, []
        if names:
            shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
            self._print("•", "dim", shown, "cached")

    def on_RunStarted(self, event: RunStarted) -> None:
        self._began = event.time

    def on_NodeStarted(self, event: NodeStarted) -> None:
        self._flush_cached()
        self._tasks[event.node] = self._bars.add_task(units.printable(event.node), total=None, label="")

    def on_NodeProgress(self, event: NodeProgress) -> None:
        task = self._tasks.get(event.node)
        now = time.monotonic()
        recent = now - self._updated.get(event.node, 0.0) < 1 / REFRESH
        if task is None or (recent and event.step != event.total):
            return  # nothing would be drawn before the next refresh
        if event.step < self._steps.get(event.node, 0):  # a second loop of the same node: speed and rest begin anew
            self._bars.reset(task, total=event.total)
        self._steps[event.node] = event.step
        self._updated[event.node] = now
        self._bars.update(task, completed=event.step, total=event.total, label=units.printable(event.label))

    def on_NodeFinished(self, event: NodeFinished) -> None:
        self._remove(event.node)
        if event.how == "cached":
            self._cached_names.append(event.node)
        else:
            self._flush_cached()
            self._print("✓", "green", event.node, units.duration(event.seconds))

    def on_NodeFailed(self, event: NodeFailed) -> None:
        self._flush_cached()
        self._remove(event.node)
        self._print("✗", "bold red", event.node, event.message)

    def on_ModelLoaded(self, event: ModelLoaded) -> None:
        self._print(" ", "", f"  loaded {event.role}", f"{event.name}  {units.duration(event.seconds)}")

    def on_Logged(self, event: Logged) -> None:
        self._flush_cached()
        self._print(" ", "", f"  {event.message}", event.node)

    def on_RunFinished(self, event: RunFinished) -> None:
        self._flush_cached()
        style = "green" if event.status == "done" else "bold red"
        text = self.summary(event)
        self.planned = {}  # the live line goes away
        self._print("●", style, text)

    def _remove(self, node: str) -> None:
        task = self._tasks.pop(node, None)
        if task is not None:
            self._bars.remove_task(task)


def _detail(task: Any) -> str:
    """Step, speed, remaining time and label of a task, as far as they are known."""
    parts = [f"{task.completed:.0f}/{task.total:.0f}"] if task.total else []
    if not task.total and task.completed:
        parts = [f"step {task.completed:.0f}"]
    speed = task.speed
    if speed and task.total and not task.finished:
        parts.append(f"{speed:.1f} it/s" if speed >= 1 else f"{1 / speed:.1f} s/it")
        left = (task.total - task.completed) / speed
        parts.append(f"{units.duration(left) if left >= 1 else 'under 1 s'} left")
    if task.fields.get("label"):
        parts.append(task.fields["label"])
    return " · ".join(parts) or units.duration(max(task.elapsed or 0.0, 0.0))
