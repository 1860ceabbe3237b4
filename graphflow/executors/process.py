"""A device in a process of its own: Python's lock would make threads on several GPUs wait for each other.

`ProcessWorker` is the run's end, `graphflow.executors.serve` the other one. The other process computes and holds the
models. This one decides, looks up, and keeps the results.
"""

from __future__ import annotations

import itertools
import queue
import shutil
import tempfile
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from graphflow import registry
from graphflow.codecs import CODECS
from graphflow.errors import Cancelled, NodeError
from graphflow.executors.child import Child
from graphflow.executors.compute import Computer, Outcome, Pools
from graphflow.executors.job import Job, Surroundings
from graphflow.executors.parcel import keys_of, pack_job, pack_model, unpack_outcome
from graphflow.executors.wire import Message, unpack_error, unpack_event
from graphflow.executors.worker import Done, Inbox, Work, Worker
from graphflow.models.weights import model_key
from graphflow.threads import team

POLL = 0.05  # seconds between two looks whether the run has been stopped
Answer = Callable[[Done | BaseException], None]


@dataclass
class _Sent:
    """Work that the other process has.

    Attributes:
        folder: for files on their way.
        answer: takes what came of it.
        whole: values are written although the store has them.
        told: the message.
        stuck: outcomes of jobs that can't travel, by their place.
    """

    work: Work
    folder: Path
    answer: Answer
    whole: bool
    told: Message
    stuck: dict[int, Outcome] = field(default_factory=dict)


