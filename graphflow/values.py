"""The values of a running graph: digests of what is known, and the values themselves while somebody needs them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from graphflow.errors import DamagedBlobError
from graphflow.graph import Graph
from graphflow.inputs import InputValue
from graphflow.plan import Digests
from graphflow.ports import CONVERSIONS, Port, PortType
from graphflow.spec import Ref
from graphflow.store import Store, Stored


class LostValueError(Exception):
    """A value that was stored can't be read any more; `ref` says which."""

    def __init__(self, ref: Ref, message: str) -> None:
        self.ref = ref
        super().__init__(message)


class Values:
    """Reads values from the inputs, from memory or from the store, and lets go of what no later node needs."""

    def __init__(self, graph: Graph, inputs: Mapping[str, InputValue], store: Store) -> None:
        self._graph, self._inputs, self._store = graph, inputs, store
        self.digests: Digests = {("inputs", name): value.stored for name, value in inputs.items()}
        self._held: dict[tuple[str, str], Any] = {}
        self._consumers: dict[tuple[str, str], int] = {}
        self._unstored: set[tuple[str, str]] = set()

    def expect(self, names: Iterable[str]) -> None:
        """Announce that these nodes will run, so that their inputs are kept until then."""
        for name in names:
            for ref in self._graph.nodes[name].refs:
                self._consumers[ref.node, ref.port] = self._consumers.get((ref.node, ref.port), 0) + 1

    def add(self, node: str, port: str, value: Any, stored: Stored, in_store: bool) -> None:
        """Take a value that a node has just computed."""
        place = (node, port)
        self.digests[place] = stored
        if not in_store:
            self._unstored.add(place)
        if not in_store or self._consumers.get(place):
            self._held[place] = value

    def hold(self, ref: Ref) -> None:
        """Read a value and keep it until the end of the run: it is one of the graph's outputs.

        Raises:
            LostValueError: it can't be read any more.
        """
        self._held[ref.node, ref.port] = self.fetch(ref)

    def release(self, node: str) -> None:
        """A node has run: its inputs have one consumer less."""
        for ref in self._graph.nodes[node].refs:
            place = (ref.node, ref.port)
            left = self._consumers[place] = self._consumers.get(place, 1) - 1
            if left <= 0 and place not in self._unstored:
                self._held.pop(place, None)

    def fetch(self, ref: Ref) -> Any:
        """The value at the source of an edge.

        Raises:
            LostValueError: it can't be read any more.
        """
        place = (ref.node, ref.port)
        if place in self._held:
            return self._held[place]
        try:
            value = self._inputs[ref.port].load() if ref.node == "inputs" else self._store.load(self.digests[place])
        except DamagedBlobError as error:
            raise LostValueError(ref, str(error)) from error
        if self._consumers.get(place):
            self._held[place] = value
        return value

    def fetch_for(self, port: Port, ref: Ref) -> Any:
        """The value at the source of an edge, converted to the type of the port that it enters."""
        value = self.fetch(ref)
        source = self.port_of(ref)
        assert isinstance(port.type, PortType)
        assert isinstance(source.type, PortType)
        convert = CONVERSIONS.get((source.type.name, port.type.name)) if source.type.name != port.type.name else None
        if convert is None:
            return value
        return [convert(v) for v in value] if isinstance(value, list) else convert(value)

    def find(self, digest: str) -> Any:
        """The value with this digest for people to look at (see `Store.peek`); None when it can't be read any more."""
        for place, stored in self.digests.items():
            if stored.digest == digest:
                if place in self._held:
                    return self._held[place]
                if place[0] == "inputs":
                    return self._inputs[place[1]].load()
                try:
                    return self._store.peek(stored)
                except DamagedBlobError:
                    return None
        return None

    def port_of(self, ref: Ref) -> Port:
        """The port at the source of an edge."""
        if ref.node == "inputs":
            declared = self._graph.inputs[ref.port]
            return Port(ref.port, declared.type, declared.is_list)
        return self._graph.nodes[ref.node].cls.outputs()[ref.port]
