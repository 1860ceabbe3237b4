"""The command line: output, files, exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import PIL.Image
import pytest
import samples

from graphflow.cli import run as graphflow
from graphflow.version import __version__

GRAPH = """graphflow: 1
title: a test
inputs:
  image: {type: Image}
  text: {type: Text, default: hello, nonempty: true}
nodes:
  shout: {uses: sample.shout, in: {text: inputs.text}}
  negative: {uses: sample.invert, in: {image: inputs.image}}
outputs: {image: negative.image, text: shout.text}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "g.yaml").write_text(GRAPH)
    PIL.Image.new("RGB", (4, 4), (255, 0, 10)).save(tmp_path / "a.png")
    return tmp_path


def test_a_run_writes_outputs_record_and_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert graphflow(["run", "g.yaml", "-i", "image=a.png", "--out", "out", "--quiet"]) == 0
    assert sorted(p.name for p in (folder / "out").iterdir()) == [
        "events.jsonl", "image.png", "report.html", "run.json", "text.txt",
    ]  # fmt: skip
    assert (folder / "out/text.txt").read_text() == "HELLO!\n"
    assert PIL.Image.open(folder / "out/image.png").getpixel((0, 0)) == (0, 255, 245)
    record = json.loads((folder / "out/run.json").read_text())
    assert record["status"] == "done"
    assert record["nodes"]["shout"]["status"] == "ran"
    assert str(folder) not in (folder / "out/run.json").read_text(), "a record names no path of this machine"
    assert capsys.readouterr().out.splitlines() == ["out/image.png", "out/text.txt", "out/report.html"]


