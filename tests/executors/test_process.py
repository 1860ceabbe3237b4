"""Several devices, a process each: results are those of one device, whatever becomes of a process."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import model_samples as ms
import PIL.Image
import pytest
import torch
import travel_samples  # noqa: F401  registers its kinds

from graphflow import registry
from graphflow.check import check
from graphflow.engine.settle import _message
from graphflow.errors import Cancelled, ContractError, InvalidError, NodeError, OutOfMemoryError
from graphflow.events import Event, Logged, ModelLoaded, NodeFinished, NodeProgress
from graphflow.executors import wire
from graphflow.executors.child import Child, how_ended
from graphflow.options import Options
from graphflow.ports import PORT_TYPES, Port, PortType
from graphflow.run import Run, Runner
from graphflow.session import Session
from graphflow.spec import parse_spec
from graphflow.store import Store

IMAGE = Port("image", PORT_TYPES["Image"])
TWO = "cpu:0,cpu:1"
PORTS = ("text", "scores", "image", "mask", "latents", "direction", "cond", "path", "features")
EVERYTHING = """
graphflow: 1
inputs: {texts: 'list[Text]'}
nodes:
  make: {uses: travel.make, map: {text: inputs.texts}, with: {notes: 'NOTES'}}
  fleeting: {uses: travel.fleeting, map: {text: inputs.texts}, with: {notes: 'NOTES'}}
  use: {uses: travel.use, map: {MADE, model: make.weights}}
  again: {uses: travel.use, map: {FLEETING, model: make.weights}}
  gather:
    uses: travel.gather
    in: {texts: make.text, pictures: fleeting.mask, latents: fleeting.latents, conds: make.cond}
  marked: {uses: ownfile.mark, map: {text: use.text}}
  rate: {uses: sample.rate, map: {text: inputs.texts}}
outputs:
  {use: use.text, again: again.text, answer: use.answer, marked: marked.text, features: make.features, s: gather.texts,
   ratings: rate.rating}
""".replace("MADE", ", ".join(f"{p}: make.{p}" for p in PORTS)).replace(
    "FLEETING", ", ".join(f"{p}: fleeting.{p}" for p in PORTS)
)
MOODS = """
graphflow: 1
inputs: {texts: 'list[Text]', text: Text}
nodes:
  mood: {uses: travel.moody, map: {text: inputs.texts}, with: {notes: 'NOTES'}}
  paint: {uses: sample.paint, in: {text: inputs.text}}
  look: {uses: travel.look, in: {image: paint.image}}
outputs: {texts: mood.text, colour: look.text}
"""
OWN_FILE = '''
"""A node that the user names with --nodes."""

from graphflow.node import Node, Ports
from graphflow.ports import Model, Text

from .helper import SIGN


class Mark(Node, kind="ownfile.mark"):
    """Marks a text."""

    class In(Ports):
        text: Text
        model: Model["alpha"]

    class Out(Ports):
        text: Text

    def run(self, x, ctx):
        return self.Out(text=x.text + SIGN)
'''


@dataclass
class Desk:
    """Runs a graph on devices, and knows the processes that took part."""

    folder: Path
    text: str
    events: list[Event] = field(default_factory=list)
    previews: list[tuple[str, torch.Tensor]] = field(default_factory=list)
    heard: Callable[[Event], None] = lambda event: None

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        text = self.text.replace("NOTES", str(self.folder)) + ms.models_line(self.folder.parent / "models")
        self.store = Store(self.folder / "store")
        self.graph = check(parse_spec(text, "g.yaml", self.folder))

    def runner(self, device: str, options: Options | None = None, **given: Any) -> Runner:
        runner = Session(self.graph, self.store, device).runner(given, self._hear, options)
        runner.on_preview = lambda name, latents: self.previews.append((name, latents))
        return runner

    def run(self, device: str, options: Options | None = None, **given: Any) -> Run:
        return self.runner(device, options, **given).run()

    def _hear(self, event: Event) -> None:
        self.events.append(event)
        self.heard(event)

    def processes(self) -> dict[int, tuple[int, int]]:
        """Process → its group, and its number of torch's threads."""
        lines = [map(int, line.split()) for line in (self.folder / "pids").read_text().splitlines()]
        return {pid: (group, threads) for pid, group, threads in lines}

    def left(self) -> list[int]:
        return [pid for pid in self.processes() if runs(pid)]


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def load_own_file(folder: Path, kind: str = "ownfile.mark") -> Path:
    folder.mkdir()
    (folder / "helper.py").write_text("SIGN = '!'\n")
    path = folder / "own.py"
    path.write_text(OWN_FILE.replace("ownfile.mark", kind))
    registry.load_file(path)
    return path


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Desk, Desk, Run, Run]:
    """The same on one device and on two."""
    folder = tmp_path_factory.mktemp("both")
    load_own_file(folder / "nodes")
    alone, two = Desk(folder / "alone", EVERYTHING), Desk(folder / "two", EVERYTHING)
    texts = [f"text {i}" for i in range(4)]
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        return alone, two, alone.run("cpu", texts=texts), two.run(TWO, Options(batch=2), texts=texts)
    finally:
        torch.set_num_threads(threads)


