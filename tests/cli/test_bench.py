"""graphflow bench on the command line: the table, the files, the page, and what is said when something is wrong."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import bench_samples
import PIL.Image
import pytest

from graphflow.cli import run as graphflow

BENCH = """graphflow-bench: 1
title: Brightening & more
data: {uses: sample_bench.edits}
methods:
  nothing: {column: source, title: do nothing}
  little: {uses: sample_bench.brighten, with: {by: 10, fails: /4}, title: a little}
  much: {uses: sample_bench.brighten, with: {by: 35}}
metrics:
  near: {uses: sample_bench.apart, in: {reference: target}}
  kept: {uses: sample_bench.apart, in: {reference: source}}
columns:
  near.mean: {title: distance, unit: '%', scale: 100, digits: 0}
  kept.mean: {title: change, digits: 1, best: lowest}
plots: {preservation: kept.mean, strength: near.mean, types: [near.mean]}
reference:
  theirs: {title: Theirs_1, source: "Smith 2020, table 1", values: {near.mean: 7}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("graphflow.executors.peak.Peak.read", lambda self: None)  # not known on every system
    (tmp_path / "b.yaml").write_text(BENCH, encoding="utf-8")
    bench_samples.RUNS.clear()
    return tmp_path


def test_the_table_on_the_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert graphflow(["bench", "b.yaml", "-q"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Brightening & more"
    assert re.split(r"  +", lines[1].strip()) == [
        "method",
        "pictures",
        "distance, % ↓",
        "change, levels ↓",
        "time, s ↓",
    ]
    cells = [re.split(r"  +", line.strip()) for line in lines[2:6]]
    assert cells[0] == ["do nothing", "4000 ± 0", "0.0 ± 0.0", "–"]
    assert cells[1][:4] == ["a little", "5 / 6", "3000 ± 0", "*10.0 ± 0.0"]
    assert cells[2][:4] == ["much", "6 / 6", "*500 ± 0", "35.0 ± 0.0"]
    assert cells[3] == ["Theirs_1 (published)", "7", "–", "–"]
    assert lines[6].startswith("6 pictures. ± is half of the 95 % bootstrap interval over pictures. *: the best method")
    assert "a little: 1 of 6 pictures failed; its means are over the others" in lines


def test_the_out_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert graphflow(["bench", "b.yaml", "-q", "--out", "out"]) == 0
    names = {p.relative_to(folder / "out").as_posix() for p in (folder / "out").rglob("*") if p.is_file()}
    assert {n for n in names if "/" not in n} == {
        "table.md", "table.csv", "table.tex", "scores.csv", "differences.csv", "bench.json", "report.html",
        "preservation.png", "preservation.svg", "types.png", "types.svg", "seconds.png", "seconds.svg",
    }  # fmt: skip
    assert {n for n in names if n.startswith("pictures/little")} == {
        f"pictures/little/{n:05d}.png" for n in (0, 1, 2, 3, 5)
    }
    with PIL.Image.open(folder / "out/pictures/much/00003.png") as image:
        assert image.getpixel((0, 0)) == (3 + 35, 35, 135)
    facts = json.loads((folder / "out/bench.json").read_text(encoding="utf-8"))
    assert facts["columns"]["near.mean"]["definition"] == "mean |a-b|; reduction mean"
    assert facts["bench"] == BENCH
    assert str(folder) not in (folder / "out/bench.json").read_text(encoding="utf-8")
    assert "out/report.html" in capsys.readouterr().out


def test_scores_of_each_picture(folder: Path) -> None:
    assert graphflow(["bench", "b.yaml", "-q", "--out", "out"]) == 0
    rows = list(csv.DictReader(io.StringIO((folder / "out/scores.csv").read_text(encoding="utf-8"))))
    assert len(rows) == 3 * 6
    found = next(r for r in rows if r["method"] == "much" and r["picture"] == "edit/2")
    assert (found["edit_type"], found["near.mean"], found["kept.mean"]) == ("add", "5", "35")
    assert float(found["seconds"]) > 0
    failed = next(r for r in rows if r["method"] == "little" and r["picture"] == "edit/4")
    assert (failed["near.mean"], failed["seconds"]) == ("", "")


@pytest.mark.parametrize("name", ["report.html", "table.csv", "pictures/mine.png", "bench.json"])
def test_a_bench_replaces_nothing_of_the_users(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    mine = folder / "out" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine", encoding="utf-8")
    assert graphflow(["bench", "b.yaml", "-q", "--out", "out"]) == 2
    err = capsys.readouterr().err
    assert f"would replace out/{name.partition('/')[0]}, which graphflow did not write there" in err
    assert mine.read_text(encoding="utf-8") == "mine"
    assert [p for p in (folder / "out").rglob("*") if p.is_file()] == [mine]
    assert not bench_samples.RUNS, "it was refused before anything was computed"


def test_a_bench_replaces_what_one_that_was_killed_has_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("graphflow.bench.outputs.write_page", killed)
        assert graphflow(["bench", "b.yaml", "-q", "--out", "out"]) != 0
    assert (folder / "out/table.csv").is_file()
    assert not (folder / "out/report.html").exists()
    assert graphflow(["bench", "b.yaml", "-q", "--out", "out"]) == 0
    assert graphflow(["bench", "b.yaml", "-q", "--out", "out"]) == 0
    assert (folder / "out/report.html").is_file()


def test_differences_are_over_the_pictures_that_both_have(folder: Path) -> None:
    assert graphflow(["bench", "b.yaml", "-q", "--out", "out"]) == 0
    rows = list(csv.DictReader(io.StringIO((folder / "out/differences.csv").read_text(encoding="utf-8"))))
    found = next(r for r in rows if (r["method"], r["minus"], r["column"]) == ("little", "much", "near.mean"))
    assert (found["mean"], found["low"], found["high"], found["n"]) == ("2500", "2500", "2500", "5")
    assert not any("theirs" in r.values() for r in rows)
    assert {(r["method"], r["minus"]) for r in rows if r["column"] == "seconds"} == {("little", "much")}


def test_other_forms_of_the_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert graphflow(["bench", "b.yaml", "-q", "--format", "md"]) == 0
    markdown = capsys.readouterr().out
    assert "| method | pictures | distance, % ↓ | change, levels ↓ | time, s ↓ |" in markdown
    assert "| much | 6 / 6 | **500 ± 0** | 35.0 ± 0.0 |" in markdown
    assert "| *Theirs_1 (published)* |  | *7* | – | – |" in markdown
    assert "- **distance** (`near.mean`): mean |a-b|" in markdown
    assert graphflow(["bench", "b.yaml", "-q", "--format", "tex"]) == 0
    latex = capsys.readouterr().out
    assert r"do nothing &  & 4000 $\pm$ 0 & 0.0 $\pm$ 0.0 & -- \\" in latex
    assert r"\textit{Theirs\_1 (published)}" in latex
    assert latex.index(r"\midrule", latex.index("much")) < latex.index("Theirs")
    assert graphflow(["bench", "b.yaml", "-q", "--format", "csv", "--out", "out"]) == 0
    out, err = capsys.readouterr()
    assert "out/report.html" in err
    assert out == (folder / "out/table.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(out)))
    found = next(r for r in rows if (r["method"], r["column"]) == ("little", "near.mean"))
    assert (found["mean"], found["low"], found["n"], found["kind"]) == ("3000", "3000", "5", "method")
    assert {r["kind"] for r in rows if r["best"]} == {"method"}


class _Page(HTMLParser):
    """What a page loads, and the grid's cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.shots: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if src := (found.get("src") or (found.get("href") if tag == "link" else None)):
            self.loads.append(src)
        if "data-shot" in found:
            self.shots.append(found["data-shot"] or "")


def test_the_page_loads_nothing_but_its_own_pictures(folder: Path) -> None:
    assert graphflow(["bench", "b.yaml", "-q", "--out", "out"]) == 0
    text = (folder / "out/report.html").read_text(encoding="utf-8")
    page = _Page(text)
    files = [src for src in page.loads if not src.startswith("data:image/png")]
    assert len(files) == 6 + 5 + 6 + 6, "three methods, of which one lacks a picture, and the ground truth"
    assert all((folder / "out" / file).is_file() for file in files)
    assert len(page.shots) == 6 * 4
    assert "default-src 'none'" in text
    assert "Brightening &amp; more" in text
    assert "can&#39;t do &#39;brighten edit/4&#39;" in text


def test_a_plan_computes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert graphflow(["bench", "b.yaml", "--plan"]) == 0
    assert "the data set has not been read yet" in capsys.readouterr().out
    assert not bench_samples.RUNS
    assert graphflow(["bench", "b.yaml", "-q"]) == 0
    capsys.readouterr()
    assert graphflow(["bench", "b.yaml", "--plan", "--set", "much.by=36"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["much", "method", "0", "6"] in lines


def test_only_some_methods_and_pictures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert graphflow(["bench", "b.yaml", "--methods", "much", "--limit", "2", "--set", "much.by=40"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-2].startswith("2 pictures.")
    assert bench_samples.RUNS["brighten 40"] == 2
    assert "done in" in err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["poket"], 2, "no bench 'poket': neither a file nor a shipped bench; did you mean pocket?"),
        (["b.yaml", "--methods", "muhc"], 2, "did you mean much?"),
        (["b.yaml", "--format", "html"], 2, "expected one of terminal, md, csv, tex"),
        (["b.yaml", "--set", "much.bye=3"], 3, "GF107"),
        (["b.yaml", "--stop"], 1, "can't do 'brighten edit/4'"),
        (["b.yaml", "--set", "little.fails=none"], 0, ""),
    ],
)
def test_what_is_wrong_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, says: str
) -> None:
    assert graphflow(["bench", *arguments, "-q"]) == code
    assert says in capsys.readouterr().err


INSIDE = """graphflow: 1
inputs: {image: Image}
nodes:
  edit: {uses: sample_bench.brighten, in: {image: inputs.image}}
outputs: {image: edit.image}
"""


@pytest.mark.parametrize("target", ["much.nope", "graph/edit.nope", "near.nope", "data.nope"])
def test_a_setting_is_reported_as_it_was_typed(folder: Path, capsys: pytest.CaptureFixture[str], target: str) -> None:
    (folder / "inside.yaml").write_text(INSIDE)
    (folder / "b.yaml").write_text(BENCH.replace("metrics:", "  graph: {uses: inside.yaml}\nmetrics:", 1))
    assert graphflow(["bench", "b.yaml", "--set", f"{target}=4"]) == 3
    assert capsys.readouterr().err.startswith(f"--set {target}:1:1: GF107 ")


def test_a_method_that_makes_no_picture_is_a_failure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "b.yaml").write_text(BENCH.replace("fails: /4", "fails: ''").replace("by: 35", "by: 35, fails: '0'"))
    assert graphflow(["bench", "b.yaml", "-q", "--limit", "1"]) == 1
    out, err = capsys.readouterr()
    assert "not available" in out
    assert "no picture was made by much: can't do 'brighten edit/0'" in err


@pytest.mark.parametrize(
    ("old", "new", "place", "says"),
    [
        ("methods:", "method:", "b.yaml:4:1", "GF161 a bench file has no key 'method'"),
        ("near.mean: {title", "near.men: {titel", "b.yaml:12:14", "GF161 column 'near.men' has no key 'titel'"),
        ("digits: 0", "digits: many", "b.yaml:12:", "GF160 'digits:' of column 'near.mean' is a number from 0 to 9"),
        ("strength: near.mean", "strength: far.mean", "b.yaml:14:", "GF167 column 'far.mean' belongs to no metric"),
        ("  kept: {uses", "  much: {uses", "b.yaml:10:3", "GF162 metric 'much' has the name of a method"),
        ("in: {reference: target}", "in: {reference: targt}", "b.yaml:9:", "GF165 metric 'near' takes column 'targt'"),
        ('source: "Smith 2020, table 1", ', "", "b.yaml:16:3", "GF160 reference 'theirs' has no 'source:'"),
        (
            "uses: sample_bench.brighten, with: {by: 35}",
            "uses: sample_bench.brigten",
            "b.yaml:7:",
            "GF101 method 'much'",
        ),
    ],
)
def test_mistakes_have_a_place(
    folder: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, place: str, says: str
) -> None:
    assert old in BENCH
    (folder / "b.yaml").write_text(BENCH.replace(old, new, 1), encoding="utf-8")
    assert graphflow(["bench", "b.yaml", "-q"]) == 3
    err = capsys.readouterr().err
    assert any(line.startswith(place) and says in line for line in err.splitlines()), err
    assert not bench_samples.RUNS