def test_a_picture_gives_its_graph_back(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert graphflow(["run", "g.yaml", "-i", "image=a.png", "--out", "out", "-q"]) == 0
    capsys.readouterr()
    for made in ("out/image.png", "out/run.json", "out"):
        assert graphflow(["show", "--graph", made]) == 0
        assert capsys.readouterr().out == GRAPH
    assert graphflow(["show", "--graph", "--json", "out"]) == 2


def test_a_picture_can_be_shown_and_run_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert graphflow(["run", "g.yaml", "-i", "image=a.png", "-i", "text=you", "--out", "one", "-q"]) == 0
    samples.RUNS.clear()
    assert graphflow(["show", "one/image.png"]) == 0
    assert "sample.shout" in capsys.readouterr().out
    assert graphflow(["run", "one/image.png", "--set", "shout.mark=?", "--out", "two", "-q"]) == 0
    assert (folder / "two/text.txt").read_text() == "YOU?\n"
    assert dict(samples.RUNS) == {"shout": 1}
    assert graphflow(["run", "one/run.json", "--out", "three", "-q"]) == 0
    assert (folder / "three/text.txt").read_text() == "YOU!\n"
    code = graphflow(["run", "one/image.png", "--store", "elsewhere", "--out", "four", "-q"])
    assert code == 5
    assert re.search(r"has a.png \(picture \w{12}\); give it with -i image=FILE\n", capsys.readouterr().err)
    (folder / "a.png").rename(folder / "one/a.png")
    assert graphflow(["run", "one/image.png", "--store", "elsewhere", "--out", "four", "-q"]) == 0
    assert (folder / "four/text.txt").read_text() == "YOU!\n"
    assert json.loads((folder / "four/run.json").read_text())["inputs"]["image"]["source"] == "a.png"


def test_no_metadata_leaves_a_plain_picture(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert graphflow(["run", "g.yaml", "-i", "image=a.png", "--out", "out", "-q", "--no-metadata"]) == 0
    assert PIL.Image.open(folder / "out/image.png").info == {}
    assert graphflow(["show", "out/image.png"]) == 2
    assert "was not made by graphflow" in capsys.readouterr().err


def test_plan_check_and_why(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert graphflow(["plan", "g.yaml", "-i", "image=a.png", "--check"]) == 4
    assert "2 node(s) would run: shout, negative" in capsys.readouterr().err
    graphflow(["run", "g.yaml", "-i", "image=a.png", "--out", "out", "-q"])
    assert graphflow(["plan", "g.yaml", "-i", "image=a.png", "--check"]) == 0
    capsys.readouterr()
    assert graphflow(["why", "g.yaml", "shout", "-i", "image=a.png", "-i", "text=bye"]) == 0
    assert "text comes from inputs.text: 'hello' → 'bye'" in capsys.readouterr().out
    assert graphflow(["plan", "g.yaml", "-i", "image=a.png", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shout"]["status"] == "cached"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["run", "nothing"], 2, "neither a file nor a shipped graph"),
        (["run", "none.yaml"], 3, "none.yaml:1:1: GF001 can't be read: No such file"),
        (["run", "g.yaml"], 3, "input 'image' (Image) is not given"),
        (["run", "g.yaml", "-i", "image=none.png"], 5, "does not exist"),
        (["run", "g.yaml", "-i", "image=g.yaml"], 3, "is no picture"),
        (["run", "g.yaml", "-i", "image=a.png", "-i", "text= "], 3, "is empty, expected text"),
        (["run", "g.yaml", "-i", "image"], 2, "expected NAME=VALUE"),
        (["run", "g.yaml", "-i", "picture=a.png"], 2, "has no input 'picture'"),
        (["run", "g.yaml", "-i", "image=a.png", "--set", "shoot.mark=1"], 2, "did you mean shout?"),
        (["run", "g.yaml", "-i", "image=a.png", "--set", "shout.mark=1"], 3, "input should be a valid string"),
        (["run", "g.yaml", "-i", "image=a.png", "--out", "g.yaml"], 2, "can't be written"),
        (["run", "g.yaml", "-i", "image=a.png", "--device", "tpu"], 2, "expected auto, cpu"),
        (["run", "g.yaml", "-i", "image=a.png", "--dtype", "int8"], 2, "expected one of float32"),
        (["run", "g.yaml", "--frobnicate"], 2, "No such option"),
        (["frobnicate"], 2, "No such command"),
        (["why", "g.yaml", "shoot", "-i", "image=a.png"], 2, "has no node 'shoot'"),
        (["nodes", "sample.shot"], 2, "did you mean sample.shout?"),
        (["show", "a.png"], 2, "was not made by graphflow"),
        (["check", "g.yaml", "--format", "xml"], 2, "expected one of text, json, github"),
        (["dag", "g.yaml", "--format", "xml"], 2, "expected one of tree, mermaid, dot"),
    ],
)  # fmt: skip
def test_wrong_use_has_a_message_and_a_code(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, says: str
) -> None:
    assert graphflow(arguments) == code
    found = capsys.readouterr()
    assert says in found.err
    assert "Traceback" not in found.err
    assert not (folder / "runs").exists() or not list((folder / "runs").rglob("*.png"))


def test_check_prints_every_format(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.yaml").write_text(GRAPH.replace("sample.shout", "sample.shot"))
    assert graphflow(["check", "bad.yaml"]) == 3
    assert "bad.yaml:7:17: GF101" in capsys.readouterr().out
    assert graphflow(["check", "bad.yaml", "--format", "json"]) == 3
    assert json.loads(capsys.readouterr().out)[0]["line"] == 7
    assert graphflow(["check", "bad.yaml", "--format", "github"]) == 3
    assert capsys.readouterr().out.startswith("::error file=bad.yaml,line=7,col=17::GF101")
    assert graphflow(["check", "g.yaml"]) == 0
    assert "no errors" in capsys.readouterr().out


def test_a_failing_node_leaves_a_record_but_no_outputs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "g.yaml").write_text(GRAPH.replace("sample.shout", "sample.fail"))
    assert graphflow(["run", "g.yaml", "-i", "image=a.png", "--out", "out", "-q"]) == 1
    assert "node 'shout' (sample.fail) failed: RuntimeError: boom" in capsys.readouterr().err
    assert sorted(p.name for p in (folder / "out").iterdir()) == ["events.jsonl", "report.html", "run.json"]
    assert json.loads((folder / "out/run.json").read_text())["status"] == "failed"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["-i", "image=none.png"], 5), ([], 3), (["-i", "image=a.png", "--device", "tpu"], 2)],
)
def test_debug_shows_the_traceback_and_keeps_the_code(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int
) -> None:
    assert graphflow(["run", "g.yaml", "--debug", *arguments]) == code
    assert capsys.readouterr().err.startswith("Traceback (most recent call last):")


QUITS = """
import sys
from graphflow.node import Node, Ports
from graphflow.ports import Text
class Quits(Node, kind="quits.at_once"):
    "Calls a script that ends the process."
    class In(Ports):
        text: Text
    class Out(Ports):
        text: Text
    def run(self, x, ctx):
        sys.exit(3)
"""


