"""Threads that compute while the run's own thread looks up, fetches, checks and stores."""

from __future__ import annotations

import collections
import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass

from graphflow.executors.compute import Computer, Outcome
from graphflow.executors.job import Job
from graphflow.models.refs import ModelRef
from graphflow.threads import one_thread

Answer = Callable[["Done | BaseException"], object]
HOST = "host"  # the worker of nodes without models


@dataclass
class Work:
    """What a device is to do: first move models off, then compute.

    Attributes:
        device: its name; that of the workers of the CPU is ``host``.
        jobs: may be none.
        evict: keys of models.
        coming: model that the next work will need.
    """

    device: str
    jobs: Sequence[Job]
    evict: tuple[str, ...] = ()
    coming: ModelRef | None = None


@dataclass
class Done:
    """Work and what came of it."""

    work: Work
    outcomes: list[Outcome]


class Inbox:
    """What has been done, from all workers. It stays until it is removed: an interruption loses nothing."""

    def __init__(self) -> None:
        self._items: collections.deque[Done | BaseException] = collections.deque()
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()

    def put(self, item: Done | BaseException) -> None:
        """Something is done, or a worker has failed."""
        self._items.append(item)
        self._news.put(None)

    def wait(self, timeout: float | None) -> None:
        """Wait until something is put, so many seconds at most; it may have been taken before."""
        with suppress(queue.Empty):
            self._news.get(timeout=timeout)

    def first(self) -> Done | BaseException | None:
        """The oldest item."""
        return self._items[0] if self._items else None

    def remove(self) -> None:
        """The oldest item has been seen to."""
        self._items.popleft()


class Worker:
    """One thread that takes work in order. With `lock` held, somebody else may use the computer meanwhile."""

    def __init__(self, computer: Computer, done: Inbox, name: str) -> None:
        self.computer, self._done = computer, done
        self.lock = threading.Lock()
        self.waiting = 0  # pieces of work that are not done; the run's thread counts
        self._queue: queue.SimpleQueue[tuple[Work, Answer] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._name = name
        self._submitted = self._answered = 0

    @property
    def busy(self) -> bool:
        """Whether a `Done` is still to come."""
        return self._submitted > self._answered

    def submit(self, work: Work) -> None:
        """Take work; `Done` comes into the queue."""
        self.waiting += 1
        self._submitted += 1
        self._hand_over(work, self._answer)

    def here(self, work: Work) -> Done:
        """Do work, and wait for it: in the calling thread if it needs no models, else between two other pieces.

        Models are computed with in the device's thread alone; see `graphflow.threads`.
        """
        if self._name == HOST:
            with self.lock, one_thread():
                return self._do(work)
        began, answer = self._thread is None, queue.SimpleQueue[Done | BaseException]()
        self._hand_over(work, answer.put)
        try:
            done = answer.get()
        finally:
            if began:
                self.close()
        if isinstance(done, BaseException):
            raise done
        return done

    def interrupt(self) -> None:
        """End what the thread computes, wherever it is."""
        self.computer.interrupt()

    def close(self) -> None:
        """End the thread, once it has done what it is at."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _hand_over(self, work: Work, answer: Answer) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name=f"graphflow {self._name}", daemon=True)
            self._thread.start()
        self._queue.put((work, answer))

    def _answer(self, done: Done | BaseException) -> None:
        self._done.put(done)
        self._answered += 1

    def _serve(self) -> None:
        while (told := self._queue.get()) is not None:
            work, answer = told
            try:
                with self.lock, one_thread() if self._name == HOST else nullcontext():
                    done: Done | BaseException = self._do(work)
            except BaseException as error:  # the run's thread raises it
                done = error
            answer(done)
            del told, work, answer, done  # what a node returned is not held while the next one waits

    def _do(self, work: Work) -> Done:
        self.computer.evict(work.evict)
        return Done(work, self.computer.run(work.jobs, work.coming))
