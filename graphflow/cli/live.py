"""Live bars on a terminal."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from graphflow import units
from graphflow.cli.batches import Batch
from graphflow.cli.progress import Progress, loaded_text
from graphflow.events import (
    Logged,
    ModelLoaded,
    ModelLoading,
    NodeFailed,
    NodeFinished,
    NodeProgress,
    NodeSkipped,
    NodeStarted,
    RunFinished,
    RunStarted,
)
from graphflow.groups import node_of, without_positions

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

REFRESH = 10  # a second
IDLE_SECONDS = 1.0  # after which it is said that nothing computes


class RichProgress(Progress):
    """Ticks for finished nodes, a bar for each running one, and a line for the whole run below.

    Cached nodes in a row share one line: a rerun of a hundred nodes stays readable. So do the instances of a mapped
    node, which have a bar of their own that counts them.
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

        self._running = False
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
        self._active: set[str] = set()
        self._loading: dict[tuple[str, ...], TaskID] = {}
        self._idle_since = time.monotonic()
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

        if not self._running:
            return Text()
        elapsed = int(time.time() - self._began)
        idle = not self._active and not self._loading and time.monotonic() - self._idle_since > IDLE_SECONDS
        clock = f"{elapsed // 60}:{elapsed % 60:02d}{' · waiting' if idle else ''}"
        whole = Text(f"  {self.batches.place} nodes · {clock}", style="dim")
        return Group(self._bars, whole) if self._tasks or self._loading else whole

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
        self._running = True

    def on_NodeStarted(self, event: NodeStarted) -> None:
        self._flush_cached()
        self._active.add(event.node)
        self._count(event.node)
        self._tasks[event.node] = self._bars.add_task(units.printable(event.node), total=None, label="")

    def _count(self, name: str) -> None:
        """Move the bar that counts the instances of a mapped node."""
        batch = self.batches.of(name)
        if not batch.mapped:
            return
        node = node_of(name)
        if node not in self._tasks:
            self._tasks[node] = self._bars.add_task(
                units.printable(without_positions(name)), total=batch.total, label=""
            )
        self._bars.update(self._tasks[node], completed=len(batch.settled))

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

    def on_settled(self, event: NodeFinished | NodeSkipped) -> None:
        self._remove(event.node)
        self._count(event.node)
        batch = self.batches.of(event.node)
        if batch.complete:
            self._remove(node_of(event.node))
            self._tell(batch)

    on_NodeFinished = on_NodeSkipped = on_settled

    def _tell(self, batch: Batch) -> None:
        if batch.counts["cached"] == len(batch.names):
            self._cached_names.append(batch.title)
        else:
            self._flush_cached()
            ran = batch.counts["ran"] > 0
            self._print("✓" if ran else "–", "green" if ran else "dim", batch.title, batch.outcome)
        batch.clear()

    def on_NodeFailed(self, event: NodeFailed) -> None:
        self._flush_cached()
        self._remove(event.node)
        self._count(event.node)
        self._print("✗", "bold red", event.node, event.message)
        batch = self.batches.of(event.node)
        if batch.complete:
            self._remove(node_of(event.node))
            if batch.names:
                self._tell(batch)

    def on_ModelLoading(self, event: ModelLoading) -> None:
        size = units.size(event.bytes) if event.bytes else ""
        way = "from disk" if event.stage == "host" else f"onto {event.device}"
        text = units.printable(f"loading {event.role}")
        label = units.printable(f"{size} {way}".strip())
        self._loaded((event.name, event.device, event.stage))  # a load that failed was announced before
        task = self._bars.add_task(text, total=None, label=label)
        self._loading[event.name, event.device, event.stage] = task

    def on_ModelLoaded(self, event: ModelLoaded) -> None:
        self._loaded((event.name, event.device, event.stage))
        if (seconds := self.usage.took(event)) is not None:
            self._flush_cached()
            self._print(" ", "", f"  loaded {event.role}", loaded_text(event, seconds))

    def _loaded(self, load: tuple[str, ...]) -> None:
        task = self._loading.pop(load, None)
        if task is not None:
            self._bars.remove_task(task)
            self._idle_since = time.monotonic()

    def on_Logged(self, event: Logged) -> None:
        self._flush_cached()
        self._print(" ", "", f"  {event.message}", event.node)

    def on_RunFinished(self, event: RunFinished) -> None:
        for batch in self.batches.waiting():
            self._tell(batch)
        self._flush_cached()
        style = "green" if event.status == "done" else "bold red"
        text = self.summary(event)
        self._running = False  # the live line goes away
        self._print("●", style, text)
        if used := self.usage.text():
            self._print(" ", "", "", used)

    def _remove(self, node: str) -> None:
        if node in self._active:
            self._active.remove(node)
            self._idle_since = time.monotonic()
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
