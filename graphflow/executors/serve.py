"""The process of a device: ``python -m graphflow.executors.serve``, started by `graphflow.executors.process`.

It computes what it is told through its standard input, and tells what comes of it through what was its standard output;
prints of nodes go to standard error. What code it loads the run's process says, which has loaded the same code.
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import queue
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from graphflow import registry
from graphflow.codecs import CODECS
from graphflow.errors import Mark, NodeError
from graphflow.executors.compute import Computer, Outcome
from graphflow.executors.job import Job, Surroundings
from graphflow.executors.returned import check_out, checked
from graphflow.executors.wire import (
    Message,
    Sink,
    messages,
    new_file,
    pack,
    pack_error,
    pack_event,
    unpack,
    unpack_ref,
)
from graphflow.graph import GraphNode
from graphflow.models.refs import ModelRef
from graphflow.placing import Placed, Placer
from graphflow.source import STANDARD
from graphflow.spec import NodeSpec
from graphflow.store import Store
from graphflow.threads import note_team

GRACE = 10.0  # seconds that a node has to stop when the run is gone
POISONED = ("CUDA error", "HIP error")  # what such an error leaves behind can't be used any more
_HERE = Mark("<process>")


class Server:
    """Computes for the run at the other end of two pipes.

    Args:
        told: the messages, of which the first was `hello`.
        tell: takes the answers.
        hello: device, dtype, memory, store, scratch folder, files with nodes, torch's threads; whether previews are
            wanted.
    """

    def __init__(self, told: Iterator[Message], tell: Sink, hello: Message) -> None:
        self._told, self._tell, self._hello = told, tell, hello
        self._inbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._stop, self._over = threading.Event(), threading.Event()
        self._busy = False
        self.store = Store(Path(hello["store"]))
        self._scratch = Path(hello["scratch"])
        self.around = Surroundings(
            self.store, hello["dtype"], lambda event: tell({"event": pack_event(event)}),
            self._preview if hello["watched"] else None, self._stop, self._stop, _scratch=self._scratch,
        )  # fmt: skip
        self.computer = Computer(hello["device"], self.around, hello["memory"])
        self._placer = Placer(self.store, f"{hello['device'].partition(':')[0]} {hello['dtype']}", {})

    def serve(self) -> None:
        """Do what comes, until the run has no more or is gone."""
        threading.Thread(target=self._listen, name="graphflow listen", daemon=True).start()
        self._prepare()
        while (message := self._inbox.get()) is not None:
            self._busy = True
            if not self._work(message):
                break
            self._busy = False
        self._over.set()

    def _prepare(self) -> None:
        """Load what the run's process has loaded, and set torch up as it is there."""
        importlib.import_module(STANDARD)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the run's process has warned already
            for path in self._hello["files"]:
                registry.load_file(Path(path))
        with suppress(ImportError):  # kinds and models of a pack may do without torch
            import torch

            note_team(self._hello["threads"])  # how many there are decides the order of sums
            if self.computer.device.startswith("cuda"):
                torch.cuda.set_device(self.computer.device)

    # --- messages ---------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Take messages while the other thread computes; when the run is gone, end."""
        with suppress(ValueError):  # the run was killed in the middle of a message
            for message in self._told:
                if message["do"] == "work":
                    self._inbox.put(message)
                elif message["do"] == "interrupt":
                    self.computer.interrupt()
                else:
                    self._stop.set()
                    if message["do"] == "end":
                        break
        self._stop.set()
        self._inbox.put(None)
        if not self._busy or not self._over.wait(GRACE):
            os._exit(0)

    def _work(self, message: Message) -> bool:
        """Compute, and tell what came of it; False when this process can compute no more."""
        outcomes: dict[int, Message] = {}
        jobs: dict[int, Job] = {}
        self.computer.evict(message["evict"])
        for number, told in enumerate(message["jobs"]):
            try:
                jobs[number] = self._job(told)
            except Exception as error:
                outcomes[number] = {"error": pack_error(error)}
        folder, poisoned = Path(message["folder"]), False
        numbers = {id(job): number for number, job in jobs.items()}
        coming = self._ref(message["coming"]) if message["coming"] is not None else None
        for outcome in self.computer.run(list(jobs.values()), coming):
            outcomes[numbers[id(outcome.job)]] = self._outcome(outcome, folder)
            poisoned |= str(outcome.error).startswith(POISONED)
        self._tell({
            "done": message["number"], "outcomes": [outcomes[n] for n in range(len(outcomes))],
            "released": self.computer.released, "halved": self.computer.halved,
            "checkpoints": sorted(self.around.checkpoints), "leaving": poisoned,
        })  # fmt: skip
        self.computer.released.clear()
        return not poisoned

    # --- jobs -------------------------------------------------------------------------------------------------------

    def _job(self, told: Message) -> Job:
        """The job that a message describes."""
        refs = {port: self._ref(ref) for port, ref in told["refs"].items()}
        importlib.import_module(told["module"])
        cls = registry.find(told["kind"])
        if cls is None:
            raise NodeError(told["name"], told["kind"], f"the process of {self.computer.device} does not know the kind")
        spec = NodeSpec(told["node"], told["kind"], _HERE, _HERE, {}, {}, {}, {})
        node = GraphNode(told["node"], cls, spec, {}, {}, refs)
        self._check_code(node, told["code"])
        values = {port: unpack(value, node.ports[port], self.store) for port, value in told["values"].items()}
        parameters = cls.model_validate_json(told["parameters"])
        placed = Placed(parameters, told["key"], {}, told["models"], {}, {}, None, told["code"])
        return Job(node, (), told["name"], placed, values=values)

    def _ref(self, told: Message) -> ModelRef:
        """A model's entry; its loader is registered by now."""
        if told["module"]:
            importlib.import_module(told["module"])
        return unpack_ref(told["ref"])

    def _check_code(self, node: GraphNode, expected: str) -> None:
        """A process that begins late must not compute with a source that was edited meanwhile."""
        if self._placer.code_of(node) != expected:
            kind, device = node.cls.kind, self.computer.device
            message = f"the source of {kind} has changed since the run began, and the process of {device} has loaded it"
            raise NodeError(node.name, kind, f"{message} anew: start the run again")

    def _outcome(self, outcome: Outcome, folder: Path) -> Message:
        """What came of a job. Values that its ports don't allow are told as an error: they may not be writable."""
        told: Message = {
            "seconds": outcome.seconds, "ago": time.perf_counter() - outcome.started, "batch": outcome.batch,
            "peak": outcome.peak,
        }  # fmt: skip
        error = outcome.error
        if error is None:
            try:
                return {**told, "out": self._pack_out(outcome.job, outcome.out, folder)}
            except Exception as failed:
                error = failed
        return {**told, "error": pack_error(error)}

    def _pack_out(self, job: Job, out: Any, folder: Path) -> Message:
        cls, told = job.node.cls, {}
        check_out(job, out)
        for name, port in cls.outputs().items():
            items = list(checked(job.name, cls.kind, port, getattr(out, name)))
            told[name] = pack(items if port.is_list else items[0], port, lambda suffix: new_file(folder, suffix))
        return told

    def _preview(self, name: str, latents: Any) -> None:
        path = new_file(self._scratch, CODECS["tensor"].suffix)
        CODECS["tensor"].write(latents, path)
        self._tell({"preview": name, "file": str(path)})


def _pipes() -> tuple[BinaryIO, BinaryIO]:
    """The two pipes, out of the way of whatever reads standard input or prints."""
    told, tell = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return told, tell


def main() -> None:
    """Serve; ends the process."""
    faulthandler.enable()
    incoming, outgoing = _pipes()
    told, tell = messages(incoming), Sink(outgoing)
    hello = next(told, None)
    if hello is None:
        return
    sys.path[:] = hello["path"]
    os.environ.pop("PYTHONPATH", None)
    if hello["python_path"] is not None:
        os.environ["PYTHONPATH"] = hello["python_path"]
    status = 1
    try:
        Server(told, tell, hello).serve()
        status = 0
    except Exception as error:
        tell({"broken": pack_error(error)})
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # at once: threads that load a model can't be interrupted


if __name__ == "__main__":
    main()
