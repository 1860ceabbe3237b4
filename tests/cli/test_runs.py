"""Runs on the command line: parts of a graph, models, what a run leaves behind, and wrong use that leaves nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest
import samples
from cli_runs import GRAPH, IMAGE, RUN, files, record

from graphflow.cli import run as graphflow
from graphflow.node import Context, Node, Ports
from graphflow.ports import Model, Text
from graphflow.provenance import read

Command = Callable[[list[str]], tuple[int, str]]


@pytest.fixture
def command() -> Command:
    """Runs graphflow in a process of its own; returns exit code and standard error."""

    def run(arguments: list[str]) -> tuple[int, str]:
        code = "from graphflow.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
        return done.returncode, done.stderr

    return run


# --- parts of a graph -------------------------------------------------------------------------------------------------


def test_until_stops_at_a_node_and_writes_what_it_gives(folder: Path) -> None:
    assert graphflow(["run", "g.yaml", *IMAGE, "--until", "rep", "--out", "out", "-q"]) == 0
    assert json.loads((folder / "out/rep.texts.json").read_text()) == ["HELLO!", "HELLO!"]
    assert list(record(folder / "out")["nodes"]) == ["picky", "shout", "rep"]
    assert not list((folder / "out").glob("image*"))


def test_what_a_node_of_a_mapped_graph_gives_lies_in_a_folder_of_its_own(folder: Path) -> None:
    mapped = ["run", "g.yaml", "--map", "image=photos", "--out", "out", "-q"]
    assert graphflow([*mapped, "--until", "each/negative"]) == 0
    assert [name for name in files(folder / "out") if name.startswith("each")] == [
        f"each/negative.image-00{i}.png" for i in range(3)
    ]


def test_only_runs_nothing_else(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", "g.yaml", *IMAGE, "--only", "join", "--out", "out", "-q"]
    assert graphflow(command) == 4
    assert "picky, shout, rep would have to run first" in capsys.readouterr().err
    assert not (folder / "out").exists()
    graphflow(["run", "g.yaml", *IMAGE, "--until", "rep", "--out", "before", "-q"])
    samples.RUNS.clear()
    assert graphflow(command) == 0
    assert dict(samples.RUNS) == {"join": 1}
    assert graphflow([*command, "--until", "rep"]) == 2


def test_refresh_computes_a_node_again_and_no_more(folder: Path) -> None:
    graphflow(["run", "g.yaml", *IMAGE, "--out", "out", "-q"])
    samples.RUNS.clear()
    assert graphflow(["run", "g.yaml", *IMAGE, "--refresh", "shout", "--out", "out", "-q"]) == 0
    assert dict(samples.RUNS) == {"shout": 1}, "the same bytes: what follows is not computed again"
    assert record(folder / "out")["nodes"]["shout"]["reason"] == "refreshed"


SOURCE = """
from graphflow.node import Node, Ports
from graphflow.ports import Text
class Changing(Node, kind="runs.changing"):
    "Says something."
    class In(Ports):
        text: Text
    class Out(Ports):
        text: Text
    def run(self, x, ctx):
        return self.Out(text=x.text + "ONE")
"""


def test_changed_source_warns_and_strict_runs_again(folder: Path, command: Command) -> None:
    (folder / "c.yaml").write_text(
        "graphflow: 1\ninputs: {text: {type: Text, default: a}}\n"
        "nodes: {c: {uses: runs.changing, in: {text: inputs.text}}}\noutputs: {text: c.text}\n"
    )
    (folder / "pack.py").write_text(SOURCE)
    run = ["run", "c.yaml", "--nodes", "pack.py", "--out", "out", "-q"]
    assert command(run)[0] == 0
    (folder / "pack.py").write_text(SOURCE.replace("ONE", "TWO"))
    code, said = command(run)
    assert code == 0
    assert said.startswith("warning: the source of runs.changing has changed"), "no progress, but what must be known"
    assert (folder / "out/text.txt").read_text() == "aONE\n"
    events = [json.loads(line) for line in (folder / "out/events.jsonl").read_text().splitlines()]
    assert any("runs.changing" in e.get("message", "") and "version" in e["message"] for e in events)
    assert command([*run, "--code", "strict"])[0] == 0
    assert (folder / "out/text.txt").read_text() == "aTWO\n"
    assert command([*run, "--code", "loose"]) == (2, "error: --code loose: expected one of warn, strict\n")


# --- models -----------------------------------------------------------------------------------------------------------


class Rate(Node, kind="runs.rate"):
    """A score, where there is a model for it."""

    class In(Ports):
        text: Text
        needed: Model["clip"]
        model: Model["lpips"] | None = None

    class Out(Ports):
        text: Text

    def run(self, x: In, ctx: Context) -> Out:
        return self.Out(text=f"{x.text}: {x.model}")


MODELS = """graphflow: 1
inputs: {text: {type: Text, default: a}}
models:
  clip: {loader: transformers.clip, path: nowhere/clip}
  lpips: {loader: lpips, path: nowhere/lpips}
