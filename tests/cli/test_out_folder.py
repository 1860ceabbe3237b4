"""The out folder: a run replaces and removes what graphflow wrote there, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import samples
from cli_runs import IMAGE, RUN, files, record

from graphflow.cli import run as graphflow


def contents(folder: Path) -> dict[str, bytes]:
    """The files and what they hold, without the store."""
    return {name: (folder / name).read_bytes() for name in files(folder) if not name.startswith("user-store")}


def refused(arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str], says: str) -> None:
    """The run is refused before anything runs, and no file is touched."""
    before = contents(folder)
    samples.RUNS.clear()
    assert graphflow(arguments) == 2
    assert says in capsys.readouterr().err
    assert not samples.RUNS
    assert contents(folder) == before


def test_a_run_never_replaces_its_own_inputs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "photos/0.png").rename(folder / "image.png")
    refused(["run", "g.yaml", "-i", "image=image.png", "--out", "."], folder, capsys, "its own input 'image'")
    graphflow(["run", "g.yaml", "--map", "image=photos", "--out", "out", "-q"])
    again = ["run", "g.yaml", "--map", "image=out", "--out", "out"]
    refused(again, folder, capsys, "out/image-000.png, its own input 'image'")
    sweep = ["run", "g.yaml", "-i", "image=out/image-000.png", "--sweep", "times=1,2", "--out"]
    (folder / "sweep").mkdir()
    (folder / "out/image-000.png").rename(folder / "sweep/sheet.png")
    sweep[3] = "image=sweep/sheet.png"
    refused([*sweep, "sweep"], folder, capsys, "sweep/sheet.png, its own input 'image'")


@pytest.mark.parametrize("name", ["image.png", "text.txt", "run.json", "report.html", "events.jsonl"])
def test_a_run_replaces_nothing_that_graphflow_did_not_write(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / name).write_text("{}")
    (folder / "mine/other.png").write_text("is in nobody's way")
    says = f"--out mine: the run would replace mine/{name}, which graphflow did not write there; choose another --out"
    refused([*RUN, "mine"], folder, capsys, says)


def test_a_map_and_a_sweep_replace_nothing_foreign_either(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "mine/002").mkdir(parents=True)
    (folder / "mine/image-017.png").write_text("mine")
    refused(["run", "g.yaml", "--map", "image=photos", "--out", "mine"], folder, capsys, "mine/image-017.png")
    (folder / "mine/elements.csv").write_text("mine")
    (folder / "mine/image-017.png").unlink()
    refused(["run", "g.yaml", "--map", "image=photos", "--out", "mine"], folder, capsys, "mine/elements.csv")
    sweep = ["run", "g.yaml", *IMAGE, "--sweep", "times=1,2", "--out", "mine"]
    (folder / "mine/002/image.png").write_text("mine")
    refused(sweep, folder, capsys, "mine/002/image.png")
    (folder / "mine/002/image.png").unlink()
    (folder / "mine/sweep.csv").write_text("mine")
    refused(sweep, folder, capsys, "mine/sweep.csv")


def test_a_folder_is_no_file_that_may_be_replaced(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graphflow([*RUN, "out"])
    assert graphflow(["report", "out", "--out", "photos"]) == 0
    assert graphflow(["trace", "out", "--out", "photos"]) == 0
    assert files(folder / "photos") == ["0.png", "1.png", "2.png", "report.html", "trace.json"]
    (folder / "mine/image.png").mkdir(parents=True)
    (folder / "mine/image.png/precious.txt").write_text("mine")
    refused([*RUN, "mine"], folder, capsys, "mine/image.png")


@pytest.mark.parametrize("command", ["run g.yaml", "cache clear --yes", "cache gc"])
def test_nor_is_an_empty_store(folder: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    refused([*command.split(), "--store", ""], folder, capsys, "--store: expected a name, found nothing")


@pytest.mark.parametrize("command", ["report", "trace"])
def test_a_page_about_a_run_needs_a_folder_that_is_there(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert graphflow([*RUN, "out"]) == 0
    refused([command, "out", "--out", "nowhere/x"], folder, capsys, "x can't be written: No such file or directory")


@pytest.mark.parametrize("command", ["run g.yaml", "report out", "trace out", "bench pocket"])
def test_an_empty_out_is_not_the_working_folder(folder: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    refused([*command.split(), "--out", ""], folder, capsys, "--out: expected a name, found nothing")


def test_a_folder_that_graphflow_made_is_written_again(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert graphflow([*RUN, "out"]) == 0
    assert graphflow([*RUN, "out", "-i", "text=bad"]) == 1
    assert (folder / "out/image.png").is_file(), "a run that failed takes nothing away"
    assert graphflow([*RUN, "out"]) == 0, "nor does it forget what is graphflow's"
    made = record(folder / "out")
    assert made["written"] == ["image.png", "text.txt"]
    del made["written"]
    (folder / "out/run.json").write_text(json.dumps(made))
    assert graphflow([*RUN, "out"]) == 0, "an older record has no list"
    (folder / "out/run.json").unlink()
    (folder / "out/image.png").unlink()
    (folder / "out/text.txt").unlink()
    assert graphflow([*RUN, "out"]) == 0, "a run that was killed leaves its log"
    for name in ("run.json", "report.html", "text.txt"):
        (folder / "out" / name).unlink()
    (folder / "out/.graphflow-writing").write_text('["image.png", "text.txt"]')
    assert graphflow([*RUN, "out"]) == 0, "one that was killed while it wrote leaves a journal"
    assert files(folder / "out") == ["events.jsonl", "image.png", "report.html", "run.json", "text.txt"]


def test_a_run_that_failed_says_that_the_outputs_are_of_another_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note = "note: the outputs in out are of an earlier run\n"
    bad = [*RUN, "out", "-i", "text=bad"]
    assert graphflow(bad) == 1
    assert note not in capsys.readouterr().err, "there are none"
    assert graphflow([*RUN, "out"]) == 0
    assert note not in capsys.readouterr().err
    for _ in range(2):
        assert graphflow(bad) == 1
        assert capsys.readouterr().err.count(note) == 1
    assert graphflow([*bad, "--keep-going"]) == 1
    assert note not in capsys.readouterr().err, "it has written its own"
    (folder / "out/image.png").unlink()
    (folder / "out/notes.txt").write_text("mine")
    assert graphflow(bad) == 1
    assert note not in capsys.readouterr().err


def test_what_a_run_does_not_write_any_more_goes(folder: Path) -> None:
    mapped = ["run", "g.yaml", "-q", "--out", "out", "--map"]
    assert graphflow([*mapped, "image=photos"]) == 0
    for name in ("image-077.png", "notes.txt"):
        (folder / "out" / name).write_text("mine")
    assert graphflow([*mapped, "image=photos/0.png", "--map", "text=[a]"]) == 2, "image-077.png is the user's"
    (folder / "out/image-077.png").unlink()
    assert graphflow([*mapped, "image=photos/0.png", "--map", "text=[a]"]) == 0
    usual = ["events.jsonl", "notes.txt", "report.html", "run.json"]
    assert files(folder / "out") == sorted([*usual, "elements.csv", "image-000.png", "text.json"])
    assert graphflow([*mapped, "image=photos", "--until", "each/negative"]) == 0
    assert files(folder / "out") == sorted(
        [*usual, "elements.csv", *(f"each/negative.image-00{i}.png" for i in range(3))]
    )
    assert graphflow([*RUN, "out"]) == 0
    assert files(folder / "out") == sorted([*usual, "image.png", "text.txt"])
    assert not (folder / "out/each").exists()


def test_an_input_or_a_graph_in_the_out_folder_is_no_stale_file(folder: Path) -> None:
    graphflow([*RUN, "out"])
    until = ["--until", "join", "-q", "--out", "out"]
    assert graphflow(["run", "g.yaml", "-i", "image=out/image.png", *until]) == 0
    assert (folder / "out/image.png").is_file()
    assert not (folder / "out/text.txt").exists()
    assert graphflow(["run", "out/image.png", *until]) == 0
    assert (folder / "out/image.png").is_file()
    assert graphflow([*RUN, "out"]) == 0, "it is graphflow's all the same"


def test_a_record_can_not_have_other_files_removed(folder: Path) -> None:
    graphflow([*RUN, "out"])
    (folder / "out/link.png").symlink_to(folder / "photos/2.png")
    (folder / "out/thesis.odt").write_text("mine")
    made = record(folder / "out")
    made["written"] += ["../photos/1.png", str(folder / "photos/2.png"), "link.png", "thesis.odt", "nothing.png"]
    (folder / "out/run.json").write_text(json.dumps(made))
    before = contents(folder / "photos")
    assert graphflow([*RUN, "out"]) == 0
    assert contents(folder / "photos") == before
    assert {"link.png", "thesis.odt"} <= set(files(folder / "out"))


def test_a_shorter_sweep_leaves_nothing_of_a_longer_one(folder: Path) -> None:
    sweep = ["run", "g.yaml", *IMAGE, "-q", "--out", "out", "--sweep"]
    assert graphflow([*sweep, "times=1,2,3,4"]) == 0
    (folder / "out/004/notes.txt").write_text("mine")
    (folder / "out/2024").mkdir()
    assert graphflow([*sweep, "text=a,b", "--until", "join"]) == 0
    found = {name.partition("/")[0] for name in files(folder / "out")}
    assert found == {"001", "002", "004", "sweep.csv"}, "no sheet without pictures"
    assert files(folder / "out/004") == ["notes.txt"]
    assert files(folder / "out/001") == ["events.jsonl", "join.text.txt", "report.html", "run.json"]


def test_a_sweep_removes_no_run_that_is_none_of_its_own(folder: Path) -> None:
    for name in ("001", "003", "2024"):
        assert graphflow([*RUN, f"out/{name}"]) == 0
    sweep = ["run", "g.yaml", *IMAGE, "-q", "--out", "out", "--sweep"]
    for values in ("times=1,2", "times=1"):
        assert graphflow([*sweep, values]) == 0
        assert (folder / "out/003/image.png").is_file()
        assert (folder / "out/2024/image.png").is_file()
    assert not (folder / "out/002").exists(), "it was the first sweep's"
