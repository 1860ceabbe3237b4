"""Parquet shards: complete, checked, and read forward a few rows at a time."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tiny_datasets as tiny

pytest.importorskip("pyarrow")

from graphflow.nodes.lib.datasets import parquet
from graphflow.nodes.lib.datasets.parquet import Table, find_shards


def numbered(folder: Path, count: int = 50, shards: int = 3, group: int = 7) -> Table:
    rows = [{"n": n, "image": tiny.cell(tiny.colour(n))} for n in range(count)]
    tiny.parquet(folder, "dev", rows, shards, group)
    return Table(find_shards(folder, "dev"), ("n", "image"))


def test_rows_and_pictures_agree_in_any_order(tmp_path: Path) -> None:
    table = numbered(tmp_path)
    assert [values["n"] for _, _, values in table.rows(["n"])] == list(range(50))
    where = {number: where for number, where, _ in table.rows(["n"])}
    assert where[20] == "dev-00001-of-00003-0123456789abcdef.parquet: row 3"
    for number in (*range(50), 49, 0, 30, 29, 16, 17, 33, 34):
        image = table.picture(number, "image", where[number])
        assert image.load().getpixel((0, 0)) == tiny.colour(number).getpixel((0, 0)), number
        assert image.size == tiny.SIZE


def test_reading_in_order_reads_each_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = numbered(tmp_path)
    started = []
    cursor = Table._cursor
    monkeypatch.setattr(Table, "_cursor", lambda self, *place: started.append(place) or cursor(self, *place))
    for number in range(50):
        table.cell(number, "image")
        table.cell(number, "image")
    groups = 3 + 3 + 3  # three files of 17, 17 and 16 rows in groups of 7
    assert len(started) == groups
    assert max(len(c._values) for c in table._cursors.values()) <= parquet.BATCH


def test_threads_may_share_a_table(tmp_path: Path) -> None:
    table = numbered(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: table.picture(n, "image", "").load().getpixel((0, 0)), list(range(50)) * 3))
    assert found == [tiny.colour(n).getpixel((0, 0)) for n in range(50)] * 3


def test_a_missing_shard_or_split_is_named(tmp_path: Path) -> None:
    numbered(tmp_path)
    (tmp_path / "data" / "dev-00001-of-00003-0123456789abcdef.parquet").unlink()
    with pytest.raises(ValueError, match=r"1 of the 3 files of the split 'dev' are missing: 00001"):
        find_shards(tmp_path, "dev")
    with pytest.raises(ValueError, match=r"has no file 'test-00000-of-….parquet'.* found: data, dev-00000-of"):
        find_shards(tmp_path, "test")


def test_the_folder_data_itself_may_be_named(tmp_path: Path) -> None:
    numbered(tmp_path)
    assert len(find_shards(tmp_path / "data", "dev")) == 3


def test_wrong_files_and_columns_are_refused(tmp_path: Path) -> None:
    numbered(tmp_path, shards=1)
    shards = find_shards(tmp_path, "dev")
    with pytest.raises(ValueError, match=r"has no column 'imagee'; it has: image, n; did you mean 'image'\?"):
        Table(shards, ["imagee"])
    shards[0].write_text("no parquet")
    with pytest.raises(ValueError, match=r"parquet: is no Parquet file that pyarrow can read"):
        Table(shards, ["image"])


def test_pictures_must_be_embedded(tmp_path: Path) -> None:
    tiny.parquet(tmp_path, "dev", [{"image": {"bytes": None, "path": "a.png"}}, {"image": {"bytes": b"x", "path": ""}}])
    table = Table(find_shards(tmp_path, "dev"), ["image"])
    with pytest.raises(ValueError, match=r"row 0, 'image': holds only the path 'a.png', expected the bytes"):
        table.picture(0, "image", "row 0").load()
    with pytest.raises(ValueError, match=r"row 1, 'image': is no picture"):
        table.picture(1, "image", "row 1").load()


def test_without_pyarrow_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbered(tmp_path, shards=1)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"needs pyarrow: pip install 'graphflow-diffusion\[datasets\]'"):
        Table(find_shards(tmp_path, "dev"), ["image"])
