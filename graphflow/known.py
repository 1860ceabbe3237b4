"""What is known of a graph's values without computing: digests by place, and how many instances mapped nodes have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from graphflow.codecs import digest_json
from graphflow.errors import Diagnostic, InvalidError
from graphflow.graph import Element, Graph, GraphNode, Index, Place, Source
from graphflow.store import Stored

if TYPE_CHECKING:
    from graphflow.inputs import InputValue


_ONE: tuple[tuple[Index, None]] = (((), None),)


class UnknownError(Exception):
    """A place whose value is not known yet is needed; `place` says which."""

    def __init__(self, place: Place) -> None:
        self.place = place
        super().__init__(place)


class Known:
    """The digests of a graph's places, as far as they are known."""

    def __init__(self, graph: Graph, inputs: Mapping[str, InputValue]) -> None:
        self.graph = graph
        self.digests: dict[Place, Stored] = {Place("inputs", name): value.stored for name, value in inputs.items()}
        self._lengths: dict[tuple[str, Index], int] = {}

    def instances(self, node: GraphNode, start: Index = ()) -> Iterable[tuple[Index, Place | None]]:
        """The instances of a node, one for each element along its axes: those whose index begins with `start`.

        Where a list that it is mapped over is not known yet, the index ends before that axis, and the place of the
        list stands beside it.

        Raises:
            InvalidError: the lists that it is mapped over have different lengths.
        """
        return self._instances(node, start) if node.axes else _ONE

    def _instances(self, node: GraphNode, start: Index) -> Iterator[tuple[Index, Place | None]]:
        stack = [start]
        while stack:
            index = stack.pop()
            if len(index) == len(node.axes):
                yield index, None
                continue
            try:
                count = self.length(node.axes[len(index)], index)
            except UnknownError as unknown:
                yield index, unknown.place
            else:
                stack += [(*index, i) for i in reversed(range(count))]

    def length(self, axis: str, index: Index) -> int:
        """How long an axis is.

        Raises:
            UnknownError: a list that it runs along is not known yet.
            InvalidError: its lists have different lengths.
        """
        if (axis, index) not in self._lengths:
            lengths = self.graph.axis_length(axis, index, self.length, self._list_length)
            if len(set(lengths.values())) > 1:
                found = ", ".join(f"{port} has {n}" for port, n in lengths.items())
                mark = self.graph.axes[axis].mark
                raise InvalidError([Diagnostic(mark, "GF116", f"'{axis}' is mapped over unequal lists: {found}")])
            self._lengths[axis, index] = next(iter(lengths.values()))
        return self._lengths[axis, index]

    def source(self, node: GraphNode, port: str, index: Index) -> Source:
        """Where the value at a port of an instance comes from; raises as `length` does."""
        return self.graph.source(node, port, index, self.length)

    def stored(self, source: Source) -> Stored:
        """The digest of what a source brings.

        Raises:
            UnknownError: it is not known yet.
        """
        if isinstance(source, Place):
            return self._at(source)
        if isinstance(source, Element):
            whole = self._at(source.place)
            assert whole.items is not None
            return Stored(whole.items[source.position], whole.codec)
        parts = [self.stored(part) for part in source.parts]
        digests = tuple(p.digest for p in parts)
        codec = parts[0].codec if parts else "json"
        return Stored(digest_json(list(digests)), codec, sum(p.bytes for p in parts), digests)

    def _at(self, place: Place) -> Stored:
        found = self.digests.get(place)
        if found is None:
            raise UnknownError(place)
        return found

    def _list_length(self, place: Place) -> int:
        items = self._at(place).items
        assert items is not None
        return len(items)


def places_of(source: Source) -> list[Place]:
    """The places behind a source."""
    if isinstance(source, Place):
        return [source]
    return [source.place] if isinstance(source, Element) else [p for part in source.parts for p in places_of(part)]
