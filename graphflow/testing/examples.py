"""Running a node's examples: equal inputs give equal bytes, and a batch gives what one by one gives."""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from graphflow.codecs import canonical_json, digest_json
from graphflow.node import BatchNode, Context, Node, Ports
from graphflow.testing.values import close, digests, wrong_value


def example_problems(cls: type[Node]) -> list[str]:
    """What is wrong with the results of ``cls.examples()``, a line for each finding; none if it has no examples."""
    give = getattr(cls, "examples", None)
    if give is None:
        return []
    examples = list(give())
    if not examples:
        return ["examples() gives none"]
    out = []
    for number, example in enumerate(examples, 1):
        if not (isinstance(example, tuple) and len(example) == 2 and isinstance(example[0], cls)):
            return [f"example {number} is {example!r}, expected a pair: a {cls.__name__} and its inputs"]
        out += [f"example {number}: {problem}" for problem in _example(*example)]
    if issubclass(cls, BatchNode) and cls.deterministic and not out:
        out += _batches(examples)
    return out


def _example(node: Node, inputs: Ports) -> list[str]:
    cls = type(node)
    if not isinstance(inputs, cls.In):
        return [f"inputs are {type(inputs).__name__}, expected {cls.In.__qualname__}"]
    if cls.model_validate(json.loads(canonical_json(node.model_dump(mode="json")))) != node:
        return ["its parameters don't come back from JSON as they were"]
    before = digests(cls.inputs(), inputs)
    first, wrong = _outputs(node, inputs, seed=0)
    if wrong:
        return wrong
    out = [f"run changed its input '{n}'" for n, d in digests(cls.inputs(), inputs).items() if d != before[n]]
    if cls.deterministic:
        second, wrong = _outputs(node, inputs, seed=1)
        out += wrong or [
            f"output '{name}' differs when it is run again: draw random numbers from ctx.rng(seed) only"
            for name in first
            if second[name] != first[name]
        ]
    return out


def _outputs(node: Node, inputs: Ports, seed: int) -> tuple[dict[str, str], list[str]]:
    """Digests of the outputs, and what is wrong with them."""
    _stir(seed)
    with tempfile.TemporaryDirectory() as folder:
        out = node.run(inputs, Context(out=Path(folder)))
        if not isinstance(out, type(node).Out):
            return {}, [f"run returned {type(out).__name__}, expected {type(node).Out.__qualname__}"]
        ports = type(node).outputs()
        wrong = {name: wrong_value(port, getattr(out, name), Path(folder)) for name, port in ports.items()}
        findings = [f"output '{name}' ({ports[name].describe()}): {text}" for name, text in wrong.items() if text]
        return ({}, findings) if findings else (digests(ports, out), [])


def _batches(examples: Sequence[tuple[Node, Ports]]) -> list[str]:
    """Whether `run_many` gives what `run` gives; examples with the same parameters make a batch."""
    batches: dict[str, list[tuple[Node, Ports]]] = {}
    for node, inputs in examples:
        batches.setdefault(digest_json(node.model_dump(mode="json")), []).append((node, inputs))
    out = []
    for batch in batches.values():
        node = batch[0][0]
        assert isinstance(node, BatchNode)
        out += batch_problems(node, [inputs for _, inputs in batch] * (2 if len(batch) == 1 else 1))
    return out


def batch_problems(node: BatchNode, xs: Sequence[Ports]) -> list[str]:
    """Where `run_many` gives something else than `run` does for each element, beyond rounding (see `values.close`)."""
    ports = type(node).outputs()
    with tempfile.TemporaryDirectory() as folder:
        ctx = Context(out=Path(folder))
        many, single = node.run_many(xs, ctx), [node.run(x, ctx) for x in xs]
        if len(many) != len(xs):
            return [f"run_many gives {len(many)} results for {len(xs)} inputs"]
        return [
            f"run_many gives other results for {len(xs)} inputs than run, one by one: '{name}' of input {number}"
            for number, (a, b) in enumerate(zip(many, single, strict=True), 1)
            for name, port in ports.items()
            if not close(port, getattr(a, name), getattr(b, name))
        ]


def _stir(seed: int) -> None:
    """Seed the global generators, which a deterministic node doesn't use."""
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)
