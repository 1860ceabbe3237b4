"""Which threads torch computes with: all of them in the device's thread, one elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch
from harness import Harness

from graphflow import threads
from graphflow.errors import Cancelled
from graphflow.executors.interrupt import Interruptible
from graphflow.node import Context, Node, Ports
from graphflow.ports import Model, Text
from graphflow.store import Store

SEEN: list[tuple[str, int, bool]] = []


def note(kind: str) -> None:
    SEEN.append((kind, torch.get_num_threads(), threading.current_thread() is threading.main_thread()))


class HostNode(Node, kind="threads.host", version=1):
    """Computes without a model."""

    class In(Ports):
        text: Text

    class Out(Ports):
        text: Text

    def run(self, x: In, ctx: Context) -> Out:
        note("host")
        return self.Out(text=x.text + "h")


class DeviceNode(Node, kind="threads.device", version=1):
    """Computes with a model."""

    class In(Ports):
        text: Text
        model: Model["vae"]

    class Out(Ports):
        text: Text

    def run(self, x: In, ctx: Context) -> Out:
        note("device")
        return self.Out(text=x.text + "d")


@pytest.fixture
def team(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Four threads on four cores, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    monkeypatch.setattr(threads, "cores", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    SEEN.clear()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("team")
def test_only_the_devices_thread_has_torchs_threads(store: Store) -> None:
    graph = """graphflow: 1
models: pocket
inputs: {text: {type: Text, default: a}}
nodes:
  one: {uses: threads.host, in: {text: inputs.text}}
  two: {uses: threads.device, in: {text: one.text}}
  three: {uses: threads.host, in: {text: two.text}}
  four: {uses: threads.device, in: {text: three.text}}
outputs: {text: four.text}
"""
    assert Harness(store, graph).run()["text"] == "ahdhd"
    assert [(kind, count) for kind, count, _ in SEEN] == [("host", 1), ("device", 3)] * 2
    assert not any(main for kind, _, main in SEEN if kind == "device"), "a second team would slow the first one"
    assert torch.get_num_threads() == 4, "the caller's own thread is as it was"


@pytest.mark.usefixtures("team")
def test_a_thread_that_begins_while_another_is_alone_gets_all_threads_all_the_same() -> None:
    threads.note_team()
    found: list[int] = []

    def later() -> None:
        threads.whole_team()
        found.append(torch.get_num_threads())

    with threads.one_thread():
        assert torch.get_num_threads() == 1
        with threads.one_thread():
            threads.note_team()
        assert torch.get_num_threads() == 1, "alone until the outer one ends"
        thread = threading.Thread(target=later)
        thread.start()
        thread.join()
    assert found == [3]
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("team")
def test_a_number_in_the_environment_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    threads.note_team()
    with threads.one_thread():
        pass
    thread_has: list[int] = []
    thread = threading.Thread(target=lambda: (threads.whole_team(), thread_has.append(torch.get_num_threads())))
    thread.start()
    thread.join()
    assert thread_has == [4]


@pytest.mark.usefixtures("team")
def test_threads_that_are_alone_at_once_leave_the_process_as_it_was() -> None:
    """The one that leaves last began when torch's number was that of the other one: 1."""
    threads.note_team()
    inside, out = threading.Event(), threading.Event()

    def other() -> None:
        with threads.one_thread():
            inside.set()
            out.wait(10)

    thread = threading.Thread(target=other)
    with threads.one_thread():
        thread.start()
        assert inside.wait(10)
    out.set()
    thread.join()
    found: list[int | None] = []

    def later() -> None:
        found.append(torch.get_num_threads())
        threads.note_team()
        found.append(threads.team())

    thread = threading.Thread(target=later)
    thread.start()
    thread.join()
    assert found == [4, 3]


class Wedge(Node, kind="threads.wedge", version=1):
    """Computes with a model, in steps that nobody counts, until it is stopped."""

    class In(Ports):
        model: Model["vae"]

    class Out(Ports):
        text: Text

    def run(self, x: In, ctx: Context) -> Out:
        WEDGED.set()
        while not FREE.is_set():
            time.sleep(0.01)
        return self.Out(text="")


WEDGED, FREE = threading.Event(), threading.Event()
WEDGED_GRAPH = """graphflow: 1
models: pocket
nodes:
  wedge: {uses: threads.wedge}
outputs: {text: wedge.text}
"""


@pytest.mark.parametrize("device", ["cpu", "cpu:0,cpu:1"])
def test_a_stopped_run_does_not_wait_for_a_node_that_counts_no_steps(
    store: Store, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr("graphflow.engine.loop.GRACE", 0.2)
    harness = Harness(store, WEDGED_GRAPH)
    run = harness.session().runner({}, harness.events.append)
    WEDGED.clear()
    timer = threading.Thread(target=lambda: (WEDGED.wait(60), run.cancelled.set()))
    timer.start()
    try:
        with pytest.raises(Cancelled):
            run.run()
    finally:
        FREE.set()
        timer.join()
        FREE.clear()
    assert run.record.nodes["wedge"].status == "interrupted"


def test_an_interruption_ends_a_call_and_nothing_after_it() -> None:
    calls, began, ended = Interruptible(), threading.Event(), []

    def endless() -> None:
        began.set()
        while True:
            time.sleep(0.001)

    def work() -> None:
        for _ in range(200):
            try:
                calls.call(endless)
            except Cancelled:
                ended.append("interrupted")
            ended.append(calls.call(lambda: "whole"))

    calls.interrupt()  # nothing is called: nobody is interrupted
    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive():
        if began.wait(0.1):
            began.clear()
            calls.interrupt()
    assert ended == ["interrupted", "whole"] * 200
