"""Inputs of type Folder: what counts is what can be seen in it; a record names it but does not know where it lies."""

from __future__ import annotations

import os
from pathlib import Path

import PIL.Image
import pytest
import samples

from graphflow.cli import run as graphflow
from graphflow.errors import InvalidError, MissingError
from graphflow.inputs import InputValue, bind
from graphflow.node import Context, Node, Ports
from graphflow.ports import Folder, Image, Text
from graphflow.spec import GraphSpec, parse_spec
from graphflow.store import Store

GRAPH = """graphflow: 1
inputs:
  data: {type: Folder}
nodes:
  read: {uses: folders.listing, in: {data: inputs.data}}
  shout: {uses: sample.shout, in: {text: read.text}}
outputs: {text: shout.text, image: read.image}
"""


class Listing(Node, kind="folders.listing"):
    """The names of the files, and a picture that can carry a record."""

    class In(Ports):
        data: Folder

    class Out(Ports):
        text: Text
        image: Image

    def run(self, x: In, ctx: Context) -> Out:
        samples.RUNS["listing"] += 1
        names = sorted(p.name for p in x.data.rglob("*") if p.is_file() and not p.name.startswith("."))
        return self.Out(text=",".join(names), image=PIL.Image.new("RGB", (2, 2)))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "deep/b.txt").write_text("b")
    return folder


@pytest.fixture
def here(data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(data.parent)
    (data.parent / "g.yaml").write_text(GRAPH)
    return data.parent


def spec(line: str = "{type: Folder}", folder: Path | None = None) -> GraphSpec:
    return parse_spec(GRAPH.replace("{type: Folder}", line), "g.yaml", folder)


def digest(data: Path, store: Store) -> str:
    return bound(data, store).stored.digest


def bound(data: object, store: Store) -> InputValue:
    return bind(spec().inputs, {"data": data}, store)["data"]


def test_the_folder_itself_reaches_the_node_and_its_name_the_record(data: Path, store: Store) -> None:
    found = bound(str(data), store)
    assert found.load() == data
    assert found.record().model_dump() == {
        "type": "Folder", "digest": found.stored.digest, "items": None, "value": None, "source": "data",
        "default": False,
    }  # fmt: skip


@pytest.mark.parametrize("change", ["content", "new", "renamed", "removed", "moved"])
def test_every_visible_change_counts(data: Path, store: Store, change: str) -> None:
    before = digest(data, store)
    match change:
        case "content":
            (data / "deep/b.txt").write_text("B")
        case "new":
            (data / "c.txt").write_text("")
        case "renamed":
            (data / "a.txt").rename(data / "c.txt")
        case "removed":
            (data / "a.txt").unlink()
        case "moved":
            (data / "a.txt").rename(data / "deep/a.txt")
    assert digest(data, store) != before


def test_hidden_files_dates_and_the_folders_place_do_not_count(data: Path, store: Store, tmp_path: Path) -> None:
    before = digest(data, store)
    (data / ".cache").mkdir()
    (data / ".cache/download.lock").write_text("x")
    (data / "deep/.DS_Store").write_text("x")
    (data / "empty").mkdir()
    os.utime(data / "a.txt", (1, 1))
    assert digest(data, store) == before
    data.rename(tmp_path / "elsewhere")
    assert digest(tmp_path / "elsewhere", store) == before
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "elsewhere").rename(tmp_path / ".hidden/data")
    assert digest(tmp_path / ".hidden/data", store) == before, "the folder itself may stand in a hidden one"


def test_a_link_out_of_the_folder_is_refused_and_one_inside_counts(data: Path, store: Store, tmp_path: Path) -> None:
    (data / "inside.txt").symlink_to(data / "a.txt")
    before = digest(data, store)
    (data / "a.txt").write_text("other")
    assert digest(data, store) != before
    (tmp_path / "secret.txt").write_text("s")
    (data / "out.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(InvalidError, match=r"has a link that leads out of the folder: .*out.txt"):
        digest(data, store)


def test_what_is_no_folder_is_refused(data: Path, store: Store) -> None:
    with pytest.raises(MissingError, match=r"input 'data': .*nothing does not exist"):
        bound(data / "nothing", store)
    with pytest.raises(InvalidError, match=r"-i data:1:1: GF130 input 'data' \(Folder\) is no folder: .*a.txt"):
        bound(data / "a.txt", store)
    with pytest.raises(InvalidError, match="is 3, expected the name of a folder"):
        bound(3, store)


def test_a_default_stands_beside_the_graph_and_can_not_leave_its_folder(data: Path, store: Store) -> None:
    inputs = spec("{type: Folder, default: data}", data.parent).inputs
    assert bind(inputs, {}, store)["data"].load() == data
    with pytest.raises(InvalidError, match="has a default outside the graph's folder: ../x"):
        bind(spec("{type: Folder, default: ../x}", data).inputs, {}, store)
    with pytest.raises(InvalidError, match="give it with -i"):
        bind(spec("{type: Folder, default: data}").inputs, {}, store)


def test_a_changed_file_runs_the_node_again_and_early_cut_off_still_works(here: Path) -> None:
    run = ["run", "g.yaml", "-i", "data=data", "--out", "out", "-q"]
    assert graphflow(run) == 0
    assert (here / "out/text.txt").read_text() == "A.TXT,B.TXT!\n"
    samples.RUNS.clear()
    assert graphflow(run) == 0
    assert not samples.RUNS
    (here / "data/a.txt").write_text("changed")
    assert graphflow(run) == 0
    assert dict(samples.RUNS) == {"listing": 1}


@pytest.mark.parametrize("made", ["out", "out/image.png"])
def test_a_rerun_from_provenance_asks_for_the_folder(here: Path, capsys: pytest.CaptureFixture[str], made: str) -> None:
    graphflow(["run", "g.yaml", "-i", "data=data", "--out", "out", "-q"])
    again = ["run", made if made.endswith(".png") else f"{made}/run.json", "--out", "again", "-q"]
    assert graphflow(again) == 3
    found = capsys.readouterr().err
    assert "input 'data' (Folder) is not given and has no default" in found
    assert not (here / "again").exists()
    samples.RUNS.clear()
    assert graphflow([*again, "-i", "data=data"]) == 0
    assert not samples.RUNS
    assert str(here) not in (here / "again/run.json").read_text()
