"""A folder of one's own pictures with a table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_datasets as tiny

from graphflow.nodes.lib.datasets.table import read


def test_csv_with_every_column(tmp_path: Path) -> None:
    first, *_, last = rows = read(tiny.own_table(tmp_path))
    assert len(rows) == 3
    assert first["name"] == "pictures/a.png"
    assert first["instruction"] == "make it, please, green"
    assert last["target"].load().tobytes() == tiny.colour(0).tobytes()
    assert last["mask"].load().getextrema() == (255, 255)
    assert last["edit_type"] == "style"


def test_columns_that_are_not_there_are_not_made_up(tmp_path: Path) -> None:
    (row,) = read(tiny.own_table(tmp_path, "source\npictures/a.png\n"))
    assert set(row) == {"name", "source"}


def test_json_lines_and_excels_csv_and_tabs(tmp_path: Path) -> None:
    line = {"file_name": "pictures/a.png", "name": "x", "instruction": "a line\u2028of two"}
    tiny.own_table(tmp_path / "a", json.dumps(line, ensure_ascii=False) + "\n\n", "metadata.jsonl")
    tiny.own_table(tmp_path / "b", "\ufeffsource,name\r\npictures/a.png,x\r\n")
    tiny.own_table(tmp_path / "c", "source\tname\npictures/a.png\tx\n", "edits.tsv")
    for folder in "abc":
        (row,) = read(tmp_path / folder)
        assert (row["name"], row["source"].where) == ("x", "pictures/a.png"), folder


def test_other_columns_are_passed_over_but_slips_are_not(tmp_path: Path) -> None:
    said: list[str] = []
    read(tiny.own_table(tmp_path / "a", "source,licence\npictures/a.png,mine\n"), log=said.append)
    assert said == ["edits.csv: columns passed over: licence"]
    with pytest.raises(ValueError, match=r"edits.csv: unknown column 'instructon'; did you mean 'instruction'\?"):
        read(tiny.own_table(tmp_path / "b", "source,instructon\npictures/a.png,x\n"))


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("image\nx.png\n", r"edits.csv: has no column 'source'; it has: image"),
        ("source,target\npictures/a.png,\n", r"edits.csv:2: 'target' is empty, expected text"),
        ("source\npictures/a.png\n../x.png\n", r"edits.csv:3: '../x.png' lies outside the folder"),
        ("source,name\npictures/a.png\n", r"edits.csv:2: has 1 cells, expected 2"),
        ("source\npictures/a.png,b\n", r"edits.csv:2: has 2 cells, expected 1"),
        ("source,file_name\na,b\n", r"edits.csv:2: has two columns 'source'"),
        ("source\npictures/d.png\n", r"edits.csv:2: there is no file 'pictures/d.png'"),
        ('source\n"pictures/a.png\n', r"edits.csv: is no CSV"),
        ("source\n", r"edits.csv: holds no rows"),
    ],
)
def test_a_broken_table_says_the_line(tmp_path: Path, table: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read(tiny.own_table(tmp_path, table))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"source": 1}', r"edits.jsonl:2: 'source' is 1, expected text"),
        ('{"instruction": "x"}', r"edits.jsonl:1: 'instruction' is nothing, expected text"),
        ('["x"]', r"edits.jsonl:2: holds '\[\"x\"\]', expected a map"),
        ("{", r"edits.jsonl:2: is no JSON"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read(tiny.own_table(tmp_path, '{"source": "pictures/a.png"}\n' + line, "edits.jsonl"))


def test_which_table_must_be_clear(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected one table \(.csv, .tsv or .jsonl\); found: nothing"):
        read(tmp_path)
    tiny.own_table(tmp_path)
    tiny.own_table(tmp_path, name="more.csv")
    with pytest.raises(ValueError, match=r"found edits.csv, more.csv: name one with 'index'"):
        read(tmp_path)
    assert len(read(tmp_path, "more.csv")) == 3
