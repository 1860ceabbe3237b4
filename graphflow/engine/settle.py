"""The books of a run: what has become of each instance, found in the store, computed, failed or skipped."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from graphflow.engine.keep import Keeper
from graphflow.engine.recording import Settled
from graphflow.engine.values import LostValueError, Values
from graphflow.errors import GraphflowError, NodeError, OutOfMemoryError, StoreError
from graphflow.events import Event, Logged, NodeFailed, NodeFinished, NodeSkipped, NodeStarted
from graphflow.executors.compute import Outcome
from graphflow.executors.job import Job
from graphflow.graph import Graph, GraphNode, Index, Place
from graphflow.known import Known
from graphflow.options import Options
from graphflow.placing import Placed, Placer
from graphflow.plan import Plan
from graphflow.store import Lease, Store

T = TypeVar("T")


class Settler:
    """Keeps the books of one run.

    Args:
        began: `time.perf_counter` when the run began.
        compute: computes a job at once, for values that were lost.

    Attributes:
        settled: instance → what became of it, in that order.
        failures: with ``keep_going``, instance → message of those that failed.
    """

    def __init__(
        self, graph: Graph, plan: Plan, store: Store, placer: Placer, values: Values, keeper: Keeper,
        options: Options, emit: Callable[[Event], None], settled: dict[str, Settled], began: float,
        compute: Callable[[Job], Outcome],
    ) -> None:  # fmt: skip
        self.graph, self.store, self.options = graph, store, options
        self.known: Known = plan.known
        self.settled = settled
        self.failures: dict[str, str] = {}
        self._plan, self._placer, self._values, self._keeper = plan, placer, values, keeper
        self._emit, self._compute = emit, compute
        self._began, self._started = began, time.time()

    # --- from the store ---------------------------------------------------------------------------------------------

    def look_up(self, node: GraphNode, index: Index, name: str) -> Placed | None:
        """Where an instance stands whose inputs are known; None when its result was found and taken.

        Raises:
            InvalidError: a value fed to a parameter is not allowed there.
        """
        placed = self.recover(lambda: self._placer.place(node, index, self.known, self._values.fetch))
        if placed.result is not None and self._usable(name, placed):
            self.found(node, index, name, placed)
            return None
        return placed

    def ask(self, job: Job) -> Lease | str | None:
        """The right to compute, so that several processes don't compute one thing at once; else who computes it.

        None where that is no use, or the store can't say.
        """
        cls = type(job.placed.node)
        if not cls.deterministic or cls.cache == "never":
            return None
        since = 0.0
        if job.placed.result is not None:
            since = job.placed.result.created
        elif job.again or self.options.refresh or self.options.code == "strict":
            since = self._started  # what the store has under this key is just what is not to be used
        try:
            return self.store.ask(job.placed.key, since)
        except StoreError as error:
            self._keeper.warn_store(error)
            return None

    def _usable(self, name: str, placed: Placed) -> bool:
        """Whether a result may be used although the plan wanted the node to run: a value of it may be missing."""
        assert placed.result is not None
        planned = self._plan.nodes.get(name)
        return planned is None or planned.status == "maybe" or all(map(self.store.has, placed.result.outputs.values()))

    def found(self, node: GraphNode, index: Index, name: str, placed: Placed) -> None:
        """Take an instance's outputs from the store."""
        result = placed.result
        assert result is not None
        with suppress(StoreError):
            self.store.touch_found(result)
        for port, stored in result.outputs.items():
            self.known.digests[Place(node.name, port, index)] = stored
        self.passed(node, index, name, placed)

    def passed(self, node: GraphNode, index: Index, name: str, placed: Placed) -> None:
        """Pass over an instance whose outputs are known already."""
        result = placed.result
        assert result is not None
        for port, stored in result.outputs.items():
            if not stored.kept:
                self._values.adopt(Place(node.name, port, index), stored)
        self.settled[name] = Settled(node, index, placed, "cached", "", None, result.seconds)
        self._emit(NodeFinished(node=name, how="cached"))

    # --- computed ---------------------------------------------------------------------------------------------------

    def begin(self, job: Job, device: str, batch: int) -> None:
        """An instance is handed to a device. Until it is done it counts as interrupted: the run may end any time."""
        now = time.perf_counter() - self._began
        self.settled[job.name] = Settled(job.node, job.index, job.placed, "interrupted", job.reason, now, device=device)
        self._emit(NodeStarted(node=job.name, kind=job.node.cls.kind, device=device, batch=batch))

    def done(self, outcome: Outcome) -> int:
        """Keep what came of a job; returns the bytes of the values that only memory has.

        Raises:
            NodeError: it failed, or returned what its ports don't allow.
            LostValueError: a value that it reads while it runs is lost.
        """
        job = outcome.job
        entry = self.settled[job.name]
        entry.started = outcome.started - self._began
        try:
            if outcome.error is not None:
                raise outcome.error
            held = self._keeper.keep(job, outcome.out, outcome.seconds)
        except LostValueError:
            raise
        except Exception as error:
            entry.status, entry.reason = "failed", _message(error)
            self._emit(NodeFailed(node=job.name, message=entry.reason))
            if isinstance(error, GraphflowError) and not isinstance(error, OutOfMemoryError):
                raise
            raise NodeError(job.name, job.node.cls.kind, entry.reason) from error
        entry.status, entry.seconds = "ran", outcome.seconds
        entry.batch, entry.peak = outcome.batch, outcome.peak
        self._emit(NodeFinished(node=job.name, how="ran", seconds=outcome.seconds, peak=outcome.peak))
        return held

    def waits(self, name: str, holder: str) -> None:
        """Another process computes what an instance needs to compute, too."""
        self._emit(Logged(node=name, message=f"waits for {holder}, which computes the same"))

    def fail(self, name: str, node: GraphNode, index: Index, message: str) -> None:
        """Note the failure of an instance that the run outlives; it may have failed before it began."""
        found = self.settled.get(name)
        if found is None or found.status != "failed":
            self.settled[name] = Settled(node, index, None, "failed", message)
            self._emit(NodeFailed(node=name, message=message))
        self.failures[name] = self.settled[name].reason

    def skip(self, node: GraphNode, index: Index, lacking: Place) -> None:
        """An instance, or all with this beginning of an index, can't run: what it needs has failed."""
        name = node.title(index)
        above = self.graph.nodes[lacking.node].title(lacking.at)
        reason = f"needs {above}, which has no result"
        self.settled[name] = Settled(node, index, None, "skipped", reason)
        self._emit(NodeSkipped(node=name, reason=reason))

    # --- lost -------------------------------------------------------------------------------------------------------

    def recover(self, read: Callable[[], T]) -> T:
        """Read a value; what the store has lost is computed again, at once."""
        while True:
            try:
                return read()
            except LostValueError as lost:
                self._again(*self._lost(lost))

    def _again(self, node: GraphNode, index: Index) -> None:
        """Compute an instance again, and before it whatever it needs and is lost, too."""
        todo = [(node, index)]
        while todo:
            try:
                self._once_more(*todo[-1])
                todo.pop()
            except LostValueError as error:
                found = self._lost(error)
                if any(n is found[0] and i == found[1] for n, i in todo):
                    raise StoreError(str(error)) from error
                todo.append(found)

    def _once_more(self, node: GraphNode, index: Index) -> None:
        placed = self._placer.place(node, index, self.known, self._values.fetch)
        job = Job(node, index, node.title(index), placed, "a stored value was lost", again=True)
        asked = self.ask(job)
        job.lease = asked if isinstance(asked, Lease) else None
        job.contended = isinstance(asked, str)  # who waited here could be waited for
        try:
            if job.lease is not None and job.lease.result is not None:
                self._take(job, job.lease)
                return
            self._keeper.fetch(job)
            self.begin(job, "", 1)
            self.done(self._compute(job))
        finally:
            if job.lease is not None:
                job.lease.release()

    def _take(self, job: Job, lease: Lease) -> None:
        self.found(job.node, job.index, job.name, replace(job.placed, result=lease.result))

    def _lost(self, lost: LostValueError) -> tuple[GraphNode, Index]:
        """Report a lost value; returns the instance that can compute it again."""
        if lost.place.node == "inputs":
            raise StoreError(str(lost)) from lost
        node = self.graph.nodes[lost.place.node]
        if not lost.expected:
            self._emit(Logged(node="", message=f"{lost}; computing {node.title(lost.place.at)} again"))
        return node, lost.place.at


def _message(error: BaseException) -> str:
    text = str(error)
    return text if isinstance(error, GraphflowError | ValueError) and text else f"{type(error).__name__}: {text}"
