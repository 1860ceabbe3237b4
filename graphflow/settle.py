"""Bringing the instances of a graph into being, one after another: found in the store, or computed and stored."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from graphflow.errors import GraphflowError, NodeError, StoreError
from graphflow.events import Event, Logged, NodeFailed, NodeFinished, NodeSkipped, NodeStarted
from graphflow.execute import Executor, Job
from graphflow.garbage import resumed
from graphflow.graph import Graph, GraphNode, Index, Place
from graphflow.known import Known, UnknownError, places_of
from graphflow.placing import CodePolicy, Placed, Placer
from graphflow.plan import Plan
from graphflow.recording import Settled
from graphflow.store import Lease, Store
from graphflow.values import LostValueError, Values

T = TypeVar("T")

WINDOW = 64  # elements of a map that go through all of its nodes before the next ones, so that memory has a bound


@dataclass(frozen=True)
class Options:
    """How to run.

    Attributes:
        until: nodes whose results are wanted instead of the graph's outputs.
        only: run nothing but `until`: what it needs must be cached.
        refresh: nodes that are computed again whatever the store has.
        keep_going: go on with what doesn't need a node, or an element of a map, that has failed.
        code: see `graphflow.placing.Placer`.
    """

    until: tuple[str, ...] = ()
    only: bool = False
    refresh: frozenset[str] = frozenset()
    keep_going: bool = False
    code: CodePolicy = "warn"


class Settler:
    """Settles the instances of one run.

    Args:
        began: `time.perf_counter` when the run began.
        collects: whether Python's garbage collector may run while a node computes.

    Attributes:
        settled: instance → what became of it, in that order.
        failures: with ``keep_going``, instance → message of those that failed.
    """

    def __init__(
        self, graph: Graph, plan: Plan, store: Store, placer: Placer, values: Values, executor: Executor,
        options: Options, emit: Callable[[Event], None], cancelled: threading.Event, settled: dict[str, Settled],
        began: float, collects: bool,
    ) -> None:  # fmt: skip
        self.graph, self.store, self.options = graph, store, options
        self.known: Known = plan.known
        self.settled = settled
        self.failures: dict[str, str] = {}
        self._plan, self._placer, self._values, self._executor = plan, placer, values, executor
        self._emit, self._cancelled = emit, cancelled
        self._began, self._started, self._collects = began, time.time(), collects

    def run_together(self, nodes: list[GraphNode]) -> None:
        """Bring all instances of nodes along one outermost axis into being, a window of its elements at a time.

        A model is then loaded once a window at most, and the values of a window go before the next one begins.
        """
        if not nodes[0].axes:
            self._run_alone(nodes[0])
            return
        windows = self.known.windows(nodes[0].axes, WINDOW)
        ran = set()
        for number, window in enumerate(windows, 1):
            last = number == len(windows)
            if len(windows) > 1:
                self._values.next_window()
            for node in nodes:
                if self._run_node(node, window):
                    ran.add(node.name)
                if node.name in ran:
                    self._values.release(node, whole=last)

    def _run_alone(self, node: GraphNode) -> None:
        """Bring a node that is not mapped into being."""
        if self._run_node(node, None):
            self._values.release(node, whole=True)

    def _run_node(self, node: GraphNode, window: range | None) -> bool:
        """Bring the instances of a node into being, those in the window; returns whether the plan wanted any to run."""
        ran = False
        for index, unknown in self.known.instances(node, window):
            name = node.title(index) if index else node.name
            entry = self._plan.nodes.get(name)
            if entry is not None and entry.status == "cached":
                self._pass(node, index, name, self._plan.placed[name])
                continue
            ran = True
            lacking = unknown or self._lacking(node, index)
            if lacking is not None:
                self._skip(node, index, lacking)
                continue
            try:
                with resumed(self._collects):
                    self._settle(node, index, entry.reason if entry is not None else "")
            except GraphflowError as error:
                if not self.options.keep_going or isinstance(error, StoreError):
                    raise
                self._fail(name, node, index, str(error))
        return ran

    def _lacking(self, node: GraphNode, index: Index) -> Place | None:
        """What an instance needs and a failed node has not brought."""
        if not self.failures:
            return None
        for port in node.edges:
            try:
                places = places_of(self.known.source(node, port, index))
            except UnknownError as unknown:
                return unknown.place
            for place in places:
                if place not in self.known.digests:
                    return place
        return None

    def _skip(self, node: GraphNode, index: Index, lacking: Place) -> None:
        name = node.title(index)
        above = self.graph.nodes[lacking.node].title(lacking.at)
        reason = f"needs {above}, which has no result"
        self._enter(name, Settled(node, index, None, "skipped", reason))
        self._emit(NodeSkipped(node=name, reason=reason))

    def _settle(self, node: GraphNode, index: Index, reason: str, lost: set[tuple[str, Index]] | None = None) -> None:
        """Bring an instance into being, computing again whatever a damaged blob has lost."""
        todo = [(node, index)]
        again = lost or set()
        while todo:
            at, where = todo[-1]
            try:
                self._settle_one(at, where, reason, (at.name, where) in again)
                todo.pop()
            except LostValueError as error:
                found = self._lost(error)
                if any(n is found[0] and i == found[1] for n, i in todo):
                    raise StoreError(str(error)) from error
                todo.append(found)
                again.add((found[0].name, found[1]))

    def recover(self, read: Callable[[], T]) -> T:
        """Read a value; what the store has lost is computed again."""
        while True:
            try:
                return read()
            except LostValueError as lost:
                node, index = self._lost(lost)
                self._settle(node, index, "a stored value was lost", {(node.name, index)})

    def _lost(self, lost: LostValueError) -> tuple[GraphNode, Index]:
        """Report a lost value; returns the instance that can compute it again."""
        if lost.place.node == "inputs":
            raise StoreError(str(lost)) from lost
        node = self.graph.nodes[lost.place.node]
        if not lost.expected:
            self._emit(Logged(node="", message=f"{lost}; computing {node.title(lost.place.at)} again"))
        return node, lost.place.at

    def _settle_one(self, node: GraphNode, index: Index, reason: str, again: bool) -> None:
        name = node.title(index) if index else node.name
        placed = self._placer.place(node, index, self.known, self._values.fetch)
        if placed.result is not None and not again and self._usable(name, placed):
            self._found(node, index, name, placed)
            return
        lease = self._lease(name, placed, again)
        with lease if lease is not None else nullcontext():
            if lease is not None and lease.result is not None:
                self._found(node, index, name, replace(placed, result=lease.result))
            else:
                self._compute(Job(node, index, name, placed), "a stored value was lost" if again else reason)

    def _lease(self, name: str, placed: Placed, again: bool) -> Lease | None:
        """The right to compute a key, so that several processes don't compute it at once; None where that's no use."""
        cls = type(placed.node)
        if not cls.deterministic or cls.cache == "never":
            return None
        since = 0.0
        if placed.result is not None:
            since = placed.result.created
        elif again or self.options.refresh or self.options.code == "strict":
            since = self._started  # what the store has under this key is just what is not to be used

        def waiting(holder: str) -> None:
            self._emit(Logged(node=name, message=f"waits for {holder}, which computes the same"))

        try:
            return self.store.lease(placed.key, self._cancelled, since, waiting)
        except StoreError as error:
            self._executor.warn_store(error)
            return None

    def _compute(self, job: Job, reason: str) -> None:
        node, name = job.node, job.name
        settled = Settled(node, job.index, job.placed, "skipped", reason, time.perf_counter() - self._began)
        self._enter(name, settled)
        self._emit(NodeStarted(node=name, kind=node.cls.kind))
        try:
            settled.seconds = self._executor.compute(job)
        except LostValueError:
            raise
        except Exception as error:
            settled.status, settled.reason = "failed", _message(error)
            self._emit(NodeFailed(node=name, message=settled.reason))
            if isinstance(error, GraphflowError):
                raise
            raise NodeError(name, node.cls.kind, settled.reason) from error
        settled.status = "ran"
        self._emit(NodeFinished(node=name, how="ran", seconds=settled.seconds))

    def _fail(self, name: str, node: GraphNode, index: Index, message: str) -> None:
        """Note the failure of an instance that the run outlives; it may have failed before it began."""
        found = self.settled.get(name)
        if found is None or found.status != "failed":
            self._enter(name, Settled(node, index, None, "failed", message))
            self._emit(NodeFailed(node=name, message=message))
        self.failures[name] = self.settled[name].reason

    def _enter(self, name: str, settled: Settled) -> None:
        self.settled[name] = settled

    def _usable(self, name: str, placed: Placed) -> bool:
        """Whether a result may be used although the plan wanted the node to run: a value of it may be missing."""
        assert placed.result is not None
        planned = self._plan.nodes.get(name)
        return planned is None or planned.status == "maybe" or all(map(self.store.has, placed.result.outputs.values()))

    def _found(self, node: GraphNode, index: Index, name: str, placed: Placed) -> None:
        """Take an instance's outputs from the store."""
        result = placed.result
        assert result is not None
        with suppress(StoreError):
            self.store.touch_found(result)
        for port, stored in result.outputs.items():
            self.known.digests[Place(node.name, port, index)] = stored
        self._pass(node, index, name, placed)

    def _pass(self, node: GraphNode, index: Index, name: str, placed: Placed) -> None:
        """Pass over an instance whose outputs are known already."""
        result = placed.result
        assert result is not None
        for port, stored in result.outputs.items():
            if not stored.kept:
                self._values.adopt(Place(node.name, port, index), stored)
        self._enter(name, Settled(node, index, placed, "cached", "", None, result.seconds))
        self._emit(NodeFinished(node=name, how="cached"))


def _message(error: BaseException) -> str:
    text = str(error)
    return text if isinstance(error, GraphflowError | ValueError) and text else f"{type(error).__name__}: {text}"
