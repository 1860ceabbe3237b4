"""Whatever comes between, a run keeps what has finished, gives its leases back, and the next one goes on."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import model_samples as ms
import pytest
from harness import Harness

from graphflow.errors import Cancelled
from graphflow.events import Event, Logged, NodeFinished, RunStarted
from graphflow.executors.compute import Computer
from graphflow.executors.worker import Inbox
from graphflow.node import Context, Node, Ports
from graphflow.options import Options
from graphflow.ports import Text
from graphflow.run import Run, Runner
from graphflow.store import Lease, Store

MAPPED = """
graphflow: 1
inputs: {texts: 'list[Text]'}
nodes:
  one: {uses: sample.alpha, map: {text: inputs.texts}}
  two: {uses: sample.beta, map: {text: one.text}}
  all: {uses: sample.join, in: {texts: two.text}}
outputs: {all: all.text}
"""
TEXTS = [f"text {i}" for i in range(6)]
WAIT = 60  # seconds after which a test gives up


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    ms.CALLS.clear()


@pytest.fixture
def harness(store: Store, tmp_path: Path) -> Harness:
    return Harness(store, MAPPED + ms.models_line(tmp_path / "models"), tmp_path)


def runner(harness: Harness, options: Options | None = None) -> Runner:
    return harness.session().runner({"texts": TEXTS}, harness.events.append, options)


def key_of(harness: Harness, name: str) -> str:
    key = harness.plan(texts=TEXTS).nodes[name].key
    assert key is not None
    return key


def leases(store: Store) -> list[Any]:
    return store.index.rows("SELECT * FROM leases")


class InThread:
    """A run in another thread."""

    def __init__(self, run: Runner) -> None:
        self.done: Run | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(run,))
        self._thread.start()

    def _run(self, run: Runner) -> None:
        try:
            self.done = run.run()
        except BaseException as error:
            self.error = error

    def join(self) -> Run | None:
        self._thread.join(WAIT)
        assert not self._thread.is_alive(), "it hangs"
        return self.done


def until(true: Any) -> None:
    end = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def finished(harness: Harness) -> set[str]:
    return {e.node for e in harness.events if isinstance(e, NodeFinished)}


def test_what_another_process_computes_is_waited_for_and_everything_else_goes_on(harness: Harness) -> None:
    other = Store(harness.store.folder)
    held = [other.ask(key_of(harness, f"one[{i}]")) for i in (0, 1, 2)]
    assert all(isinstance(lease, Lease) and lease.held for lease in held)
    thread = InThread(runner(harness))
    others = {f"{node}[{i}]" for node in ("one", "two") for i in (3, 4, 5)}
    until(lambda: others <= finished(harness))
    assert finished(harness) == others
    assert any("waits for" in e.message for e in harness.events if isinstance(e, Logged))
    for lease in held:
        assert isinstance(lease, Lease)
        lease.release()
    done = thread.join()
    assert done is not None
    assert done["all"].count(" b") == 6
    assert leases(other) == []


def test_a_run_that_waits_for_another_process_can_be_cancelled(harness: Harness) -> None:
    other = Store(harness.store.folder)
    held = [other.ask(key_of(harness, f"one[{i}]")) for i in range(6)]
    run = runner(harness)
    thread = InThread(run)
    until(lambda: any("waits for" in e.message for e in harness.events if isinstance(e, Logged)))
    run.cancelled.set()
    thread.join()
    assert isinstance(thread.error, Cancelled)
    assert len(leases(other)) == len(held), "those of the other process are still its own"


def test_two_runs_at_once_share_the_work(harness: Harness) -> None:
    begun = threading.Barrier(2, timeout=WAIT)

    def meet(kind: str, texts: Sequence[str]) -> None:
        if len(ms.CALLS) == 0:
            begun.wait()

    second = Harness(Store(harness.store.folder), harness.text, harness.folder)
    with ms.on_entry(meet):
        threads = [InThread(runner(h)) for h in (harness, second)]
        runs = [thread.join() for thread in threads]
    assert runs[0] is not None
    assert runs[1] is not None
    assert runs[0]["all"] == runs[1]["all"]
    assert len(ms.CALLS) == 12, "nothing was computed twice"
    ran = [sum(n.status == "ran" for n in run.record.nodes.values()) for run in runs if run is not None]
    assert min(ran) >= 1, "both did something"
    assert leases(harness.store) == []


def test_an_interruption_keeps_what_is_being_computed(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(kind: str, texts: Sequence[str]) -> None:
        if len(ms.CALLS) == 2:
            assert threading.current_thread() is not threading.main_thread()
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)  # so that it comes while this one computes

    steps_end_at_once = ms.Asks.run

    def run(node: ms.Asks, x: Any, ctx: Any) -> Any:
        return steps_end_at_once(node, x, _Endless(ctx)) if len(ms.CALLS) == 2 else steps_end_at_once(node, x, ctx)

    monkeypatch.setattr(ms.Asks, "run", run)  # one that does not look whether it should stop
    with ms.on_entry(interrupt), pytest.raises(KeyboardInterrupt):
        runner(harness).run()
    monkeypatch.undo()
    assert len(ms.CALLS) == 3
    assert leases(harness.store) == []
    plan = harness.plan(texts=TEXTS)
    assert sum(n.status == "cached" for n in plan.nodes.values()) == 3
    assert runner(harness).run().record.status == "done"
    assert len(ms.CALLS) == 12


def test_an_interruption_just_when_a_result_arrives_loses_nothing(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait, waits = Inbox.wait, []

    def interrupted(inbox: Inbox, timeout: float | None) -> None:
        wait(inbox, timeout)
        waits.append(timeout)
        if len(waits) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Inbox, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runner(harness).run()
    assert leases(harness.store) == []
    plan = harness.plan(texts=TEXTS)
    assert sum(n.status == "cached" for n in plan.nodes.values()) == len(ms.CALLS) >= 2
    assert len(ms.CALLS) < 12


class _Endless:
    """A context that never stops a node."""

    def __init__(self, ctx: Any) -> None:
        self._ctx = ctx

    def steps(self, iterable: Any) -> Any:
        return iter(iterable)


def test_an_interruption_stops_a_node_between_two_steps(harness: Harness) -> None:
    def interrupt(kind: str, texts: Sequence[str]) -> None:
        if len(ms.CALLS) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)

    with ms.on_entry(interrupt), pytest.raises(KeyboardInterrupt):
        runner(harness).run()
    assert len(ms.CALLS) == 2
    assert leases(harness.store) == []
    assert sum(n.status == "cached" for n in harness.plan(texts=TEXTS).nodes.values()) == 2
    assert runner(harness).run().record.status == "done"
    assert len(ms.CALLS) == 12


def test_a_run_that_is_cancelled_while_it_computes_gives_everything_back(harness: Harness) -> None:
    run = runner(harness)

    def cancel(kind: str, texts: Sequence[str]) -> None:
        if len(ms.CALLS) == 3:
            run.cancelled.set()

    with ms.on_entry(cancel), pytest.raises(Cancelled):
        run.run()
    assert run.record.status == "cancelled"
    assert leases(harness.store) == []
    assert [n.status for n in run.record.nodes.values()].count("ran") == 3
    assert runner(harness).run().record.status == "done"
    assert len(ms.CALLS) == 12


def test_an_error_of_the_thread_itself_ends_the_run(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    compute, broken = Computer.run, []

    def breaks(computer: Computer, *given: Any) -> Any:
        if threading.current_thread() is threading.main_thread() or len(ms.CALLS) < 2:
            return compute(computer, *given)
        broken.append(1)
        raise ZeroDivisionError("a fault of the engine")

    monkeypatch.setattr(Computer, "run", breaks)
    with pytest.raises(ZeroDivisionError, match="a fault of the engine"):
        runner(harness).run()
    assert broken
    monkeypatch.undo()
    assert leases(harness.store) == []
    assert runner(harness).run().record.status == "done"
    assert len(ms.CALLS) == 12


def test_values_that_are_lost_while_threads_compute_are_made_again(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What makes them again is a model that had to leave the device long ago; the budget is kept all the same."""
    plain = Harness(Store(harness.store.folder / "plain"), harness.text, harness.folder).run(texts=TEXTS)
    ms.CALLS.clear()
    pools, budget, lost = ms.Pools(monkeypatch), max(ms.SIZE.values()), []

    def lose(kind: str, texts: Sequence[str]) -> None:
        pools.sample()
        if kind == "sample.beta" and not lost:
            lost.append(1)
            with closing(sqlite3.connect(harness.store.folder / "index.sqlite", timeout=WAIT)) as db, db:
                db.execute("DELETE FROM blobs")

    monkeypatch.setattr("graphflow.engine.values.MEMORY", 0)  # nothing that the store has is kept at hand
    run = runner(harness, Options(memory=budget))
    with ms.on_entry(lose):
        done = run.run()
    assert lost
    assert done["all"] == plain["all"]
    assert len([c for c in ms.CALLS if c[0] == "sample.alpha"]) > 6
    assert pools.highest <= budget


