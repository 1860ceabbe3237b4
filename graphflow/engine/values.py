"""The values of a running graph: from the inputs, from memory or from the store, as long as somebody needs them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from graphflow.engine.lifetimes import Lifetimes
from graphflow.errors import DamagedBlobError
from graphflow.graph import Element, Gathered, Graph, Place, Source
from graphflow.inputs import InputValue
from graphflow.known import Known, places_of
from graphflow.ports import CONVERSIONS, Port, PortType
from graphflow.store import Store, Stored

MEMORY = 1 << 30  # bytes of stored values that are kept at hand; others are read from the store again


class LostValueError(Exception):
    """A value can't be read from the store; `place` says which, `expected` whether it was never kept there."""

    def __init__(self, place: Place, message: str, expected: bool = False) -> None:
        self.place, self.expected = place, expected
        super().__init__(message)


class LazyList(Sequence[Any]):
    """A list whose elements are read when they are asked for."""

    def __init__(self, parts: Sequence[Any], read: Callable[[Any], Any]) -> None:
        self._parts, self._read = parts, read

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, index: Any) -> Any:
        found = self._parts[index]
        return [self._read(part) for part in found] if isinstance(index, slice) else self._read(found)


class Values:
    """Hands out values, and lets go of what no later instance needs."""

    def __init__(
        self, graph: Graph, inputs: Mapping[str, InputValue], store: Store, known: Known, lifetimes: Lifetimes
    ) -> None:  # fmt: skip
        self._graph, self._inputs, self._store, self._known = graph, inputs, store, known
        self._lifetimes = lifetimes
        self._unstored: dict[Place, Any] = {}
        self._unstored_at: dict[str, Place] = {}  # by digest
        self._recent: OrderedDict[Place, tuple[Any, int]] = OrderedDict()
        self._recent_bytes = 0
        self._by_digest: dict[str, Place] = {}

    def add(self, place: Place, value: Any, stored: Stored, in_store: bool) -> None:
        """Take a value that a node has just computed."""
        self._known.digests[place] = stored
        if not in_store:
            self._hold(place, value, stored.digest)
        elif self._lifetimes.awaited(place):
            self._remember(place, value, stored.bytes)

    def adopt(self, place: Place, stored: Stored) -> None:
        """Take over a value that the store does not keep from an equal computation of this run."""
        other = self._unstored_at.get(stored.digest)
        if other in self._unstored and self._lifetimes.needed(place):
            assert other is not None
            if self._known.digests[other].digest == stored.digest:  # it may have been computed again since
                self._hold(place, self._unstored[other], stored.digest)

    def drop(self, places: Iterable[Place]) -> None:
        """Let go of values that no instance awaits; what the run returns stays, unless the store has it."""
        for place in places:
            if not self._lifetimes.needed(place) and self._unstored.pop(place, None) is not None:
                digest = self._known.digests[place].digest
                if self._unstored_at.get(digest) == place:
                    del self._unstored_at[digest]
            self._forget(place)

    def sweep(self) -> None:
        """Let go of everything that nobody needs any more."""
        self.drop([p for p in (*self._unstored, *self._recent) if not self._lifetimes.awaited(p)])

    def fetch(self, source: Source) -> Any:
        """The value that a source brings.

        Raises:
            LostValueError: it can't be read any more.
        """
        if isinstance(source, Place):
            return self._at(source)
        return self._element(source) if isinstance(source, Element) else [self.fetch(part) for part in source.parts]

    def fetch_for(self, port: Port, source: Source) -> Any:
        """The value that a source brings, converted to the type of the port that it enters; raises as `fetch` does."""
        if isinstance(source, Gathered):  # the parts may be of several types
            return [self.fetch_for(replace(port, is_list=False), part) for part in source.parts]
        value, convert = self.fetch(source), self._conversion(port, source)
        if convert is None:
            return value
        return [convert(v) for v in value] if port.is_list else convert(value)

    def converts(self, port: Port, source: Source) -> bool:
        """Whether the value that a source brings, or a part of it, is converted to the type of a port."""
        if isinstance(source, Gathered):
            return any(self.converts(port, part) for part in source.parts)
        return self._conversion(port, source) is not None

    def _conversion(self, port: Port, source: Place | Element) -> Callable[[Any], Any] | None:
        came = self._graph.type_of(source.place if isinstance(source, Element) else source)
        return CONVERSIONS.get((came.name, port.type.name)) if isinstance(port.type, PortType) else None

    def check(self, source: Source) -> None:
        """Make sure that a graph output can be read after the run, one value at a time.

        Raises:
            LostValueError: it can't be read any more.
        """
        for place in places_of(source):
            if place not in self._unstored and place.node != "inputs":
                stored = self._known.digests[place]
                try:
                    for digest in stored.digests:
                        self._store.peek(Stored(digest, stored.codec))
                except DamagedBlobError as error:
                    raise LostValueError(place, str(error), not stored.kept) from error

    def find(self, digest: str) -> Any:
        """The value with this digest for people to look at (see `Store.peek`); None when it can't be read any more."""
        if len(self._by_digest) != len(self._known.digests):
            self._by_digest = {stored.digest: place for place, stored in self._known.digests.items()}
        place = self._by_digest.get(digest)
        if place is None:
            return None
        if place in self._unstored or place in self._recent or place.node == "inputs":
            return self._at(place)
        stored = self._known.digests[place]
        if stored.items is not None:
            return LazyList([Stored(d, stored.codec) for d in stored.items], self._store.peek)
        try:
            return self._store.peek(stored)
        except DamagedBlobError:
            return None

    def _at(self, place: Place) -> Any:
        if place in self._unstored:
            return self._unstored[place]
        if place in self._recent:
            self._recent.move_to_end(place)
            return self._recent[place][0]
        if place.node == "inputs":
            return self._inputs[place.port].load()
        stored = self._known.digests[place]
        value = self._read(place, stored)
        self._remember(place, value, stored.bytes)
        return value

    def _element(self, source: Element) -> Any:
        place, position = source
        if place in self._unstored or place in self._recent:
            return self._at(place)[position]
        if place.node == "inputs":
            return self._inputs[place.port].element(position)
        return self._read(place, self._known.stored(source))

    def _read(self, place: Place, stored: Stored) -> Any:
        try:
            return self._store.load(stored)
        except DamagedBlobError as error:
            raise LostValueError(place, str(error), not self._known.digests[place].kept) from error

    def _remember(self, place: Place, value: Any, size: int) -> None:
        self._forget(place)
        if hasattr(value, "getbands"):  # a picture: stored compressed
            size = value.width * value.height * len(value.getbands())
        if size > MEMORY:
            return
        self._recent[place] = (value, size)
        self._recent_bytes += size
        while self._recent_bytes > MEMORY:
            self._recent_bytes -= self._recent.popitem(last=False)[1][1]

    def _hold(self, place: Place, value: Any, digest: str) -> None:
        """Keep a value that the store does not have."""
        self._unstored[place] = value
        self._unstored_at.setdefault(digest, place)

    def _forget(self, place: Place) -> None:
        if place in self._recent:
            self._recent_bytes -= self._recent.pop(place)[1]
