"""Leases: one process, and one thread in it, computes a key; the others wait and find the result."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from graphflow.errors import Cancelled, StoreError
from graphflow.store.owners import lives
from graphflow.store.records import COLUMNS, Result, result_of
from graphflow.store.results import Results

FIRST_WAIT, LONGEST_WAIT = 0.02, 0.25
_TAKE = """INSERT INTO leases SELECT ?1, ?2
WHERE NOT EXISTS (SELECT 1 FROM results WHERE key = ?1 AND created > ?3) ON CONFLICT DO NOTHING"""
_HOLDER = """SELECT l.owner, o.host, o.pid, o.started, o.beat FROM leases l LEFT JOIN owners o ON o.id = l.owner
WHERE l.key = ?"""


class Lease:
    """What came of asking for a key: the right to compute it (`held`), or the `result` that another has recorded."""

    __slots__ = ("_store", "held", "key", "result", "taken_over")

    def __init__(self, store: Leases, key: str, result: Result | None = None, taken_over: bool = False) -> None:
        self._store, self.key, self.result = store, key, result
        self.held = result is None
        self.taken_over = taken_over

    def release(self) -> None:
        """Give the right back, unless `Store.record` has done so."""
        if self.held:
            self.held = False
            self._store.release(self.key)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


class Leases(Results):
    """The leases of a store, and the runs that live."""

    def lease(
        self,
        key: str,
        cancelled: threading.Event | None = None,
        since: float = 0.0,
        waiting: Callable[[str], None] | None = None,
    ) -> Lease:
        """Wait for the right to compute a key, or for its result.

        Args:
            key: what is to be computed.
            cancelled: ends the wait.
            since: results recorded at this time or before don't count; for computing again what was lost.
            waiting: called once with who computes it, when there is something to wait for.

        Raises:
            Cancelled: `cancelled` was set.
            StoreError: the index can't be written.
        """
        wait = FIRST_WAIT
        event = cancelled or threading.Event()
        while isinstance(found := self.ask(key, since), str):
            if waiting is not None:
                waiting(found)
                waiting = None
            if event.wait(wait):
                raise Cancelled
            wait = min(1.5 * wait, LONGEST_WAIT)
        return found

    def try_lease(self, key: str, since: float = 0.0) -> Lease | None:
        """The same without waiting: None while another computes the key.

        Raises:
            StoreError: the index can't be written.
        """
        found = self.ask(key, since)
        return None if isinstance(found, str) else found

    def release(self, key: str) -> None:
        """Give back the right to compute a key. A lease that another has taken over stays with the other.

        Raises:
            StoreError: the index can't be written.
        """
        if key in self.held:
            try:
                self.index.statement(
                    "ending a lease", "DELETE FROM leases WHERE key = ? AND owner = ?", (key, self.owner.id)
                )
            except StoreError:
                self.held.discard(key)
                raise
            self.held.discard(key)  # interrupted above, the lease is still held and can be released again

    def begin_run(self) -> str:
        """Announce a run: until `end_run`, or the end of this process, nothing that was used since is collected.

        Raises:
            StoreError: the index can't be written.
        """
        self.owner.register()
        run = os.urandom(8).hex()
        self.index.statement("beginning a run", "INSERT INTO runs VALUES (?, ?, ?)", (run, self.owner.id, time.time()))
        return run

    def end_run(self, run: str) -> None:
        """End a run.

        Raises:
            StoreError: the index can't be written.
        """
        self.index.statement("ending a run", "DELETE FROM runs WHERE id = ?", (run,))

    def scratch(self) -> Path:
        """A new folder in tmp/ for a run's own files; what a killed run leaves there is removed by `collect`.

        Raises:
            StoreError: it can't be made.
        """
        path = self.new_temporary()
        try:
            path.mkdir()
        except OSError as error:
            raise self.index.error("making a folder", error) from error
        return path

    def ask(self, key: str, since: float = 0.0) -> Lease | str:
        """The same without waiting: who computes the key, if somebody else does.

        Raises:
            StoreError: the index can't be written.
        """
        self.owner.register()
        with self.asking:
            mine = key not in self.held
            if mine:
                self.held.add(key)
        if not mine:
            found = self._newer(key, since)
            return "another thread of this process" if found is None else Lease(self, key, found)
        held = False
        try:
            if self.index.statement("taking a lease", _TAKE, (key, self.owner.id, since)):
                held = True
                return Lease(self, key)
            answer = self.index.write("taking a lease", lambda db: self._contend(db, key, since))
            held = isinstance(answer, Lease) and answer.held
            return answer
        except BaseException as error:
            if not isinstance(error, Exception):  # interrupted, perhaps just when the row was written
                with suppress(StoreError):
                    self.release(key)
            raise
        finally:
            if not held:
                self.held.discard(key)

    def _contend(self, db: sqlite3.Connection, key: str, since: float) -> Lease | str:
        """In a transaction: the result that has appeared, or who holds the lease, or the lease of a dead owner."""
        row = db.execute(f"SELECT {COLUMNS} FROM results WHERE key = ?", (key,)).fetchone()
        found = None if row is None else result_of(row, self._parts)
        if found is not None and found.created > since:
            return Lease(self, key, found)
        holder = db.execute(_HOLDER, (key,)).fetchone()
        if holder is not None and holder[0] != self.owner.id and holder[1] is not None and lives(*holder[1:]):
            return f"process {holder[2]} on {str(holder[1]).partition(' ')[0]}"
        db.execute("INSERT OR REPLACE INTO leases VALUES (?, ?)", (key, self.owner.id))
        return Lease(self, key, taken_over=holder is not None)

    def _newer(self, key: str, since: float) -> Result | None:
        self.fetched.pop(key, None)
        found = self.result(key)
        return found if found is not None and found.created > since else None
