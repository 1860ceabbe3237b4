"""Checking what a node returned against what its ports declare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from graphflow.codecs import CODECS
from graphflow.errors import ContractError
from graphflow.executors.job import Job
from graphflow.ports import Port, PortType, plain_problem


def check_out(job: Job, out: Any) -> None:
    """Check that a node returned an instance of its `Out`.

    Raises:
        ContractError: it is something else.
    """
    cls = job.node.cls
    if not isinstance(out, cls.Out):
        message = f"it returned {type(out).__name__}, expected {cls.Out.__qualname__}"
        raise ContractError(job.name, cls.kind, message)


def checked(node: str, kind: str, port: Port, value: Any) -> Iterator[Any]:
    """The value, or the elements of a list one after the other, each once it has passed the check.

    Raises:
        ContractError: one is not what the port allows.
    """
    assert isinstance(port.type, PortType)
    codec = CODECS[port.type.codec]
    if port.is_list and (not isinstance(value, Sequence) or isinstance(value, str)):
        raise ContractError(node, kind, f"output '{port.name}' is {type(value).__name__}, expected a list")
    for item in value if port.is_list else (value,):
        if problem := codec.check(item) or plain_problem(port.type, item):
            raise ContractError(node, kind, f"output '{port.name}' ({port.describe()}): {problem}")
        yield item
