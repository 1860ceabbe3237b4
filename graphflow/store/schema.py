"""The tables of the index. Raise `LAYOUT` with every change: an index of an older layout is set aside."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from graphflow.errors import StoreError

LAYOUT = 2

SCHEMA = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
    # `mark` and `parts_mark` are checksums. `clock` is the clock of eviction when the result was last used.
    """CREATE TABLE results (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, body TEXT NOT NULL, mark BLOB NOT NULL, used REAL NOT NULL,
    evicted INTEGER NOT NULL, kind TEXT NOT NULL, graph TEXT NOT NULL, node TEXT NOT NULL, seconds REAL NOT NULL,
    bytes INTEGER NOT NULL, created REAL NOT NULL, parts TEXT NOT NULL, parts_mark BLOB NOT NULL, clock REAL NOT NULL
)""",
    "CREATE INDEX results_by_node ON results (kind, node)",
    "CREATE INDEX results_by_graph ON results (graph)",
    """CREATE TABLE blobs (
    digest TEXT PRIMARY KEY, codec TEXT NOT NULL, size INTEGER NOT NULL, hash TEXT NOT NULL, used REAL NOT NULL,
    input INTEGER NOT NULL, clock REAL NOT NULL, inline BLOB
) WITHOUT ROWID""",
    # The running total is that of the files; what stands in the index is counted by its pages.
    """CREATE TRIGGER blob_added AFTER INSERT ON blobs WHEN NEW.inline IS NULL BEGIN
    UPDATE meta SET value = value + NEW.size WHERE name = 'bytes';
END""",
    """CREATE TRIGGER blob_removed AFTER DELETE ON blobs WHEN OLD.inline IS NULL BEGIN
    UPDATE meta SET value = value - OLD.size WHERE name = 'bytes';
END""",
    """CREATE TABLE files (
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime INTEGER NOT NULL, digest TEXT NOT NULL, mark BLOB NOT NULL
) WITHOUT ROWID""",
    "CREATE TABLE pins (name TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (name, key)) WITHOUT ROWID",
    """CREATE TABLE owners (
    id TEXT PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL, started TEXT NOT NULL, beat REAL NOT NULL
) WITHOUT ROWID""",
    "CREATE TABLE leases (key TEXT PRIMARY KEY, owner TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE runs (id TEXT PRIMARY KEY, owner TEXT NOT NULL, began REAL NOT NULL) WITHOUT ROWID",
)
FIRST_ROWS = f"INSERT INTO meta VALUES ('layout', {LAYOUT}), ('bytes', 0), ('clock', 0.0), ('floor', 0)"


OTHER_TABLES = "its tables are not those of this layout"


class Damaged(Exception):
    """The index file is damaged, or was written by an older graphflow; `name` is what the file is set aside as."""

    def __init__(self, message: str, name: str = "damaged") -> None:
        self.name = name
        super().__init__(message)


def create(db: sqlite3.Connection) -> None:
    """In a transaction: make the tables of a new file."""
    if not db.execute("PRAGMA user_version").fetchone()[0] and not tables(db):
        for statement in (*SCHEMA, FIRST_ROWS):
            db.execute(statement)
        db.execute(f"PRAGMA user_version={LAYOUT}")


def inspect(db: sqlite3.Connection, folder: Path) -> None:
    """Look whether the file can be used.

    Raises:
        Damaged: it is damaged, or of an older layout.
        StoreError: it belongs to a newer graphflow.
    """
    layout = db.execute("PRAGMA user_version").fetchone()[0]
    if layout == LAYOUT:
        if tables(db) != expected_tables():
            raise Damaged(OTHER_TABLES)
        return
    if 0 < layout < LAYOUT:
        raise Damaged(f"it has layout {layout}, this graphflow writes {LAYOUT}", f"layout-{layout}")
    # A newer graphflow writes its layout twice; otherwise the number itself is damaged.
    written = db.execute("SELECT value FROM meta WHERE name = 'layout'").fetchone()
    if written is None or written[0] != layout:
        raise Damaged(f"it names the layout {layout}")
    raise StoreError(
        f"the store {folder} has layout {layout}; this graphflow reads {LAYOUT}. Update graphflow, or use another "
        "folder with --store"
    )


def tables(db: sqlite3.Connection) -> list[tuple[str]]:
    """The statements that made what is in the file, by name of table, index or trigger."""
    return db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name").fetchall()


def expected_tables() -> list[tuple[str]]:
    """What `tables` must find."""
    return [(sql,) for sql in sorted(SCHEMA, key=lambda sql: sql.split()[2])]
