"""Many runs in one on the command line: sweeps, and maps over files."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import PIL.Image
import pytest
import samples
from cli_runs import IMAGE, files, record

from graphflow.cli import run as graphflow
from graphflow.cli import sweep as graphflow_sweep
from graphflow.node import Context, Node, Ports
from graphflow.ports import Scores, Text

# --- sweeps -----------------------------------------------------------------------------------------------------------


def test_a_sweep_writes_a_folder_a_combination_a_table_and_a_labelled_sheet(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ["--sweep", "times=1,2", "--sweep", "shout.mark=!,?,…"]
    assert graphflow(["run", "g.yaml", *IMAGE, *sweep, "--out", "out", "-q"]) == 0
    with (folder / "out/sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["times"], r["shout.mark"]) for r in rows] == [(t, m) for t in "12" for m in "!?…"]
    assert rows[4]["text"] == (folder / "out/005/text.txt").read_text().strip() == "HELLO? HELLO?"
    assert files(folder / "out/005") == ["events.jsonl", "image.png", "report.html", "run.json", "text.txt"]
    assert record(folder / "out/005")["overrides"] == {"shout.mark": "?"}
    assert dict(samples.RUNS) == {"invert": 1, "shout": 3, "repeat": 6, "join": 6}, "combinations share their results"
    table = capsys.readouterr().out
    assert "HELLO… HELLO…" in table
    sheet = PIL.Image.open(folder / "out/sheet.png").convert("RGB")
    assert sheet.width > 3 * 256
    assert sheet.getpixel((140, 140)) == (255, 255, 245)
    below = sheet.crop((12, 12 + 256, 12 + 256, 12 + 256 + 24))
    assert len(below.getcolors(1000) or ()) > 2, "a label stands below each picture"


def test_a_sweep_of_a_mapped_graph_shows_every_element(folder: Path) -> None:
    sweep = ["--map", "image=photos", "--sweep", "shout.mark=!,?", "--sweep", "times=1,2"]
    assert graphflow(["run", "g.yaml", *sweep, "--out", "out", "-q"]) == 0
    assert json.loads((folder / "out/003/text.json").read_text()) == ["HELLO?"] * 3
    assert PIL.Image.open(folder / "out/sheet.png").size == (12 + 3 * 268, 12 + 4 * (256 + 18 + 12))


def test_the_sheet_of_a_mapped_graph_names_the_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels: list[str] = []
    drawn = graphflow_sweep.contact_sheet
    monkeypatch.setattr(
        graphflow_sweep, "contact_sheet", lambda cells, *a: labels.extend(c for c, _ in cells) or drawn(cells, *a)
    )
    sweep = ["--sweep", "times=1,2", "-q"]
    assert graphflow(["run", "g.yaml", "--map", "image=photos", *sweep, "--out", "out"]) == 0
    assert labels == [f"times={t} [{i}] {i}.png" for t in (1, 2) for i in range(3)]
    labels.clear()
    assert graphflow(["run", "g.yaml", *IMAGE, *sweep, "--out", "one"]) == 0
    assert labels == ["times=1", "times=2"]


@pytest.mark.parametrize("more", [[], ["--map", "image=photos"]])
def test_all_wrong_values_of_a_sweep_are_told_as_its_own(
    folder: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    swept = ["--sweep", "times=1,a,b", "--sweep", "rep.times=2,101,x"]
    for sweep, told in ((swept[:2], ["'a'", "'b'"]), (swept[2:], ["101", "'x'"])):
        assert graphflow(["run", "g.yaml", *(more or IMAGE), *sweep, "--out", "out", "-q"]) == 3
        lines = [line for line in capsys.readouterr().err.splitlines() if "GF1" in line]
        name = sweep[1].partition("=")[0]
        assert len(lines) == 2
        assert all(line.startswith(f"--sweep {name}:1:1: GF1") for line in lines)
        assert all(value in line for value, line in zip(told, lines, strict=True))
    assert not (folder / "out").exists()


def test_a_combination_that_fails_is_in_the_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = ["run", "g.yaml", *IMAGE, "--sweep", "text=a,bad,c", "-q"]
    assert graphflow([*sweep, "--out", "stops"]) == 1
    assert "node 'picky' (sample.picky) failed: bad is not welcome" in capsys.readouterr().err
    assert [line.split(",")[:2] for line in (folder / "stops/sweep.csv").read_text().splitlines()[1:]] == [
        ["a", "done"], ["bad", "failed"],
    ]  # fmt: skip
    assert not (folder / "stops/003").exists()
    assert graphflow([*sweep, "--out", "goes", "--keep-going"]) == 1
    found = capsys.readouterr()
    assert "1 failure, the others are done:\n  text=bad: picky: bad is not welcome" in found.err
    with (folder / "goes/sweep.csv").open() as file:
        assert [r["outputs.text"] for r in csv.DictReader(file)] == ["A! A!", "", "C! C!"]
    assert (folder / "goes/003/text.txt").exists()


# --- maps -------------------------------------------------------------------------------------------------------------


def test_a_map_over_a_folder_runs_once_for_each_file(folder: Path) -> None:
    assert graphflow(["run", "g.yaml", "--map", "image=photos", "--out", "out", "-q"]) == 0
    assert files(folder / "out") == [
        "elements.csv", "events.jsonl", "image-000.png", "image-001.png", "image-002.png", "report.html", "run.json",
        "text.json",
    ]  # fmt: skip
    for i in range(3):
        assert PIL.Image.open(folder / f"out/image-00{i}.png").getpixel((0, 0)) == (255 - 40 * i, 255, 245)
    samples.RUNS.clear()
    PIL.Image.new("RGB", (8, 8), "red").save(folder / "photos/9.png")
    assert graphflow(["run", "g.yaml", "--map", "image=photos/*.png", "--out", "more", "-q"]) == 0
    assert dict(samples.RUNS) == {"invert": 1}, "one more photo costs one photo"


def test_elements_that_fail_are_named_and_the_finished_rest_is_kept(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", "g.yaml", "--map", "image=photos", "--map", "text=[a, bad, c]"]
    assert graphflow([*command, "--out", "out", "--keep-going"]) == 1
    found = capsys.readouterr()
    assert found.err.endswith(
        "error: 1 of the nodes failed, the others are done:\n  each[1]/picky (1.png): bad is not welcome\n"
    )
    assert re.search(r"each\[0…2\]/shout: 2 computed in \d+ ms, 1 not run\n", found.err)
    assert "1 failed, 3 not run" in found.err
    assert [p for p in files(folder / "out") if p.startswith("image-")] == [f"image-00{i}.png" for i in range(3)]
    assert json.loads((folder / "out/text.json").read_text()) == ["A! A!", None, "C! C!"]
    made = record(folder / "out")
    assert made["status"] == "failed"
    assert made["outputs"]["text"]["failed"] == [1]
    assert {n for n, r in made["nodes"].items() if r["status"] == "failed"} == {"each[1]/picky"}
    assert made["nodes"]["each[1]/join"]["status"] == "skipped"
    assert "each[1]/picky" in (folder / "out/report.html").read_text()
    samples.RUNS.clear()
    assert graphflow([*command[:-1], "text=[a, good, c]", "--out", "mended", "-q"]) == 0
    assert dict(samples.RUNS) == {"shout": 1, "repeat": 1, "join": 1}, "only the mended element runs"


def test_an_error_in_a_map_names_the_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["--map", "text=[a, bad, c]"]
    mapped = ["run", "g.yaml", "--map", "image=photos", *texts, "-q"]
    assert graphflow([*mapped, "--out", "out"]) == 1
    assert "error: node 'each[1]/picky (1.png)' (sample.picky) failed: bad" in capsys.readouterr().err
    assert graphflow([*mapped, "--sweep", "times=1,2", "-k", "--out", "sweep"]) == 1
    assert "  times=2: each[1]/picky (1.png): bad is not welcome\n" in capsys.readouterr().err
    assert graphflow(["run", "g.yaml", *IMAGE, *texts, "-q", "--out", "texts"]) == 1
    assert "error: node 'each[1]/picky' (sample.picky) failed: bad" in capsys.readouterr().err, "there are no files"


def test_an_error_in_a_map_of_the_graphs_own_names_the_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "own.yaml").write_text("""graphflow: 1
inputs: {photos: 'list[Image]', cover: Image}
nodes:
  all: {uses: sample.colour, map: {image: inputs.photos}}
  picky: {uses: sample.picky, map: {text: all.text}}
  two: {uses: sample.colour, map: {image: [inputs.cover, inputs.cover]}}
