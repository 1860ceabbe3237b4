"""What was measured on this machine and helps to plan: loading times, peak memory. Nothing depends on it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

FILE = "measures.sqlite"
_TABLE = "CREATE TABLE IF NOT EXISTS measures (what TEXT PRIMARY KEY, numbers TEXT NOT NULL) WITHOUT ROWID"

Numbers = dict[str, float]


class Measures:
    """Numbers by what they measure, read at once and written at the end of a run.

    Args:
        folder: the store's.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._found: dict[str, Numbers] | None = None
        self._new: dict[str, Numbers] = {}

    def get(self, what: str) -> Numbers:
        """The numbers; empty when nothing was measured."""
        if self._found is None:
            self._found = self._read()
        return self._found.get(what, {})

    def note(self, what: str, numbers: Numbers) -> None:
        """Remember numbers, in place of older ones."""
        self.get(what)
        assert self._found is not None
        self._found[what] = self._new[what] = numbers

    def save(self) -> None:
        """Write what is new. A file that can't be written stays as it is, one that is no database is made anew."""
        rows = [(what, json.dumps(numbers)) for what, numbers in self._new.items()]
        if not rows:
            return
        with suppress(OSError, sqlite3.Error):
            try:
                self._write(rows)
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):  # locked, or on a disk that is full or read-only
                    raise
                self._path.unlink(missing_ok=True)
                self._write(rows)
        self._new.clear()

    def _write(self, rows: list[tuple[str, str]]) -> None:
        with self._opened() as db:
            db.execute(_TABLE)
            db.executemany("INSERT OR REPLACE INTO measures VALUES (?, ?)", rows)

    def _read(self) -> dict[str, Numbers]:
        if not self._path.is_file():
            return {}
        try:
            with self._opened() as db:
                rows = db.execute("SELECT what, numbers FROM measures").fetchall()
            return {str(what): _numbers(text) for what, text in rows}
        except (sqlite3.Error, ValueError):
            return {}

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=5)) as db, db:
            yield db


def note_load(measures: Measures, model: str, seconds: float) -> None:
    """Remember how long a model took from disk to host memory; the first load of a process imports libraries, too."""
    least = min(seconds, load_seconds(measures, model) or seconds)
    measures.note(f"load {model}", {"seconds": least})


def load_seconds(measures: Measures, model: str) -> float | None:
    """How long a model takes from disk to host memory, if that was measured."""
    return measures.get(f"load {model}").get("seconds")


def _numbers(text: str) -> Numbers:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("no mapping")
    return {str(name): float(number) for name, number in found.items()}
