"""The tables of the index. Raise `LAYOUT` with every change: an index of an older layout is set aside."""

from __future__ import annotations

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
    input INTEGER NOT NULL, inline BLOB
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
FIRST_ROWS = f"INSERT INTO meta VALUES ('layout', {LAYOUT}), ('bytes', 0), ('clock', 0.0)"


def expected_schema() -> list[tuple[str]]:
    """The statements as SQLite keeps them, by name of table, index or trigger."""
    return [(sql,) for sql in sorted(SCHEMA, key=lambda sql: sql.split()[2])]