def test_values_of_every_kind_travel_and_results_are_the_same_to_the_bit(both: Any) -> None:
    _, _, alone, two = both
    assert two.record.status == "done"
    for name, node in alone.record.nodes.items():
        assert two.record.nodes[name].key == node.key
        assert two.record.nodes[name].outputs == node.outputs or node.kind == "sample.rate"
    assert two["marked"] == alone["marked"] == [f"{text}!" for text in alone["use"]]
    assert two["again"] == alone["again"] == alone["use"]
    assert all(text.startswith("RGB ") for text in two["use"]), "a mask came as a picture"
    assert [torch.equal(a, b) for a, b in zip(alone["answer"], two["answer"], strict=True)] == [True] * 4
    assert two["features"][0][7]["b"].dtype == torch.bfloat16


def test_elements_are_computed_in_batches_there(both: Any) -> None:
    _, _, alone, two = both
    assert max(two.record.nodes[f"rate[{i}]"].batch for i in range(4)) == 2
    assert two["ratings"] == pytest.approx(alone["ratings"], abs=1e-5)


def test_the_record_and_the_events_tell_of_both_devices(both: Any) -> None:
    alone, two, _, done = both
    ran = [node for name, node in done.record.nodes.items() if name.startswith("make")]
    assert {node.device for node in ran} == {"cpu:0", "cpu:1"}
    assert all(node.started is not None and 0 <= node.started <= done.record.seconds for node in ran)
    assert all(node.peak is not None for node in ran)
    assert {load.device for load in done.record.loads} == {"cpu:0", "cpu:1"}
    assert all(0 <= load.started <= done.record.seconds for load in done.record.loads)
    for kind in (NodeProgress, Logged):
        told = [sorted(repr(replace(e, time=0)) for e in d.events if type(e) is kind) for d in (alone, two)]
        assert told[0] == told[1]
        assert told[0]
    assert {e.device for e in two.events if isinstance(e, ModelLoaded)} == {"cpu:0", "cpu:1"}
    assert len(alone.previews) == len(two.previews) == 4 * 2 * 3
    assert torch.equal(dict(alone.previews)["make[2]"], dict(two.previews)["make[2]"])


def test_each_device_had_a_process_and_none_is_left(both: Any) -> None:
    alone, two, _, _ = both
    assert list(alone.processes()) == [os.getpid()]
    assert len(two.processes()) == 2
    assert os.getpid() not in two.processes()
    groups, threads = zip(*two.processes().values(), strict=True)
    assert os.getpgid(0) not in groups, "Ctrl-C in the terminal is for the run alone"
    [(_, count)] = alone.processes().values()
    assert threads == (count, count), "the number decides the order of sums"
    assert not two.left()
    assert not list((two.folder / "store" / "tmp").iterdir())


