"""Jobs and outcomes on their way to and from the process of a device."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from graphflow.errors import NodeError
from graphflow.executors.compute import Outcome, trained_ports
from graphflow.executors.job import Job, Surroundings
from graphflow.executors.wire import Message, new_file, pack, pack_ref, unpack, unpack_error
from graphflow.models.refs import ModelRef, loaders
from graphflow.models.trained import ref_of_trained
from graphflow.models.weights import model_key

MAIN = "__main__"


def pack_job(job: Job, folder: Path, around: Surroundings, whole: bool) -> Message:
    """A job as its process is told.

    Args:
        job: the job.
        folder: for files of values that the store does not have.
        around: knows the store.
        whole: write what the store has, too.

    Raises:
        NodeError: it can't travel, and why.
    """
    cls, placed = job.node.cls, job.placed
    refs = {port: pack_model(ref) for port, ref in job.node.models.items()}
    if MAIN in (cls.__module__, *(ref["module"] for ref in refs.values())):
        why = "the main program defines it, or a loader of its models, which no other process can import"
        raise NodeError(job.name, cls.kind, f"{why}: move that into a module, or a file named with --nodes")
    parameters = placed.node.model_dump_json()
    if cls.model_validate_json(parameters) != placed.node:
        raise _stuck(job, "its parameters", f"as JSON they are {parameters}, which reads as something else")
    return {
        "name": job.name, "node": job.node.name, "kind": cls.kind, "module": cls.__module__, "key": placed.key,
        "code": placed.code, "parameters": parameters, "models": dict(placed.models), "refs": refs,
        "values": {port: _pack_value(job, port, folder, around, whole) for port in job.values},
    }  # fmt: skip


def pack_model(ref: ModelRef) -> Message:
    """A model's entry, with the module that registers its loader."""
    known = loaders().get(ref.loader)
    return {"ref": pack_ref(ref), "module": known.load.__module__ if known is not None else ""}


def keys_of(job: Job) -> set[str]:
    """The names that a pool has for the models of a job."""
    keys = {model_key(ref) for ref in job.node.models.values()}
    for port in trained_ports(job):
        assert port.role is not None
        keys.add(model_key(ref_of_trained(job.values[port.name], port.role)))
    return keys


def _pack_value(job: Job, port: str, folder: Path, around: Surroundings, whole: bool) -> Message:
    stored = None if whole else job.stored(port)
    if stored is not None and not (stored.kept and around.store.has(stored)):
        stored = None
    try:
        return pack(job.values[port], job.node.ports[port], partial(new_file, folder), stored)
    except Exception as error:
        raise _stuck(job, f"its input '{port}'", str(error)) from error


def _stuck(job: Job, what: str, why: str) -> NodeError:
    return NodeError(job.name, job.node.cls.kind, f"{what} can't go to the process of a device: {why}")


def unpack_outcome(job: Job, told: Message) -> Outcome:
    """What came of a job, its values read from their files."""
    if "seconds" not in told:  # it did not begin
        return Outcome(job, error=unpack_error(told["error"]))
    started = time.perf_counter() - told["ago"]  # each process may count its seconds from another moment
    outcome = Outcome(job, None, None, told["seconds"], started, told["batch"], told["peak"])
    try:
        if "error" in told:
            outcome.error = unpack_error(told["error"])
        else:
            ports = job.node.cls.outputs()
            outcome.out = job.node.cls.Out(**{name: unpack(v, ports[name]) for name, v in told["out"].items()})
    except Exception as error:
        outcome.error = error
    return outcome