def test_a_node_that_exits_has_failed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "quits.py").write_text(QUITS)
    (folder / "g.yaml").write_text(GRAPH.replace("sample.shout", "quits.at_once"))
    arguments = ["run", "g.yaml", "-i", "image=a.png", "--nodes", "quits.py", "--out", "out", "-q"]
    assert graphflow(arguments) == 1
    assert "node 'shout' (quits.at_once) failed: SystemExit: 3" in capsys.readouterr().err
    assert json.loads((folder / "out/run.json").read_text())["status"] == "failed"


def test_ctrl_c_before_anything_has_begun_is_quiet(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("graphflow.cli._command", interrupted)
    assert graphflow(["graphs"]) == 130
    assert capsys.readouterr() == ("", "")


def test_the_version_is_that_of_the_distribution(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphflow.devices.package_version", {"graphflow-diffusion": "1.2.3"}.get)
    assert graphflow(["--version"]) == 0
    assert capsys.readouterr().out == "graphflow 1.2.3\n"
    monkeypatch.setattr("graphflow.devices.package_version", lambda name: None)
    assert graphflow(["--version"]) == 0
    assert capsys.readouterr().out == f"graphflow {__version__}\n"
    assert graphflow(["--help"]) == 0
    assert "Node graphs for diffusion image editing" in capsys.readouterr().out


def test_an_unwritable_store_is_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert graphflow(["plan", "g.yaml", "-i", "image=a.png", "--store", "a.png"]) == 1
    assert "can't be opened" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["nodes"], ["nodes", "sample.shout"], ["graphs"], ["models", "list"], ["models", "list", "pocket"],
                  ["cache", "ls"], ["cache", "ls", "--json"], ["cache", "du"], ["cache", "verify"],
                  ["cache", "clear", "--yes"], ["doctor"], ["dag", "g.yaml"], ["dag", "g.yaml", "--format", "mermaid"],
                  ["dag", "g.yaml", "--format", "dot"],
                  ["--help"], ["run", "--help"]],
)  # fmt: skip
def test_every_command_answers(folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    graphflow(["run", "g.yaml", "-i", "image=a.png", "--out", "out", "-q"])
    capsys.readouterr()
    assert graphflow(arguments) == 0
    assert capsys.readouterr().out.strip()


SLOW = """
from graphflow.node import Context, Node, Ports
from graphflow.ports import Text
import time
class Slow(Node, kind="slow.steps"):
    "Takes its time."
    class In(Ports):
        text: Text
    class Out(Ports):
        text: Text
    def run(self, x, ctx):
        for i in ctx.steps(range(600)):
            print("step", i, flush=True)
            time.sleep(0.05)
        return self.Out(text=x.text)
"""


def test_ctrl_c_in_the_middle_of_a_node(folder: Path, graph_file: Callable[[str, str], Path]) -> None:
    (folder / "slow.py").write_text(SLOW)
    text = GRAPH.replace("text: shout.text}", "text: slow.text}").replace(
        "outputs:", "  slow: {uses: slow.steps, in: {text: shout.text}}\noutputs:"
    )
    (folder / "slow.yaml").write_text(text)
    command = [sys.executable, "-c", "from graphflow.cli import main; main()", "run", "slow.yaml", "-i", "image=a.png",
               "--nodes", "slow.py", "--nodes", samples.__file__, "--out", "out"]  # fmt: skip
    # A job in the background ignores SIGINT, and its children would inherit that.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ), preexec_fn=heed
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step 3"):
            break
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "interrupted; finished nodes are stored" in errors
    made = json.loads((folder / "out/run.json").read_text())
    assert (made["status"], made["nodes"]["slow"]["status"]) == ("cancelled", "interrupted")
    assert "<summary" in (folder / "out/report.html").read_text()
    shown = subprocess.run([*command[:3], "show", "out"], capture_output=True, text=True, check=True).stdout
    line = next(line.split() for line in shown.splitlines() if line.startswith("slow "))
    assert line[1:] == ["slow.steps", "v1", "interrupted"], "no time"
    assert not (folder / "out/image.png").exists()
    plan = [*command[:3], "plan", *command[4:-2], "--json"]
    planned = subprocess.run(plan, capture_output=True, text=True, check=True)
    found = {name: p["status"] for name, p in json.loads(planned.stdout).items()}
    assert found == {"shout": "cached", "negative": "cached", "slow": "run"}