def test_a_rerun_starts_no_process(both: Any) -> None:
    two = both[1]
    before = len((two.folder / "pids").read_text())
    again = two.run(TWO, texts=[f"text {i}" for i in range(4)])
    assert {node.status for node in again.record.nodes.values()} == {"cached"}
    assert len((two.folder / "pids").read_text()) == before


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Desk, Run]:
    """Whatever can go wrong, with keep_going; and a picture that the disk has lost since it was stored."""
    desk = Desk(tmp_path_factory.mktemp("troubled") / "run", MOODS)

    def spoil(event: Event) -> None:
        if isinstance(event, NodeFinished) and event.node == "paint":
            for path in (desk.folder / "store" / "blobs").rglob("*.png"):
                path.write_bytes(path.read_bytes()[:-1] + b"?")

    desk.heard = spoil
    moods = ["fine 1", "fail", "kill", "full", "break", "exit", "poison", "fine 2", "resume", "fine 3"]
    return desk, desk.run(TWO, Options(keep_going=True), texts=moods, text="a")


def test_what_fails_fails_alone_and_says_why(troubled: Any) -> None:
    _, done = troubled
    assert sorted(done.failures) == [f"mood[{i}]" for i in (1, 2, 4, 5, 6, 8)]
    failures = [done.failures[f"mood[{i}]"] for i in (1, 2, 4, 5, 6, 8)]
    assert failures[0] == "fail is not welcome"
    assert failures[2] == "KeyError: 'nothing'"
    for message, how in ((failures[1], "signal 9 (SIGKILL"), (failures[3], "exit status 7"), (failures[5], "SIGKILL")):
        assert "the process of cpu:" in message
        assert how in message
    assert "illegal memory access" in failures[4]
    assert [text.rpartition(" ")[0] for _, text in done.elements("texts")] == ["fine 1", "full", "fine 2", "fine 3"]


def test_memory_that_ran_out_is_survived(troubled: Any) -> None:
    desk, _ = troubled
    assert any("out of memory" in e.message for e in desk.events if isinstance(e, Logged) and e.node == "mood[3]")


def test_a_value_that_the_disk_has_spoilt_is_sent_from_memory(troubled: Any) -> None:
    desk, done = troubled
    assert done["colour"] == Desk(desk.folder.parent / "other", MOODS).run("cpu", texts=[], text="a")["colour"]


def test_no_process_is_left_after_trouble_and_a_checkpoint_is_gone_on_with(troubled: Any) -> None:
    desk, _ = troubled
    assert len(desk.processes()) >= 4  # two to begin with, and one for each that died with work to do
    assert not desk.left()
    assert list((desk.folder / "store" / "checkpoints").iterdir())
    again = desk.run(TWO, texts=["resume"], text="a")
    assert again["texts"][0].startswith("resume ")
    assert not list((desk.folder / "store" / "checkpoints").iterdir())


def test_a_failure_ends_the_run_and_its_processes(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "run", MOODS)
    with pytest.raises(NodeError, match="fail is not welcome") as found:
        desk.run(TWO, texts=["wait", "fail"], text="a")
    assert found.value.__cause__ is not None
    assert "do_fail" in "".join(found.value.__cause__.__notes__), "where it was raised"
    assert not desk.left()


def test_a_cancelled_run_stops_between_two_steps(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "run", MOODS)
    runner = desk.runner(TWO, texts=["fine", "wait"], text="a")

    def cancel() -> None:
        finished = [e.node for e in desk.events if isinstance(e, NodeFinished)]
        while not ((desk.folder / "waiting").exists() and "mood[0]" in finished):
            time.sleep(0.02)
            finished = [e.node for e in desk.events if isinstance(e, NodeFinished)]
        runner.cancelled.set()

    threading.Thread(target=cancel, daemon=True).start()
    with pytest.raises(Cancelled):
        runner.run()
    assert not desk.left()
    assert runner.record.nodes["mood[0]"].status == "ran"
    assert desk.run("cpu", texts=["fine"], text="a").record.nodes["mood[0]"].status == "cached"


def test_a_process_ends_when_the_run_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (tmp_path / "g.yaml").write_text(
        MOODS.replace("NOTES", str(folder)) + ms.models_line(tmp_path / "models"), encoding="utf-8"
    )
    folder.mkdir()
    code = (
        f"import sys; sys.path.insert(0, {str(Path(ms.__file__).parent)!r})\n"
        "import travel_samples, samples, graphflow, pathlib\n"
        f"graphflow.load({str(tmp_path / 'g.yaml')!r}, device='cpu,cpu', store=pathlib.Path({str(tmp_path / 's')!r}))"
        ".run(texts=['wait'], text='a')"
    )
    run = subprocess.Popen([sys.executable, "-c", code])
    pids = folder / "pids"
    wait_until(lambda: (folder / "waiting").exists() or run.poll() is not None)
    assert run.poll() is None
    run.kill()
    run.wait()
    pid = int(pids.read_text().split()[0])
    wait_until(lambda: not runs(pid))