class ProcessWorker:
    """Takes work like a `Worker`, and stands for the `Computer` of one, too. The process begins with the first work.

    When the process dies, what it was at has failed; the work behind that goes to a new process.
    """

    def __init__(
        self, device: str, around: Surroundings, memory: int | None, done: Inbox
    ) -> None:  # fmt: skip
        self.device, self.around, self.memory, self._done = device, around, memory, done
        self.computer = self
        self.waiting = 0  # pieces of work that are not done; the run's thread counts
        self.released: list[str] = []  # as of a `Computer`, and so is `halved`
        self.halved: dict[str, int] = {}
        self._lock = threading.RLock()
        self._numbers = itertools.count()
        self._child: Child | None = None
        self._sent: dict[int, _Sent] = {}  # in this order; gone when it is answered
        self._there: set[str] = set()  # models that the process may have loaded
        self._leaving = self._closing = False
        self._broken: BaseException | None = None  # why no process can be started
        self._trouble: BaseException | None = None  # what a listener of the run raised

    # --- what the engine asks for -----------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a `Done` is still to come."""
        return bool(self._sent)

    def submit(self, work: Work) -> None:
        """Take work; `Done` comes into the queue."""
        self.waiting += 1
        self._send(work, self._done.put)

    def here(self, work: Work) -> Done:
        """Have work done, and wait for it."""
        answer: queue.SimpleQueue[Done | BaseException] = queue.SimpleQueue()
        self._send(work, answer.put)
        done = answer.get()
        if isinstance(done, BaseException):
            raise done
        return done

    def interrupt(self) -> None:
        """End what the process computes, wherever it is."""
        with self._lock:
            if self._child is not None:
                self._child.tell({"do": "interrupt"})

    def left_over(self, wanted: Collection[str]) -> list[str]:
        """The models that an earlier run has left there: none, since a process ends with its run."""
        return []

    def close(self) -> None:
        """End the process."""
        with self._lock:
            child, self._child, self._closing = self._child, None, True
        if child is not None:
            child.end()

    # --- to the process ---------------------------------------------------------------------------------------------

    def _send(self, work: Work, answer: Answer, whole: bool = False) -> None:
        """Send work; what can't be sent is answered like what has failed."""
        try:
            sent = self._packed(work, answer, whole)
        except Exception as error:
            answer(Done(work, [Outcome(job, error=error) for job in work.jobs]))
            return
        if sent.told["jobs"] or work.evict:
            self._hand_over(sent)
        else:
            answer(Done(work, list(sent.stuck.values())))

    def _packed(self, work: Work, answer: Answer, whole: bool) -> _Sent:
        folder = Path(tempfile.mkdtemp(dir=self.around.scratch()))
        told: list[Message] = []
        sent = _Sent(work, folder, answer, whole, {
            "do": "work", "number": next(self._numbers), "evict": list(work.evict), "folder": str(folder), "jobs": told,
            "coming": pack_model(work.coming) if work.coming is not None else None,
        })  # fmt: skip
        keys = {model_key(work.coming)} if work.coming is not None else set()
        for place, job in enumerate(work.jobs):
            try:
                told.append(pack_job(job, folder, self.around, whole))
                keys |= keys_of(job)
            except Exception as error:
                sent.stuck[place] = Outcome(job, error=error)
        with self._lock:
            self._there |= keys
        return sent

    def _hand_over(self, sent: _Sent) -> None:
        number = sent.told["number"]
        with self._lock:
            self._sent[number] = sent
            try:
                self._tell(sent.told)
            except BaseException as error:
                self._lose(sent, {job.name: error for job in sent.work.jobs})
                del self._sent[number]
                if not isinstance(error, Exception):
                    raise

    def _tell(self, message: Message) -> None:
        """Tell the process; begin one if there is none."""
        if self._broken is not None:
            raise self._broken
        if self._child is None:
            self._child = Child(self._hello(), self.device, self._receive, self._ended)
            threading.Thread(target=self._watch, args=(self._child,), name="graphflow watch", daemon=True).start()
        self._child.tell(message)

    def _hello(self) -> Message:
        return {
            "device": self.device, "dtype": self.around.dtype, "memory": self.memory,
            "store": str(self.around.store.folder), "scratch": tempfile.mkdtemp(dir=self.around.scratch()),
            "files": [str(path) for path in registry.loaded_files()],
            "threads": team(),
            "watched": self.around.on_preview is not None,
        }  # fmt: skip

    def _watch(self, child: Child) -> None:
        """Pass on that the run has been stopped."""
        while not child.over.wait(POLL):
            if self.around.cancelled.is_set() or self.around.stopping.is_set():
                child.tell({"do": "stop"})
                return

    # --- from the process -------------------------------------------------------------------------------------------

    def _receive(self, message: Message) -> None:
        try:
            if "event" in message:
                self.around.emit(unpack_event(message["event"]))
            elif "preview" in message:
                self._preview(message)
        except Exception as error:  # of whoever listens: the next job fails of it, this thread goes on
            self._trouble = self._trouble or error
        if "broken" in message:
            self._broken = unpack_error(message["broken"])
        elif "done" in message:
            self._leaving = message["leaving"]
            self._answer(self._sent[message["done"]], message)
            with self._lock:
                del self._sent[message["done"]]

    def _preview(self, message: Message) -> None:
        path = Path(message["file"])
        latents = CODECS["tensor"].read(path)
        path.unlink(missing_ok=True)
        if self.around.on_preview is not None:
            self.around.on_preview(message["preview"], latents)

    def _answer(self, sent: _Sent, message: Message) -> None:
        lost = [o for o in message["outcomes"] if o.get("error", {}).get("type") == "DamagedBlobError"]
        if lost and not sent.whole:
            self._send(sent.work, sent.answer, whole=True)  # what the store has lost is at hand here
            return
        self.released += message["released"]
        self.halved = {**self.halved, **message["halved"]}
        self.around.checkpoints.update(message["checkpoints"])
        told = iter(message["outcomes"])
        outcomes = [
            sent.stuck[place] if place in sent.stuck else unpack_outcome(job, next(told))
            for place, job in enumerate(sent.work.jobs)
        ]
        if self._trouble is not None:
            outcomes, self._trouble = [Outcome(o.job, error=self._trouble) for o in outcomes], None
        shutil.rmtree(sent.folder, ignore_errors=True)  # what is mapped into memory stays there
        sent.answer(Done(sent.work, outcomes))

    def _ended(self, how: str) -> None:
        """The process is gone: what it was at has failed, the rest goes to another one."""
        with self._lock:
            self._child = None
            self.released += self._there
            self._there.clear()
            left = list(self._sent.items())
            at_fault = len(left) if self._broken is not None or self._closing else 0 if self._leaving else 1
            self._leaving = False
            for number, sent in left[:at_fault]:
                self._lose(sent, {job.name: self._loss(job, how) for job in sent.work.jobs})
                del self._sent[number]
            for _, sent in left[at_fault:]:
                self._hand_over(sent)

    def _lose(self, sent: _Sent, errors: Mapping[str, BaseException]) -> None:
        """Answer work that nobody will do."""
        shutil.rmtree(sent.folder, ignore_errors=True)
        sent.answer(Done(sent.work, [Outcome(job, error=errors[job.name]) for job in sent.work.jobs]))

    def _loss(self, job: Job, how: str) -> BaseException:
        if self._closing:
            return Cancelled()
        what = f"did not start: {self._broken}" if self._broken is not None else how
        return NodeError(job.name, job.node.cls.kind, f"the process of {self.device} {what}")


AnyWorker = Worker | ProcessWorker


def workers_of(
    memory: Mapping[str, int | None], around: Surroundings, pools: Pools | None,
    done: Inbox,
) -> dict[str, AnyWorker]:  # fmt: skip
    """Who computes on each device: a thread on a single one, a process for each of several.

    Args:
        memory: device → budget in bytes.
        around: what the nodes share.
        pools: for a single device: models that outlive the run.
        done: takes what has been done.
    """
    if len(memory) > 1:
        return {device: ProcessWorker(device, around, limit, done) for device, limit in memory.items()}
    return {device: Worker(Computer(device, around, limit, pools), done, device) for device, limit in memory.items()}