nodes:
  shout: {uses: sample.shout, in: {text: inputs.text}}
  rate: {uses: runs.rate, in: {text: shout.text}}
outputs: {text: rate.text}
"""


def test_missing_models_are_listed_before_anything_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "m.yaml").write_text(MODELS)
    assert graphflow(["run", "m.yaml", "--out", "out", "-q"]) == 5
    errors = capsys.readouterr().err
    where = folder / "nowhere/clip"
    missing = f"error: 1 model(s) are not on this machine:\n  clip: {where} (transformers.clip)\n"
    assert errors == f"{missing}to be put there by hand: clip\n"
    assert "lpips" not in errors, "a node does without an optional model"
    assert not samples.RUNS
    assert not (folder / "out").exists()


# --- what a run leaves behind -----------------------------------------------------------------------------------------


def test_the_run_log_is_json_lines_and_agrees_with_the_record(folder: Path) -> None:
    graphflow(["run", "g.yaml", *IMAGE, "--out", "out", "-q"])
    lines = [json.loads(line) for line in (folder / "out/events.jsonl").read_text().splitlines()]
    assert [lines[0]["event"], lines[-1]["event"]] == ["RunStarted", "RunFinished"]
    assert lines[-1]["status"] == "done"
    made = record(folder / "out")
    finished = [e["node"] for e in lines if e["event"] == "NodeFinished"]
    assert sorted(finished) == sorted(made["nodes"])  # the log has them as they came, the record in the graph's order
    assert list(made["nodes"]) == list(lines[0]["nodes"])
    assert [e["time"] for e in lines] == sorted(e["time"] for e in lines)
    shout = made["nodes"]["shout"]
    assert shout["parameters"] == {"mark": "!"}
    assert (shout["kind"], shout["version"], shout["inputs"]) == ("sample.shout", 1, {"text": "picky.text"})
    assert made["text"] == GRAPH
    assert made["inputs"]["image"]["source"] == "0.png"


def test_json_prints_the_record_and_nothing_else(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert graphflow(["run", "g.yaml", *IMAGE, "--out", "out", "--json"]) == 0
    found = capsys.readouterr()
    assert json.loads(found.out) == record(folder / "out")
    assert found.err == ""


def test_diff_names_the_node_where_two_runs_part(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graphflow(["run", "g.yaml", *IMAGE, "--out", "a", "-q"])
    graphflow(["run", "g.yaml", "-i", "image=photos/1.png", "--set", "shout.mark=?", "--out", "b", "-q"])
    capsys.readouterr()
    assert graphflow(["diff", "a", "b/image.png"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("input image '0.png ")
    assert "setting shout.mark absent → '?'" in lines
    assert "output image differs" in lines
    assert graphflow(["diff", "a", "a"]) == 0
    assert capsys.readouterr().out == "no difference\n"
    assert graphflow(["diff", "a", "none"]) == 5
    assert graphflow(["diff", "a", "photos/0.png"]) == 2
    assert graphflow(["diff", "a", "g.yaml"]) == 3
    assert "GF141 is neither a PNG nor a run.json" in capsys.readouterr().err


def test_a_report_is_written_again_from_the_record(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graphflow(["run", "g.yaml", *IMAGE, "--out", "out", "-q"])
    first = (folder / "out/report.html").read_text()
    capsys.readouterr()
    assert graphflow(["report", "out", "--out", "again.html"]) == 0
    assert capsys.readouterr().out == "again.html\n"
    assert (folder / "again.html").read_text().count("data:image/") == first.count("data:image/") > 0
    assert graphflow(["report", "out/image.png", "--store", "empty", "--out", "poor.html"]) == 0
    assert "no longer in the store" in (folder / "poor.html").read_text()
    assert graphflow(["report", "nothing", "--out", "never.html"]) == 5
    assert not (folder / "never.html").exists()


def test_a_picture_is_run_again_with_another_input(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graphflow(["run", "g.yaml", *IMAGE, "-i", "text=you", "--out", "one", "-q"])
    (folder / "photos/0.png").unlink()
    (folder / "g.yaml").unlink()
    samples.RUNS.clear()
    assert graphflow(["run", "one/image.png", "-i", "text=me", "-q"]) == 0
    assert dict(samples.RUNS) == {"shout": 1, "repeat": 1, "join": 1}, "the picture itself comes from the store"
    assert files(folder / "runs")[0].startswith("g-001/"), "the graph keeps its name"
    assert graphflow(["run", "one/image.png", "-i", "image=photos/1.png", "--out", "two", "-q"]) == 0
    assert PIL.Image.open(folder / "two/image.png").getpixel((0, 0)) == (215, 255, 245)
    assert (folder / "two/text.txt").read_text() == "YOU! YOU!\n"
    assert graphflow(["run", "one/image.png", "-i", "foto=photos/1.png", "--out", "three"]) == 2
    assert "has no input 'foto'" in capsys.readouterr().err


def test_a_record_can_not_choose_the_out_folder(folder: Path) -> None:
    graphflow(["run", "g.yaml", *IMAGE, "--out", "out", "-q"])
    made = record(folder / "out")
    made["graph"] = "../../escaped"
    (folder / "out/evil.json").write_text(json.dumps(made))
    assert graphflow(["run", "out/evil.json", "-q"]) == 0
    assert [p.name for p in (folder / "runs").iterdir()] == ["evil-001"]


# --- what it tells of itself ------------------------------------------------------------------------------------------


def test_the_report_tells_the_command_as_it_was_typed(folder: Path) -> None:
    (folder / "pack.py").write_text("")
    typed = ["run", "g.yaml", *IMAGE, "--nodes", "pack.py", "--device", "cpu", "-q", "--out", "out dir"]
    assert graphflow(typed) == 0
    assert record(folder / "out dir")["command"] == typed
    shown = re.sub(r"<[^>]*>", "", (folder / "out dir/report.html").read_text())
    command = "graphflow run g.yaml -i image=photos/0.png --nodes pack.py --device cpu -q --out &#39;out dir&#39;"
    assert command in shown
    assert graphflow([*RUN, "out", "-i", "text=bad"]) == 1
    assert record(folder / "out")["command"] == [*RUN, "out", "-i", "text=bad"]


def test_each_combination_of_a_sweep_has_its_own_command(folder: Path) -> None:
    sweep = ["run", "g.yaml", *IMAGE, "--sweep", "shout.mark=['3', '!']", "--sweep=text=a,b", "-q", "--out", "out"]
    assert graphflow(sweep) == 0
    command = record(folder / "out/002")["command"]
    assert command == ["run", "g.yaml", *IMAGE, "-q", "--set", 'shout.mark="3"', "-i", "text=b"]
    assert graphflow([*command, "--out", "alone"]) == 0
    assert (folder / "alone/text.txt").read_text() == (folder / "out/002/text.txt").read_text() == "B3 B3\n"


def test_a_picture_does_not_tell_what_else_lies_beside_it(folder: Path) -> None:
    graphflow([*RUN, "out"])
    graphflow(["run", "g.yaml", *IMAGE, "-q", "--out", "out", "-i", "text=you"])
    found = read(folder / "out/image.png")
    assert found is not None
    assert found.written == found.command == []


# --- wrong use leaves nothing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--sweep", "text"], 2, "--sweep text: expected NODE.PARAM=A,B,C or INPUT=A,B,C"),
        (["--sweep", "text=a,a"], 2, "a stands twice"),
        (["--sweep", "text=a", "--sweep", "text=b"], 2, "--sweep text stands twice"),
        (["--sweep", "txt=a,b"], 2, "neither NODE.PARAM nor an input; inputs: image, text, times; did you mean text?"),
        (["--sweep", "image=photos/0.png,photos/1.png"], 2, "--sweep image: the input is given with -i too"),
        (["--sweep", "shoot.mark=a,b"], 2, "did you mean shout?"),
        (["--sweep", "shout.mark=1,2"], 3, "'shout.mark': input should be a valid string, found 1"),
        (["--sweep", "times=1,500"], 3, "'rep.times': input should be less than or equal to 100, found 500"),
        (["--sweep", "text=a,b", "--json"], 2, "--sweep has no --json"),
        (["--map", "text=[a, b]", "--map", "times=[1, 2, 3]"], 3, "unequal lists: text has 2, times has 3"),
        (["--map", "txt=[a, b]"], 2, "--map txt: the graph has no such input; did you mean text?"),
        (["--map", "text=none/*.txt"], 3, "expected a list such as [a, b]"),
        (["--set", "shout.mark=[!]"], 3, "--set shout.mark:1:3: GF002 is not YAML"),
        (["-i", "times=two"], 3, "input 'times' (int) is 'two'"),
        (["--until", "shoot"], 2, "the graph has no node 'shoot'; it has: picky, shout, rep, join, negative; did you"),
        (["--refresh", "shoot"], 2, "the graph has no node 'shoot'"),
        (["--only", "join", "--until", "join"], 2, "--only and --until exclude each other"),
        (["--models", "pockt"], 3, "there is no preset 'pockt'"),
        (["--nodes", "none.py"], 2, "none.py"),
    ],
)  # fmt: skip
def test_wrong_use_is_refused_before_anything_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, says: str
) -> None:
    assert graphflow(["run", "g.yaml", *IMAGE, *arguments, "--out", "new/out"]) == code
    found = capsys.readouterr()
    assert says in found.err
    assert "Traceback" not in found.err
    assert not (folder / "new").exists()
    assert not samples.RUNS


@pytest.mark.parametrize("command", ["run", "plan", "why"])
def test_a_map_without_files_says_how_to_name_them(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    node = ["each/shout"] if command == "why" else []
    assert graphflow([command, "g.yaml", *node, "--map", "image"]) == 2
    assert capsys.readouterr().err == "error: --map image: name the files, such as --map image=FOLDER\n"
    assert graphflow([command, "g.yaml", *node, *IMAGE, "--map", "times"]) == 2
    assert capsys.readouterr().err == "error: --map times: list the values: --map times=[…]\n"
    assert graphflow([command, "g.yaml", *node, "--map", "image", "-i", "image=photos"]) == 0, "it is a list by -i"
    assert graphflow([command, "g.yaml", *node, "-i", "image=photos"]) == 3
    assert capsys.readouterr().err.endswith(
        "is a folder, expected a picture\n  hint: --map image=photos runs the graph once for each picture in it\n"
    )


def test_a_picture_is_run_again_over_a_list_only_where_one_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert graphflow([*RUN, "one"]) == 0
    assert graphflow(["run", "one/image.png", "--map", "image", "-q"]) == 2, "the record has a single picture"
    assert "--map image: name the files" in capsys.readouterr().err
    assert graphflow(["run", "one/image.png", "--map", "image=photos", "-q", "--out", "many"]) == 0
    assert graphflow(["run", "many/run.json", "--map", "image", "-q", "--out", "again"]) == 0, "the record has a list"
    assert record(folder / "again")["inputs"]["image"] == record(folder / "many")["inputs"]["image"]
    assert graphflow(["run", "many/run.json", "--map", "times=[1, 2]", "-q"]) == 3
    assert "input 'image' (Image) is not given" in capsys.readouterr().err


def test_a_folder_that_was_there_stays(folder: Path) -> None:
    (folder / "mine").mkdir()
    assert graphflow(["run", "g.yaml", *IMAGE, "--only", "join", "--out", "mine", "-q"]) == 4
    assert (folder / "mine").is_dir()


def test_files_of_a_long_list_are_told_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(3, 25):
        PIL.Image.new("RGB", (8, 8), (9 * i, 0, 10)).save(folder / f"photos/{i}.png")
    assert graphflow(["run", "g.yaml", "--map", "image=photos", "--out", "out-001", "-q"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "out-001/image-*.png  25 files", "out-001/text.json", "out-001/elements.csv", "out-001/report.html",
    ]  # fmt: skip