def wait_until(what: Callable[[], bool]) -> None:
    while not what():
        time.sleep(0.02)


def test_a_process_does_not_compute_with_a_source_that_was_edited_meanwhile(tmp_path: Path) -> None:
    path = load_own_file(tmp_path / "nodes", "ownfile.edited")
    graph = """
graphflow: 1
inputs: {texts: 'list[Text]'}
nodes: {mark: {uses: ownfile.edited, map: {text: inputs.texts}}}
outputs: {marked: mark.text}
"""
    assert Desk(tmp_path / "one", graph).run("cpu", texts=["a"])["marked"] == ["a!"]
    path.write_text(path.read_text().replace("+ SIGN", "+ SIGN + SIGN"))
    with pytest.raises(NodeError, match="the source of ownfile.edited has changed since the run began"):
        Desk(tmp_path / "two", graph).run(TWO, texts=["a", "b"])
    path.write_text("1 / 0\n")
    with pytest.raises(NodeError, match="the process of cpu:. did not start: .*own.py:1 failed to import"):
        Desk(tmp_path / "three", graph).run(TWO, texts=["a", "b"])


def test_a_kind_of_the_main_program_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(tmp_path / "run", MOODS)
    monkeypatch.setattr(registry.find("travel.moody"), "__module__", "__main__")
    with pytest.raises(NodeError, match="no other process can import: move that into a module"):
        desk.run(TWO, texts=["a", "b"], text="a")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("boom"), KeyError("a"), ValueError("only words"), torch.OutOfMemoryError("2 GiB"),
        OutOfMemoryError("it does not fit"), ContractError("a", "sample.a", "it returned int"), InvalidError([]),
        UnicodeDecodeError("utf-8", b"a", 0, 1, "wrong"),
    ],
)  # fmt: skip
def test_errors_read_the_same_after_their_way(error: BaseException) -> None:
    found = wire.unpack_error(wire.pack_error(error))
    assert _message(found) == _message(error)
    assert isinstance(found, type(error)) or not type(error).__module__.startswith("graphflow")
    if isinstance(error, NodeError):
        assert (found.node, found.kind) == (error.node, error.kind)  # type: ignore[attr-defined]


def test_what_the_store_has_is_named_and_not_written(store: Store, tmp_path: Path) -> None:
    pictures = [PIL.Image.new("RGB", (3, 2), (i, 2, 3)) for i in range(2)]
    written = [tmp_path / "0.png", tmp_path / "1.png"]
    files = iter(written)
    for value, port in ((pictures[0], IMAGE), (pictures, replace(IMAGE, is_list=True))):
        named = wire.pack(value, port, lambda suffix: next(files), store.put(value, "image", port.is_list))
        assert wire.unpack(json.loads(json.dumps(named)), port, store) == value
    assert not any(path.exists() for path in written)
    told = wire.pack(pictures, replace(IMAGE, is_list=True), lambda suffix: next(files))
    assert wire.unpack(told, replace(IMAGE, is_list=True)) == pictures
    assert all(path.exists() for path in written)


def test_a_value_without_a_codec_is_an_error(tmp_path: Path) -> None:
    port = Port("x", PortType("Sound", "wave"))
    with pytest.raises(TypeError, match="no codec says how a value of wave is written"):
        wire.pack(object(), port, lambda suffix: tmp_path / "x")


def test_how_a_process_ended_is_always_said() -> None:
    assert "SIGKILL" in how_ended(-9)
    assert how_ended(-40) == "was ended by signal 40"  # of those that have no name


def test_a_process_that_says_what_nobody_understands_is_ended() -> None:
    ended: queue.SimpleQueue[str] = queue.SimpleQueue()

    def receive(message: object) -> None:
        raise KeyError("nothing")

    child = Child({"device": "nowhere"}, "test", receive, ended.put)
    assert "said what was not understood: KeyError: 'nothing'" in ended.get(timeout=60)
    child.end()