class Remembering(Node, kind="sample.remembering", version=1):
    """A long text, made with a checkpoint that must stay as long as the node runs."""

    class In(Ports):
        text: Text

    class Out(Ports):
        text: Text

    def run(self, x: In, ctx: Context) -> Out:
        ms.Hooks.entered(self.kind, [x.text])
        assert ctx.checkpoint is not None
        folder = ctx.checkpoint
        ms.Hooks.entered(self.kind, [x.text])
        (folder / "step").write_text("1")
        ms.CALLS.append((self.kind, 1))
        return self.Out(text=x.text * 10)


def test_what_is_made_again_beside_another_process_has_a_checkpoint_of_its_own(store: Store) -> None:
    text = """
graphflow: 1
inputs: {text: Text}
nodes:
  long: {uses: sample.remembering, in: {text: inputs.text}}
  end: {uses: sample.shout, in: {text: long.text}}
outputs: {end: end.text}
"""
    harness = Harness(store, text)
    harness.run(text="a")
    key = harness.plan(text="a").nodes["long"].key
    assert key is not None
    other = Store(store.folder)

    def lose(event: Event) -> None:
        if isinstance(event, RunStarted):  # the plan counted on what is lost now
            with closing(sqlite3.connect(store.folder / "index.sqlite", timeout=WAIT)) as db, db:
                db.execute("DELETE FROM blobs")

    held = other.ask(key, time.time())
    assert isinstance(held, Lease)
    other.checkpoint(key)
    with ms.on_entry(lambda kind, texts: other.drop_checkpoint(key)):  # the other one is through just now
        done = harness.session().runner({"text": "a"}, lose, Options(refresh=frozenset({"end"}))).run()
    assert done["end"] == "AAAAAAAAAA!"
    assert ms.CALLS == [("sample.remembering", 1)] * 2
    held.release()
