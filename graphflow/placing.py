"""Where an instance stands: its parameters, its key, and the result that the store has under it.

Plan and run place instances with this code, so that a plan can't promise what a run doesn't do. It is the engine's
hottest path: what can't change from run to run is computed once a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from pydantic import ValidationError

from graphflow.codecs import digest_json
from graphflow.errors import Diagnostic, InvalidError
from graphflow.graph import GraphNode, Index, Place, Source
from graphflow.key import Parts, differences, key_of, static_parts
from graphflow.known import Known
from graphflow.models.files import config_of, fingerprint, missing
from graphflow.models.refs import ModelRef, loaders
from graphflow.node import Node
from graphflow.options import CodePolicy
from graphflow.source import code_digest
from graphflow.spec import Ref
from graphflow.store import Result, Store

Fetch = Callable[[Source], Any]
NO_MODEL = "none"
CANDIDATES = 20  # earlier results that are compared to find what changed


@dataclass(frozen=True)
class Placed:
    """An instance whose inputs are known.

    Attributes:
        node: with all parameters.
        key: its key.
        inputs: port → content digest.
        models: model port → fingerprint.
        static: the other parts of the key.
        shown: all parameters, as JSON values.
        result: what the store has under the key, if it may be used.
        code: digest of the kind's source.
    """

    node: Node
    key: str
    inputs: Mapping[str, str]
    models: Mapping[str, str]
    static: Parts
    shown: Mapping[str, Any]
    result: Result | None
    code: str = ""

    @property
    def parts(self) -> Parts:
        """Everything that decides the result."""
        return {**self.static, "inputs": dict(self.inputs), "models": dict(self.models)}


class Static(NamedTuple):
    """A node with all parameters, the parts of its keys that follow, their digest, the parameters, what it decided."""

    node: Node
    parts: Parts
    digest: str
    shown: Mapping[str, Any]
    decision: str = ""


class Wiring:
    """What is the same for every instance of a node in every run."""

    def __init__(self, node: GraphNode, numerics: str) -> None:
        self.node = node
        self.fed_ports = [name for name in node.edges if name in node.ports]
        self.fed_parameters = [name for name in node.edges if name not in node.ports]
        # An optional model that is left out counts too: the node computes again when it has one.
        self.model_ports = [n for n, p in node.ports.items() if p.role is not None and n not in node.edges]
        self._numerics = numerics
        simple = all(isinstance(e, Ref) for e in node.edges.values()) and not node.axes and not node.each
        # Ports of a node without maps around it, with the places that feed them; None where more is to be asked.
        self.places: list[tuple[str, Place]] | None = None
        if simple and not self.fed_parameters:
            refs = [(name, node.edges[name]) for name in self.fed_ports]
            self.places = [(name, Place(r.node, r.port)) for name, r in refs if isinstance(r, Ref)]

    @cached_property
    def outputs(self) -> list[tuple[str, str]]:
        """Name and type of each output."""
        return [(port.name, port.describe()) for port in self.node.cls.outputs().values()]

    @cached_property
    def constant(self) -> Static:
        """The static parts of the key, where no edge feeds a parameter."""
        return self.with_parameters({})

    def with_parameters(self, fed: Mapping[str, Any]) -> Static:
        """The same with the values of parameters that edges feed.

        Raises:
            InvalidError: a value is not allowed there.
        """
        instance, decision = _instance(self.node, fed), ""
        if type(instance).decide is not Node.decide:
            configs = {port: config_of(ref) for port, ref in self.node.models.items()}
            instance, decision = instance.decide(configs, *self._numerics.split(maxsplit=1))
        parts = static_parts(self.node.cls, instance.key_parameters(), self._numerics)
        return Static(instance, parts, digest_json(parts), instance.model_dump(mode="json"), decision)


class Placer:
    """Finds keys and stored results of instances.

    Args:
        store: where results are looked up.
        numerics: device kind and dtype of the run, such as ``cpu float32``.
        wirings: what an earlier plan of the same graph has left; filled here.
        refresh: nodes whose stored results don't count.
        code: what becomes of a result that other source code of the same version has computed: it is used with a
            warning, or not at all.

    Attributes:
        changed: kinds whose source has changed since results of theirs were computed, that are used.
        decisions: nodes that leave choices to the plan, with what they decided; see `Node.decide`.
    """

    def __init__(
        self,
        store: Store,
        numerics: str,
        wirings: dict[str, Wiring],
        refresh: frozenset[str] = frozenset(),
        code: CodePolicy = "warn",
    ) -> None:
        self.store, self.numerics, self.refresh, self.policy = store, numerics, refresh, code
        self.changed: dict[str, str] = {}
        self.decisions: dict[str, str] = {}
        self._wirings = wirings
        self._fingerprints: dict[int, str] = {}
        self._absent: dict[int, bool] = {}
        self._codes: dict[tuple[str, ...], str] = {}

    def wiring(self, node: GraphNode) -> Wiring:
        """The node's wiring."""
        found = self._wirings.get(node.name)
        if found is None:
            found = self._wirings[node.name] = Wiring(node, self.numerics)
        return found

    def place(self, node: GraphNode, index: Index, known: Known, fetch: Fetch) -> Placed:
        """Key and stored result of an instance.

        Args:
            node: the node.
            index: the instance.
            known: the digests of all that it is fed.
            fetch: gives the value of a source that feeds a parameter.

        Raises:
            UnknownError: something that it is fed is not known yet.
            InvalidError: a value fed to a parameter is not allowed there.
        """
        wiring = self.wiring(node)
        if wiring.places is not None and not known.graph.axes:
            digests = known.digests
            inputs = {}
            for port, place in wiring.places:
                stored = digests.get(place)
                inputs[port] = (stored or known.stored(place)).digest
        else:
            inputs = {port: known.stored(known.source(node, port, index)).digest for port in wiring.fed_ports}
        if wiring.fed_parameters:
            sources = {name: known.source(node, name, index) for name in wiring.fed_parameters}
            for source in sources.values():
                known.stored(source)
            static = wiring.with_parameters({name: fetch(s) for name, s in sources.items()})
        else:
            static = wiring.constant
        self._note(node, static)
        models = {port: self.fingerprint_at(node, port) for port in wiring.model_ports}
        key = key_of(static.digest, inputs, models)
        code = self.code_of(node)
        result = self.store.result(key) if node.cls.deterministic and node.name not in self.refresh else None
        if result is not None and result.code != code and not self.usable(result, node):
            result = None
        return Placed(static.node, key, inputs, models, static.parts, static.shown, result, code)

    def usable(self, result: Result, node: GraphNode) -> bool:
        """Whether a result that other code has computed may be used."""
        if self.policy == "warn":
            version = node.cls.version
            self.changed[node.cls.kind] = (
                f"the source of {node.cls.kind} has changed since results that are used were computed, its version "
                f"has not ({version}): raise it, or compute again with --code strict"
            )
        return self.policy == "warn"

    def code_of(self, node: GraphNode) -> str:
        """Digest of the source of a node's kind and of the loaders of its models."""
        used = (node.cls.kind, *(ref.loader for ref in node.models.values()))
        if used not in self._codes:
            known = loaders() if node.models else {}
            things = [node.cls, *(known[name].load for name in used[1:])]
            digests = [code_digest(thing, self.store.file_digest) for thing in things]
            self._codes[used] = digests[0] if len(digests) == 1 else digest_json(digests)
        return self._codes[used]

    def check_parameters(self, node: GraphNode, index: Index, known: Known, fetch: Fetch) -> None:
        """Check the parameters that edges feed, before the rest of the instance is known; raises as `place` does."""
        wiring = self.wiring(node)
        if wiring.fed_parameters:
            sources = {name: known.source(node, name, index) for name in wiring.fed_parameters}
            for source in sources.values():
                known.stored(source)
            self._note(node, wiring.with_parameters({name: fetch(s) for name, s in sources.items()}))
        elif node.cls.decide is not Node.decide:
            self._note(node, wiring.constant)

    def _note(self, node: GraphNode, static: Static) -> None:
        if static.decision:
            self.decisions[node.name] = static.decision

    def fingerprint_at(self, node: GraphNode, port: str) -> str:
        """The fingerprint of the preset's model at a port; ``none`` for an optional one that is not there."""
        ref = node.models.get(port)
        return NO_MODEL if ref is None or self.absent(node, port) else self.fingerprint_of(ref)

    def absent(self, node: GraphNode, port: str) -> bool:
        """Whether an optional model is not on this machine: the node does without it."""
        if not node.ports[port].optional:
            return False
        ref = node.models[port]
        if id(ref) not in self._absent:
            self._absent[id(ref)] = bool(missing({ref.name: ref}))
        return self._absent[id(ref)]

    def fingerprint_of(self, ref: ModelRef) -> str:
        """The fingerprint of a model, computed once."""
        if id(ref) not in self._fingerprints:
            self._fingerprints[id(ref)] = fingerprint(ref, self.store.file_digest)
        return self._fingerprints[id(ref)]

    def reason(self, name: str, placed: Placed) -> str:
        """Why there is no result: what differs from the nearest earlier computation."""
        parts = placed.parts
        nearest = self.nearest(name, parts)
        if nearest is None:
            return "no earlier result"
        found = differences(nearest.parts, parts)
        if not found and nearest.code != placed.code:
            found = [f"source of {parts['kind']}"]
        return ", ".join(found) + (" changed" if found else "")

    def nearest(self, name: str, parts: Parts) -> Result | None:
        """The earlier result of this kind that differs in the fewest parts; a node of this name wins a tie."""
        earlier = self.store.earlier(parts["kind"], name, CANDIDATES)
        return min(earlier, key=lambda r: (len(differences(r.parts, parts)), r.node != name), default=None)


def _instance(node: GraphNode, fed: Mapping[str, Any]) -> Node:
    try:
        made = node.cls(**node.parameters, **fed)
    except ValidationError as error:
        problems = []
        for found in error.errors():
            name = str(found["loc"][0]) if found["loc"] else ""
            mark = node.spec.input_marks.get(name, node.spec.mark)
            edge = node.edges.get(name)
            message = f"'{node.name}.{name}': {found['msg'].lower()}, found {found['input']!r} from {edge}"
            problems.append(Diagnostic(mark, "GF108", message))
        raise InvalidError(problems) from error
    if message := made.missing_port(node.edges):
        raise InvalidError([Diagnostic(node.spec.mark, "GF106", f"'{node.name}': {message}")])
    return made
