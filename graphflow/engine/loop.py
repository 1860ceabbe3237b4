"""The loop of a run: what each instance waits for, who computes it, and what becomes of it.

One thread, the run's own, looks up, fetches, checks and stores; a thread for each device computes. What comes next is
the scheduler's choice (`graphflow.scheduler`), which also drives simulated devices. Where nothing can go on beside it,
the run's own thread computes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

from graphflow.engine.instances import Instances, Pending
from graphflow.engine.keep import Keeper
from graphflow.engine.lifetimes import Lifetimes
from graphflow.engine.settle import Settler
from graphflow.engine.values import Values
from graphflow.engine.workload import AHEAD, Workload
from graphflow.errors import Cancelled, GraphflowError, StoreError
from graphflow.executors.compute import Outcome
from graphflow.executors.job import Job
from graphflow.executors.process import AnyWorker
from graphflow.executors.worker import HOST, Inbox, Work
from graphflow.garbage import resumed
from graphflow.graph import Graph, Place
from graphflow.models.refs import ModelRef
from graphflow.plan import Plan
from graphflow.scheduler import Scheduler, Step
from graphflow.store import Lease
from graphflow.threads import one_thread

QUICK = 0.002  # seconds under which the run's own thread computes rather than to hand over
GRACE = 2.0  # seconds that a node has to notice that the run was stopped
LOOK = 0.5  # seconds between two looks whether the run was stopped from another thread
POLL = 0.1  # seconds between two looks whether another process has finished what both need


@dataclass
class Engine:
    """Settles all instances of a run.

    Args:
        workers: device → its thread, or process; ``host`` for nodes without models.
        collects: whether Python's garbage collector may run while a node computes.
    """

    graph: Graph
    plan: Plan
    settler: Settler
    keeper: Keeper
    values: Values
    lifetimes: Lifetimes
    workload: Workload
    workers: dict[str, AnyWorker]
    done: Inbox
    cancelled: threading.Event
    collects: bool
    _keys: dict[str, str] = field(default_factory=dict)  # of what is waiting or being computed → the instance
    _ready: set[str] = field(default_factory=set)
    _parked: dict[str, tuple[Job, str]] = field(default_factory=dict)  # computed by another process
    _leased: dict[str, Job] = field(default_factory=dict)
    _asked: set[str] = field(default_factory=set)  # keys whose lease may be ours
    _in_flight: int = 0
    _unkept: list[Outcome] = field(default_factory=list)  # computed, but not kept yet

    def __post_init__(self) -> None:
        self.known = self.plan.known
        self.instances = Instances(
            self.graph, self.plan, self.settler, self.values, self.lifetimes, self.workload
        )  # fmt: skip

    @property
    def scheduler(self) -> Scheduler:
        """Decides what comes next; made when there is something to run."""
        return self.workload.scheduler

    def run(self, names: Iterable[str]) -> None:
        """Settle all instances of these nodes, which stand in topological order.

        Raises:
            GraphflowError: an instance failed, and the run does not go on without it.
            Cancelled: the run was stopped. What has finished by then is kept.
        """
        for name in names:
            self.instances.expand(self.graph.nodes[name])
        self._find_models()
        try:
            while not self.workload.idle:
                if self.cancelled.is_set():
                    raise Cancelled
                self._resolve()
                if self._start():
                    continue
                if self._in_flight:
                    self._wait(POLL if self._parked else LOOK)
                elif self._parked:
                    self.cancelled.wait(POLL)
                self._look_at_parked()
        except BaseException as error:
            self._drain(interrupted=isinstance(error, KeyboardInterrupt | Cancelled))
            raise
        self.instances.skip_rest()

    def _find_models(self) -> None:
        """What an earlier run of the session has left on a device need not be loaded."""
        if self.workload.idle:
            return
        self.workload.flush()
        for device, worker in self.workers.items():
            if device != HOST and (found := worker.computer.left_over(self.workload.refs)):
                self.scheduler.place(device, found)

    # --- what may run -----------------------------------------------------------------------------------------------

    def _resolve(self) -> None:
        """Look up whatever has its inputs by now: much of it need not run."""
        while True:
            self.workload.flush()
            names = self.scheduler.ready()
            if not names:
                return
            for name in names:
                pending = self.instances.pending[name]
                try:
                    self._resolve_one(pending)
                except GraphflowError as error:
                    self._failed(pending, error)

    def _resolve_one(self, pending: Pending) -> None:
        node, index, name = pending.node, pending.index, pending.name
        lacking = next((place for place in pending.places if place not in self.known.digests), None)
        if lacking is not None:
            self.settler.skip(node, index, lacking)
            self._over(pending)
            self.instances.cut_off(node, index)
            return
        pending.placed = self.settler.look_up(node, index, name)
        if pending.placed is None:
            self._settled(pending)
            return
        if node.cls.deterministic:
            first = self._keys.setdefault(pending.placed.key, name)
            if first != name:
                self.scheduler.wait(name, first)
                return
        self._ready.add(name)
        self.workload.ready(node, index)

    # --- running ----------------------------------------------------------------------------------------------------

    def _start(self) -> bool:
        """Give work to whoever is free; returns whether something was computed meanwhile."""
        for device, worker in self.workers.items():
            while worker.waiting < AHEAD and self._ready:
                step = self.scheduler.next(device)
                if step is None:
                    break
                self._ready.difference_update(step.tasks)
                work = self._prepare(step)
                if work is None:
                    continue
                if self._alone(work):
                    with resumed(self.collects):
                        done = worker.here(work)
                    self._unkept += done.outcomes
                    self._take(device, worker)
                    return True
                self._in_flight += 1
                work.coming = self._next_model(device)
                worker.submit(work)
        return False

    def _alone(self, work: Work) -> bool:
        """Whether the run's own thread had better compute: nothing goes on beside it, or it is over in no time.

        Models are computed with in their device's thread alone; see `graphflow.threads`.
        """
        if work.device != HOST:
            return False
        return (self._in_flight == 0 and not self._ready and not self._parked) or (
            self.workload.seconds(work.jobs) < QUICK
        )

    def _next_model(self, device: str) -> ModelRef | None:
        """The model to load while the device computes."""
        key = self.scheduler.prefetch(device)
        return self.workload.refs.get(key) if key is not None else None

    def _prepare(self, step: Step) -> Work | None:
        """Fetch what the tasks of a step are fed; some of them may turn out to need no computing."""
        jobs = []
        for name in step.tasks:
            pending = self.instances.pending[name]
            assert pending.placed is not None
            job = Job(pending.node, pending.index, name, pending.placed, pending.reason)
            try:
                if self._may_compute(job, step.device):
                    self.settler.recover(partial(self.keeper.fetch, job))
                    self.workload.fetched(job)
                    jobs.append(job)
            except GraphflowError as error:
                self._release(job)
                self._failed(pending, error)
        evict = self.workload.pool_keys(step.evict)
        if not jobs and not evict:
            return None
        for job in jobs:
            self.settler.begin(job, step.device, len(jobs))
        return Work(step.device, jobs, evict)

    def _may_compute(self, job: Job, device: str) -> bool:
        """Ask for the lease; False when another process has the result, or is at it."""
        asked = self._ask(job)
        if isinstance(asked, str):
            self.settler.waits(job.name, asked)
            self._parked[job.name] = job, device
            self.scheduler.park(job.name)
            return False
        job.lease = asked
        self._leased[job.name] = job
        if asked is not None and asked.result is not None:
            pending = self.instances.pending[job.name]
            self.settler.found(job.node, job.index, job.name, replace(job.placed, result=asked.result))
            self._release(job)
            self._settled(pending)
            return False
        return True

    def _ask(self, job: Job) -> Lease | str | None:
        """Ask for the lease. An interruption may come between getting it and noting it: the key is noted before."""
        self._asked.add(job.placed.key)
        asked = self.settler.ask(job)
        if isinstance(asked, str):
            self._asked.discard(job.placed.key)
        return asked

    def _look_at_parked(self) -> None:
        """What another process computed may be there; or it has died, and it is our turn."""
        for name, (job, device) in list(self._parked.items()):
            asked = self._ask(job)
            if isinstance(asked, str):
                continue
            del self._parked[name]
            job.lease = asked
            self._release(job)  # it is asked for again when its turn comes
            self.scheduler.give_back(Step(device, (name,)))
            self._ready.add(name)

    # --- what came of it --------------------------------------------------------------------------------------------

    def _wait(self, timeout: float) -> None:
        with resumed(self.collects):
            self.done.wait(timeout)
        self._take_arrived()

    def _take_arrived(self) -> None:
        while (done := self.done.first()) is not None:  # an interruption at any place below loses nothing
            if not isinstance(done, BaseException):
                self._unkept += done.outcomes
            self.done.remove()
            self._in_flight -= 1
            if isinstance(done, BaseException):
                raise done
            worker = self.workers[done.work.device]
            worker.waiting -= 1
            self._take(done.work.device, worker)

    def _take(self, device: str, worker: AnyWorker) -> None:
        """Keep what came of a piece of work."""
        stopped = self._keep_all()
        for name, batch in dict(worker.computer.halved).items():  # the worker may be at the next piece of work
            self.workload.shrink(self.graph.nodes[name], batch)
        if released := [worker.computer.released.pop(0) for _ in list(worker.computer.released)]:
            self.workload.forget(device, released)
        if stopped is not None:
            raise stopped

    def _keep_all(self) -> BaseException | None:
        """Keep what has been computed; returns the error that ends the run, if any. Interrupted, it can be repeated."""
        stopped: BaseException | None = None
        while self._unkept:
            try:
                self._keep(self._unkept[0])
            except (Cancelled, GraphflowError) as error:
                stopped = stopped or error
            del self._unkept[0]
        return stopped

    def _keep(self, outcome: Outcome) -> None:
        job = outcome.job
        pending = self.instances.pending.get(job.name)
        if pending is None:
            return  # it was just done with when somebody interrupted
        try:
            with one_thread():
                held = self.settler.recover(partial(self.settler.done, outcome))
        except GraphflowError as error:
            self._failed(pending, error)
            return
        finally:
            self._release(job)
        self.workload.measured(outcome)
        self._settled(pending, held)

    def _release(self, job: Job) -> None:
        self._leased.pop(job.name, None)
        if job.lease is not None:
            with suppress(StoreError):
                job.lease.release()
        self._asked.discard(job.placed.key)

    def _settled(self, pending: Pending, held: int = 0) -> None:
        """An instance has its outputs."""
        self._over(pending, held)
        self.instances.proceed(pending.node, pending.index)
        made = [Place(pending.node.name, port, pending.index) for port in pending.node.cls.outputs()]
        self.values.drop([place for place in made if not self.lifetimes.awaited(place)])

    def _over(self, pending: Pending, held: int = 0) -> None:
        """An instance is done with, in one way or another."""
        del self.instances.pending[pending.name]
        self._ready.discard(pending.name)
        if pending.placed is not None and self._keys.get(pending.placed.key) == pending.name:
            del self._keys[pending.placed.key]
        self.values.drop(self.lifetimes.over(pending.places))
        self.scheduler.finish(pending.name, held)

    def _failed(self, pending: Pending, error: GraphflowError) -> None:
        """Go on without it, if the user wants that.

        Raises:
            GraphflowError: the error itself.
        """
        if not self.settler.options.keep_going or isinstance(error, StoreError):
            raise error
        self.settler.fail(pending.name, pending.node, pending.index, str(error))
        self._over(pending)
        self.instances.cut_off(pending.node, pending.index)

    def _drain(self, interrupted: bool) -> None:
        """The run ends early: what has been computed by now is kept all the same, and what is begun is waited for.

        When the user has stopped the run, a node may go on to its next step, and not much longer.
        """
        self.keeper.around.stopping.set()
        patience = time.monotonic() + GRACE
        try:
            with suppress(Cancelled, Exception):
                self._take_arrived()
                self._keep_all()
            self._unkept.clear()
            # A count alone would not do: the interruption may have come between taking something and counting it.
            while self._in_flight and (any(w.busy for w in self.workers.values()) or self.done.first() is not None):
                with suppress(Cancelled, Exception):
                    self._wait(POLL)
                    if interrupted and time.monotonic() > patience:
                        self._interrupt()
        finally:
            for job in list(self._leased.values()):
                self._release(job)
            for key in self._asked:
                with suppress(StoreError):
                    self.keeper.store.release(key)

    def _interrupt(self) -> None:
        for worker in self.workers.values():
            worker.interrupt()

    def close(self) -> None:
        """End the threads, let go of models and temporary files, and keep what was measured."""
        for worker in self.workers.values():
            worker.close()
            worker.computer.close()
        self.keeper.around.close()
        self.workload.measures.save()
