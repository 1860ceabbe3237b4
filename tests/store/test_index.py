"""The index file: what is damaged, or of another layout, is set aside or refused; it never ends in a traceback."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from store_processes import running
from store_workers import record

from graphflow.errors import StoreError
from graphflow.store import Store, index
from graphflow.store.schema import LAYOUT

KEY = "a" * 40


def alter(store: Store, *statements: str) -> None:
    """Change the index of a closed store."""
    with closing(sqlite3.connect(store.folder / "index.sqlite", isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


def aside(folder: Path) -> list[str]:
    """The indexes that were set aside, without the time in their names."""
    names = [p.name for p in folder.glob("index.*-*.sqlite")]
    return [re.sub(r"\d{8}-\d{6}-\w+", "TIME", name) for name in names]


def test_a_store_of_a_newer_layout_is_refused(store: Store) -> None:
    store.close()
    alter(store, "PRAGMA user_version=99", "UPDATE meta SET value = 99 WHERE name = 'layout'")
    with pytest.raises(StoreError, match=f"has layout 99; this graphflow reads {LAYOUT}"):
        Store(store.folder)
    assert aside(store.folder) == []


def test_an_older_layout_is_set_aside(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "index.sqlite")) as db:
        db.execute("CREATE TABLE results (key TEXT PRIMARY KEY)")
        db.execute("PRAGMA user_version=1")
    store = Store(tmp_path)
    assert aside(tmp_path) == ["index.layout-1-TIME.sqlite"]
    assert "it has layout 1" in store.warnings[0]
    record(store, KEY, 1)
    assert Store(tmp_path).result(KEY) is not None


@pytest.mark.parametrize(
    "damage",
    [
        "PRAGMA user_version=77",
        "DROP TABLE results",
        "DROP INDEX results_by_node",
        "ALTER TABLE results RENAME COLUMN body TO bode",
        "CREATE TRIGGER more AFTER INSERT ON results BEGIN DELETE FROM results; END",
    ],
)
def test_an_index_with_other_tables_is_set_aside(store: Store, damage: str) -> None:
    record(store, KEY, 1)
    store.close()
    alter(store, damage)
    again = Store(store.folder)
    assert aside(store.folder) == ["index.damaged-TIME.sqlite"]
    assert len(again.warnings) == 1
    assert again.result(KEY) is None


@pytest.mark.parametrize("length", [0, 50, 3000, 9000])
def test_a_truncated_index_is_set_aside_or_empty(store: Store, length: int) -> None:
    record(store, KEY, 1)
    store.close()
    os.truncate(store.folder / "index.sqlite", length)
    again = Store(store.folder)
    assert again.result(KEY) is None
    record(again, KEY, 1)
    assert again.result(KEY) is not None
    assert aside(store.folder) == (["index.damaged-TIME.sqlite"] if length else [])


def test_damage_that_shows_in_use_is_set_aside_in_use(store: Store) -> None:
    for i in range(300):
        record(store, f"{i:040d}", {"n": i})
    store.close()
    path = store.folder / "index.sqlite"
    data = bytearray(path.read_bytes())
    data[4096:] = b"\x55" * (len(data) - 4096)
    path.write_bytes(data)
    again = Store(store.folder)
    assert again.warnings == []
    assert again.result(KEY) is None
    assert "set aside" in again.warnings[0]
    stored = record(again, KEY, 1).outputs["out"]
    assert again.load(stored) == 1
    assert list(again.verify()) == []


def test_verify_finds_damage(store: Store) -> None:
    for i in range(300):
        record(store, f"{i:040d}", {"n": i})
    store.close()
    path = store.folder / "index.sqlite"
    data = bytearray(path.read_bytes())
    data[-5000:-4000] = b"\x00" * 1000
    path.write_bytes(data)
    again = Store(store.folder)
    assert "the index was damaged" in next(iter(again.verify()))
    assert list(again.verify()) == []


def test_a_damaged_index_that_others_use_is_an_error_that_says_what_to_do(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "ALONE_SECONDS", 0.05)
    with running("hold", store.folder, KEY):
        with pytest.raises(StoreError, match=r"damaged \(by a test\), and other processes use it"):
            store.index.replace("by a test")
        assert aside(store.folder) == []
    again = Store(store.folder)
    again.index.replace("by a test")
    assert again.result(KEY) is None


def test_a_store_that_can_not_be_written_is_an_error(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="can't be opened"):
        Store(tmp_path / "file" / "store")
    store.index._writer.execute("PRAGMA query_only=ON")
    with pytest.raises(StoreError, match="recording a result failed: attempt to write a readonly database"):
        record(store, KEY, 1)
    assert aside(store.folder) == []


class Interrupted:
    """A connection that is interrupted once, when a transaction has just begun."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db, self.left = db, 1

    def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
        found = self.db.execute(sql, *values)
        if sql == "BEGIN IMMEDIATE" and self.left:
            self.left = 0
            raise KeyboardInterrupt
        return found

    def __getattr__(self, name: str) -> object:
        return getattr(self.db, name)


def test_an_interruption_leaves_no_transaction_open(store: Store) -> None:
    store.index._writer = Interrupted(store.index._writer)  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        record(store, KEY, 1)
    record(store, KEY, 1)
    with closing(Store(store.folder)) as other:
        other.index.hurry()
        record(other, "b" * 40, 2)
