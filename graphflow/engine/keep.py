"""Around a computation: fetch what an instance is fed; check, digest and store what it returns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from graphflow.engine.values import Values
from graphflow.errors import StoreError
from graphflow.events import Event, Logged
from graphflow.executors.job import Job, Surroundings
from graphflow.executors.returned import check_out, checked
from graphflow.graph import GraphNode, Index, Place
from graphflow.known import Known
from graphflow.ports import Port, PortType
from graphflow.store import Prepared, Result, Store, Stored, worth_storing


@dataclass
class Keeper:
    """Fetches and keeps the values of a run.

    Attributes:
        graph_name: stands beside the results in the store.
        always: outputs (node, port) that are stored whatever they cost: those of the graph.
    """

    graph_name: str
    store: Store
    values: Values
    known: Known
    around: Surroundings
    emit: Callable[[Event], None]
    always: frozenset[tuple[str, str]] = frozenset()
    _store_warned: bool = False

    def fetch(self, job: Job) -> None:
        """Fetch what an instance is fed into `Job.values`.

        Raises:
            LostValueError: a value can't be read any more.
        """
        for port in job.node.edges:
            if port in job.node.ports:
                source = self.known.source(job.node, port, job.index)
                job.values[port] = self.values.fetch_for(job.node.ports[port], source)
        job.stored = partial(self._stored, job.node, job.index)  # not the job: a circle would outlive the run

    def _stored(self, node: GraphNode, index: Index, port: str) -> Stored | None:
        source = self.known.source(node, port, index)
        return None if self.values.converts(node.ports[port], source) else self.known.stored(source)

    def keep(self, job: Job, out: Any, seconds: float) -> int:
        """Check what a node returned, and store it in one transaction with the result.

        Returns the bytes of the values that are held in memory, because the store does not have them.
        """
        cls = job.node.cls
        check_out(job, out)
        prepared: dict[str, Prepared] = {}
        stored: dict[str, Stored] = {}
        whole = True
        try:
            for name, port in cls.outputs().items():
                try:
                    stored[name] = self._stage(job, port, out, seconds, prepared)
                except StoreError as error:
                    self.warn_store(error)
                    stored[name] = self.store.describe(getattr(out, name), _codec(port), port.is_list)
                    whole = False
            # What could not be written is not recorded: a later run computes it again, from its checkpoint.
            entered = whole and self._record(job, stored, seconds, prepared)
        finally:
            for value in prepared.values():
                value.discard()
        held = 0
        for name, known in stored.items():
            value = getattr(out, name)
            in_store = entered and name in prepared
            if known.codec in ("folder", "series"):
                if in_store:
                    value = self.store.load(known)  # the node's own folder goes with the run
                elif (job.node.name, name) in self.always:
                    self.around.keep_scratch = True
            self.values.add(Place(job.node.name, name, job.index), value, known, in_store)
            held += 0 if in_store else known.bytes
        return held

    def _stage(self, job: Job, port: Port, out: Any, seconds: float, prepared: dict[str, Prepared]) -> Stored:
        """Check and digest an output, and write its files unless it is cheaper to compute it again.

        Raises:
            StoreError: they can't be written.
        """
        cls = job.node.cls
        wanted = cls.cache == "always" or (job.node.name, port.name) in self.always
        earlier = job.placed.result.outputs.get(port.name) if job.placed.result is not None else None
        if (
            earlier is not None
            and not earlier.kept
            and cls.deterministic
            and (cls.cache == "never" or not wanted)  # what is wanted now may have been only on the way before
            and _same_length(earlier, out, port)
        ):
            return earlier  # the digests are known: a data set of a thousand pictures need not be read for them
        items = checked(job.name, cls.kind, port, getattr(out, port.name))
        value = items if port.is_list else next(iter(items))
        if cls.cache == "never":
            return self.store.describe(value, _codec(port), port.is_list)
        found = self.store.prepare(value, _codec(port), port.is_list)
        if not wanted and not port.is_list and not worth_storing(found.stored.bytes, seconds, _codec(port)):
            found.discard()
            return replace(found.stored, kept=False)
        prepared[port.name] = found
        return found.stored

    def _record(self, job: Job, stored: dict[str, Stored], seconds: float, prepared: dict[str, Prepared]) -> bool:
        """Enter a result with its values; False when the store can't be written."""
        placed, cls = job.placed, job.node.cls
        result = Result(
            placed.key, cls.kind, self.graph_name, job.node.name, placed.parts, stored, seconds, time.time(),
            placed.code,
        )  # fmt: skip
        try:
            self.store.record(result, prepared.values())
            if result.key in self.around.checkpoints:
                self.store.drop_checkpoint(result.key)
        except StoreError as error:
            self.warn_store(error)
            return False
        return True

    def warn_store(self, error: StoreError) -> None:
        """The run goes on in memory when the store can't be written; the user is told once."""
        if not self._store_warned:
            self._store_warned = True
            self.emit(Logged(node="", message=f"warning: {error}. The run goes on, but its results are not cached."))


def _codec(port: Port) -> str:
    assert isinstance(port.type, PortType)
    return port.type.codec


def _same_length(earlier: Stored, out: Any, port: Port) -> bool:
    value = getattr(out, port.name)
    return earlier.items is None or (isinstance(value, Sequence) and len(value) == len(earlier.items))
