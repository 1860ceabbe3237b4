"""The index: one SQLite file in WAL mode, used by many processes at once; what is damaged is set aside.

`synchronous=NORMAL` never breaks the file, but losing power may lose the last transactions. That is a miss, never a
wrong result: a row is committed only after the file that it names is synced. Work that took long is synced at once.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from graphflow.errors import StoreError
from graphflow.store.files import identity
from graphflow.store.schema import OTHER_TABLES, Damaged, create, expected_tables, inspect, tables

try:
    import fcntl
except ImportError:  # Windows refuses to rename a file that somebody has open, which protects as well
    fcntl = None  # type: ignore[assignment]

T = TypeVar("T")
# A message that quotes a damaged name makes Python fail to decode the message.
ERRORS = (sqlite3.Error, UnicodeDecodeError)
BUSY_SECONDS = 60
ALONE_SECONDS = 2.0
_NOT_DAMAGE = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_AUTH,
}  # fmt: skip


class Index:
    """Reads and writes of the index file. `warnings` tells what was set aside; `generation` counts how often.

    Raises:
        StoreError: the file can't be opened, or belongs to a newer graphflow.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "index.sqlite"
        self.warnings: list[str] = []
        self._read_lock, self._write_lock = threading.RLock(), threading.RLock()
        self.generation = 0
        self._guard: IO[bytes] | None = None
        self._opened: int | None = None
        try:
            self._open_or_replace()
        except (OSError, *ERRORS) as error:
            raise StoreError(f"the store {folder} can't be opened: {error}") from error

    def hurry(self) -> None:
        """From now on don't wait for other processes: writes fail while they write."""
        with suppress(*ERRORS), self._write_lock:
            self._writer.execute("PRAGMA busy_timeout=0")

    def close(self) -> None:
        """Close the file."""
        with self._write_lock, self._read_lock:
            self._disconnect()

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows of a query.

        Raises:
            StoreError: the index can't be read.
        """
        return self._attempt(lambda: self._fetch(sql, values), "reading the index")

    def row(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """The first row of a query, or None.

        Raises:
            StoreError: the index can't be read.
        """
        try:
            with self._read_lock:
                return self._reader.execute(sql, values).fetchone()
        except ERRORS:
            found = self.rows(sql, values)
            return found[0] if found else None

    def write(self, doing: str, work: Callable[[sqlite3.Connection], T], durable: bool = False) -> T:
        """Do something in one write transaction; all of it happens or nothing.

        Args:
            doing: what the message of an error says.
            work: called with the connection; called again when the index had to be replaced.
            durable: have it on the disk, not only in the operating system's memory, before this returns.

        Raises:
            StoreError: the index can't be written.
        """
        return self._attempt(lambda: self._transact(work, durable), doing)

    def statement(self, doing: str, sql: str, values: Sequence[Any] = ()) -> int:
        """One statement in a transaction of its own; returns how many rows it changed.

        Raises:
            StoreError: the index can't be written.
        """
        return self._attempt(lambda: self._execute(sql, values), doing)

    def many(self, doing: str, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """One statement with many rows of values, in one transaction.

        Raises:
            StoreError: the index can't be written.
        """
        values = list(rows)
        if values:
            self.write(doing, lambda db: db.executemany(sql, values))

    def error(self, doing: str, error: Exception) -> StoreError:
        """The error that tells the user what failed."""
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        full |= isinstance(error, sqlite3.Error) and _code(error) == sqlite3.SQLITE_FULL
        return StoreError(f"the store {self.folder}: {doing} failed: {'the disk is full' if full else error}")

    def check(self) -> list[str]:
        """What SQLite's own check finds wrong with the file; empty when it is whole."""
        try:
            with self._read_lock:
                found = [str(row[0]) for row in self._reader.execute("PRAGMA integrity_check(5)").fetchall()]
                known = tables(self._reader) == expected_tables()
        except ERRORS as error:
            return [str(error)]
        return ([] if found == ["ok"] else found) + ([] if known else [OTHER_TABLES])

    def replace(self, reason: str) -> None:
        """Set the file aside and begin an empty one.

        Raises:
            StoreError: another process uses it.
        """
        with self._write_lock, self._read_lock:
            self._set_aside(Damaged(reason))

    # --- connections --------------------------------------------------------------------------------------------

    def _attempt(self, work: Callable[[], T], doing: str) -> T:
        generation = self.generation
        try:
            return work()
        except ERRORS as error:
            self._recover(error, doing, generation)
        except OSError as error:
            raise self.error(doing, error) from error
        try:
            return work()  # on the new index
        except (OSError, *ERRORS) as error:
            raise self.error(doing, error) from error

    def _fetch(self, sql: str, values: Sequence[Any]) -> list[Any]:
        with self._read_lock:
            try:
                return self._reader.execute(sql, values).fetchall()
            except sqlite3.OperationalError as error:
                if "decode to UTF-8" not in str(error):
                    raise
                return self._lenient(sql, values)

    def _execute(self, sql: str, values: Sequence[Any]) -> int:
        with self._write_lock:
            return self._writer.execute(sql, values).rowcount

    def _transact(self, work: Callable[[sqlite3.Connection], T], durable: bool = False) -> T:
        with self._write_lock:
            db = self._writer
            try:
                if durable:
                    db.execute("PRAGMA synchronous=FULL")
                db.execute("BEGIN IMMEDIATE")  # inside: an interruption may come when it has just begun
                found = work(db)
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                if durable:
                    db.execute("PRAGMA synchronous=NORMAL")
            return found

    def _open_or_replace(self) -> None:
        try:
            self._open()
        except Damaged as damage:
            self._set_aside(damage)
        except ERRORS as error:
            # SQLite also calls a file read-only whose header names a format that it does not know.
            readable_only = not all(os.access(path, os.W_OK) for path in (self.path, self.folder))
            if _code(error) in _NOT_DAMAGE and (readable_only or _code(error) != sqlite3.SQLITE_READONLY):
                raise
            self._set_aside(Damaged(str(error)))

    def _open(self) -> None:
        self._share()
        self._opened = identity(self.path)
        try:
            self._writer = connect(self.path)
            self._writer.execute("PRAGMA journal_mode=WAL")
            self._transact(create)
            inspect(self._writer, self.folder)
            self._opened = identity(self.path)
            self._reader = connect(self.path)
        except BaseException:
            self._disconnect()
            raise

    def _share(self) -> None:
        """Hold a shared lock while the index is open, so that nobody moves the file from under our feet."""
        if fcntl is not None:
            self._guard = (self.folder / "index.lock").open("ab")
            fcntl.flock(self._guard, fcntl.LOCK_SH)

    def _disconnect(self) -> None:
        for name in ("_reader", "_writer"):
            if name in self.__dict__:
                self.__dict__[name].close()
        if self._guard is not None:
            self._guard.close()
            self._guard = None

    # --- damage -------------------------------------------------------------------------------------------------

    def _recover(self, error: Exception, doing: str, generation: int) -> None:
        """Replace a damaged index; every other error is the user's to know."""
        code = _code(error)
        if isinstance(error, sqlite3.ProgrammingError) or code in _NOT_DAMAGE:
            raise self.error(doing, error) from error
        with self._write_lock, self._read_lock:
            if generation != self.generation:
                return  # another thread has replaced it
            if code not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) and not self.check():
                raise self.error(doing, error) from error
            self._set_aside(Damaged(str(error)))

    def _set_aside(self, damage: Damaged) -> None:
        """Rename the index and begin an empty one. The blobs stay: what is computed again finds them in place."""
        self._disconnect()
        with (self.folder / "index.lock").open("ab") as guard:
            if self._alone(guard, damage):
                self._rename(damage)
                self._opened = None
        self.generation += 1
        self._open()

    def _alone(self, guard: IO[bytes], damage: Damaged) -> bool:
        """Wait until nobody has the file open; False when another process has replaced it meanwhile."""
        deadline = time.monotonic() + ALONE_SECONDS
        while identity(self.path) == self._opened:
            try:
                if fcntl is not None:
                    fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return identity(self.path) == self._opened
            except OSError:
                if time.monotonic() > deadline:
                    raise StoreError(
                        f"the index of the store {self.folder} is damaged ({damage}), and other processes use it: "
                        "when they have ended, the next command sets it aside and begins an empty one"
                    ) from None
                time.sleep(0.02)
        return False

    def _rename(self, damage: Damaged) -> None:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        target = self.folder / f"index.{damage.name}-{stamp}-{os.urandom(2).hex()}.sqlite"
        try:
            for suffix in ("", "-wal", "-shm"):
                source = self.path.with_name(self.path.name + suffix)
                if source.exists():
                    os.replace(source, target.with_name(target.name + suffix))
        except OSError as error:
            raise StoreError(f"the damaged index {self.path} can't be set aside: {error}") from error
        self.warnings.append(
            f"the index of the store was set aside as {target.name}: {damage}. Results are computed again"
        )

    def _lenient(self, sql: str, values: Sequence[Any]) -> list[Any]:
        """Rows with text that is no UTF-8: rot, which the checksums find."""
        with self._read_lock:
            self._reader.text_factory = lambda data: data.decode(errors="replace")
            try:
                return self._reader.execute(sql, values).fetchall()
            finally:
                self._reader.text_factory = str


def connect(path: Path) -> sqlite3.Connection:
    """A connection without transactions of its own making."""
    db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA synchronous=NORMAL")
    db.execute("PRAGMA trusted_schema=OFF")
    return db


def _code(error: Exception) -> int:
    """SQLite's primary result code; 0 for what Python itself has found."""
    if isinstance(error, UnicodeDecodeError):
        return sqlite3.SQLITE_CORRUPT
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