outputs: {texts: picky.text, two: two.text}
""")
    PIL.Image.new("RGB", (8, 8), "#bad000").save(folder / "photos/1.png")
    given = ["-i", "photos=photos", "-i", "cover=photos/1.png"]
    assert graphflow(["run", "own.yaml", *given, "-q", "-k", "--out", "out"]) == 1
    assert "  picky[1] (1.png): bad000 is not welcome" in capsys.readouterr().err
    (folder / "own.yaml").write_text((folder / "own.yaml").read_text().replace("colour", "fail_colour"))
    (folder / "nodes.py").write_text("""from graphflow.node import Node, Ports
from graphflow.ports import Image, Text

class FailColour(Node, kind="sample.fail_colour", version=1):
    class In(Ports):
        image: Image

    class Out(Ports):
        text: Text

    def run(self, x, ctx):
        raise ValueError("no")
""")
    assert graphflow(["run", "own.yaml", *given, "-q", "-k", "--nodes", "nodes.py", "--out", "out"]) == 1
    found = capsys.readouterr().err
    assert "  all[2] (2.png): no" in found
    assert "  two[0] (1.png): no" in found


def test_a_map_says_which_file_became_which(folder: Path) -> None:
    mapped = ["run", "g.yaml", "--map", "image=photos", "--map", "text=[a, bad, c]", "--out", "out", "-q"]
    assert graphflow([*mapped, "--keep-going"]) == 1
    assert record(folder / "out")["inputs"]["image"]["source"] == ["0.png", "1.png", "2.png"]
    with (folder / "out/elements.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["index", "image", "text", "outputs.image", "outputs.text"],
            ["0", "0.png", "a", "image-000.png", "A! A!"],
            ["1", "1.png", "bad", "image-001.png", ""],
            ["2", "2.png", "c", "image-002.png", "C! C!"],
        ]
    assert not record(folder / "out")["inputs"]["text"]["default"]
    assert record(folder / "out")["inputs"]["times"]["default"]


class Scored(Node, kind="sample.scored"):
    """Two scores of a text."""

    class In(Ports):
        text: Text

    class Out(Ports):
        scores: Scores

    def run(self, x: In, ctx: Context) -> Out:
        return self.Out(scores={"length": len(x.text), x.text[:1].lower(): 1})


def test_scores_of_one_name_are_told_apart_by_their_outputs(folder: Path) -> None:
    (folder / "s.yaml").write_text(
        "graphflow: 1\ninputs: {text: Text}\nnodes:\n"
        "  shout: {uses: sample.shout, in: {text: inputs.text}}\n"
        "  a: {uses: sample.scored, in: {text: inputs.text}}\n"
        "  b: {uses: sample.scored, in: {text: shout.text}}\n"
        "outputs: {loud: shout.text, same: a.scores, changed: b.scores}\n"
    )
    assert graphflow(["run", "s.yaml", "--map", "text=[you, your]", "--out", "out", "-q"]) == 0
    assert (folder / "out/elements.csv").read_text().splitlines() == [
        "index,text,loud,same.length,same.y,changed.length,changed.y", "0,you,YOU!,3,1,4,1", "1,your,YOUR!,4,1,5,1",
    ]  # fmt: skip
