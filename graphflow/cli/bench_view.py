"""A bench on the terminal: one bar or line a method while it runs, and the table at the end."""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from graphflow import units
from graphflow.bench.text import cells, footnotes, titles
from graphflow.cli.progress import Progress, Quiet
from graphflow.events import Logged, ModelLoaded, NodeFailed, NodeFinished, NodeSkipped, RunFinished, RunStarted

if TYPE_CHECKING:
    from rich.console import Console

    from graphflow.bench.table import Table

STAR = "*"  # before the best where nothing can be bold
EVERY = 15.0  # seconds between two lines where nothing can be redrawn
_INDEX = re.compile(r"\[[^\]]*\]")


def bench_progress(quiet: bool, stream: TextIO | None = None) -> Progress:
    """The display that fits: warnings alone when `quiet`, bars on a terminal, else a line now and then."""
    stream = sys.stderr if stream is None else stream
    if quiet:
        return Quiet(stream)
    return BenchBars(stream) if stream.isatty() else BenchLines(stream)


class BenchLines(Progress):
    """How far each method is, a line every few seconds; failures at once."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream
        self.totals: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self._said = 0.0

    def line(self, text: str) -> None:
        """Write a line at once."""
        print(units.printable(text), file=self.stream, flush=True)

    def on_RunStarted(self, event: RunStarted) -> None:
        self.totals = Counter(group_of(name) for name in event.nodes)
        self.done = Counter()
        if len(self.totals) > 1:  # not the data set alone, which is read first
            there = sum(status == "cached" for status in event.nodes.values())
            self.line(f"{event.graph}: {units.plural(len(event.nodes), 'step')}, {there} cached")

    def on_NodeFinished(self, event: NodeFinished) -> None:
        self.advance(event.node)

    def on_NodeSkipped(self, event: NodeSkipped) -> None:
        self.advance(event.node)

    def on_NodeFailed(self, event: NodeFailed) -> None:
        self.line(f"{event.node}: FAILED: {event.message}")
        self.advance(event.node)

    def on_ModelLoaded(self, event: ModelLoaded) -> None:
        self.line(f"loaded {event.role} {event.name} in {units.duration(event.seconds)}")

    def on_Logged(self, event: Logged) -> None:
        if not event.node:  # what nodes say of each picture would be a thousand lines
            self.line(event.message)

    def on_RunFinished(self, event: RunFinished) -> None:
        if len(self.totals) > 1:
            self.line(self.summary(event))

    def advance(self, node: str) -> None:
        """One more step of a method is over."""
        name = group_of(node)
        self.done[name] += 1
        self.totals[name] = max(self.totals[name], self.done[name])
        self.show(name)

    def show(self, name: str) -> None:
        """Say how far a method is, if it is time to."""
        now = time.monotonic()
        if now - self._said >= EVERY and len(self.totals) > 1:
            self._said = now
            self.line(f"{name}: {self.done[name]} of {units.plural(self.totals[name], 'step')}")


class BenchBars(BenchLines):
    """A bar a method."""

    def __init__(self, stream: TextIO, console: Console | None = None) -> None:
        super().__init__(stream)
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        self._bars = Bars(
            TextColumn("{task.description}", markup=False), BarColumn(bar_width=32), MofNCompleteColumn(),
            TimeElapsedColumn(), console=console or Console(file=stream, highlight=False), transient=True,
        )  # fmt: skip
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> BenchBars:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def line(self, text: str) -> None:
        self._bars.console.print(units.printable(text), markup=False)

    def on_RunStarted(self, event: RunStarted) -> None:
        super().on_RunStarted(event)
        for task in self._tasks.values():
            self._bars.remove_task(task)
        self._tasks = {
            name: self._bars.add_task(units.printable(name), total=total, start=False)
            for name, total in self.totals.items()
        }

    def show(self, name: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(units.printable(name))
        if self.done[name] == 1:
            self._bars.start_task(self._tasks[name])
        total = self.totals[name]
        self._bars.update(self._tasks[name], completed=self.done[name], total=total)
        if self.done[name] == total:
            self._bars.stop_task(self._tasks[name])


def group_of(node: str) -> str:
    """The method that an instance belongs to, or the node outside of all methods."""
    return _INDEX.sub("", node).partition("/")[0].replace("__", ": ")


def print_bench(table: Table, console: Console | None = None) -> None:
    """The table and its notes; on a pipe as wide as it needs to be."""
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    console = console or Console(highlight=False, width=None if sys.stdout.isatty() else 240)
    console.print(Text(units.printable(table.title), style="bold"), soft_wrap=True)
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for number, title in enumerate(titles(table)):
        width = max((len(cells(table, row)[number]) + 1 for row in table.rows), default=0)  # heads may wrap, not these
        grid.add_column(Text(title), justify="right" if number else "left", min_width=width if number else 12)
    styles = {"method": "", "baseline": "dim", "published": "italic dim"}
    for row in table.rows:
        texts = cells(table, row, lambda text: f"{STAR}{text}")
        grid.add_row(*(_cell(units.printable(text), styles[row.kind], console.is_terminal) for text in texts))
    console.print(grid)
    for note in footnotes(table, "Bold" if console.is_terminal else STAR):
        console.print(Text(units.printable(note), style="dim"), soft_wrap=True)


def _cell(text: str, style: str, bold: bool) -> Any:
    from rich.text import Text

    if bold and text.startswith(STAR):
        return Text(text.removeprefix(STAR), style="bold")
    return Text(text, style=style)
