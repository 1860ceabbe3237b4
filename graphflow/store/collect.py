"""Collecting: removing what nobody needs, and what exceeds the budget, beside live runs.

`evict.choose` decides on a snapshot. Each removal happens in a write transaction that looks again: what was used,
recorded or pinned since the snapshot stays. Files leave their place inside the transaction, so that a process that puts
the same value at that moment puts it after the removal, never before.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from graphflow.store.budget import default_budget
from graphflow.store.evict import Doomed, Entry, Held, Snapshot, choose
from graphflow.store.files import file_size, remove
from graphflow.store.leftovers import BLOBS, RUNS, Leftovers, batches, forget_dead, live_since

LOW_WATER = 0.9  # a store over its budget is brought below this share of it, so that not every run has to collect
_LEASE = "collect"
_RESULTS = """SELECT id, key, seconds, used, clock, body FROM results WHERE typeof(key) = 'text'
AND typeof(seconds) = 'real' AND typeof(used) = 'real' AND typeof(clock) = 'real'"""


@dataclass
class Collected:
    """What was removed, or would be.

    Attributes:
        results: keys of results that were removed altogether.
        evicted: keys of results that lost values.
        blobs: number of values removed.
        leftovers: files of dead processes, checkpoints that nobody goes on with, and old damaged indexes.
        freed: bytes of all that.
        left: bytes that the store has now.
        busy: another process was collecting; nothing was done.
    """

    results: list[str] = field(default_factory=list)
    evicted: list[str] = field(default_factory=list)
    blobs: int = 0
    leftovers: list[str] = field(default_factory=list)
    freed: int = 0
    left: int = 0
    busy: bool = False


class Collecting(Leftovers):
    """The collection of a store."""

    def collect(
        self, budget_bytes: int | None = None, max_age: float | None = None, dry_run: bool = False
    ) -> Collected:
        """Remove what nobody needs, results unused for `max_age` seconds, and what exceeds a budget.

        Raises:
            StoreError: the index can't be written.
        """
        lease = self.try_lease(_LEASE)
        if lease is None:
            return Collected(left=self.total_bytes(), busy=True)
        with lease:
            done = Collected()
            try:
                self._sweep(dry_run, done)
                self._reduce(budget_bytes, max_age, dry_run, done)
            except OSError as error:
                raise self.index.error("collecting", error) from error
            return done

    def collect_if_over_budget(self, budget_bytes: int | None = None) -> Collected | None:
        """Bring the store below its budget; None, at the price of a few queries, when it keeps within it.

        Raises:
            StoreError: the index can't be written.
        """
        budget = default_budget(self.folder) if budget_bytes is None else budget_bytes
        if self.total_bytes() <= max(budget, 1.1 * self._floor()):
            return None
        return self.collect(int(LOW_WATER * budget))

    def _floor(self) -> float:
        """What is pinned or in use can't go: it is not tried again before there is a tenth more, or runs have ended."""
        floor, in_use = self.meta("floor"), self.meta("floor_in_use")
        return 0.0 if in_use and live_since(self.index.rows(RUNS)) == math.inf else floor

    def _sweep(self, dry_run: bool, done: Collected) -> None:
        """Remove what dead processes left."""
        if not dry_run:
            self.index.write("forgetting dead processes", forget_dead)
            self.forget_lost()
        for path, now_at in [*((p, p) for p in self.leftovers()), *self.strays(dry_run)]:
            done.leftovers.append(path.relative_to(self.folder).as_posix())
            done.freed += max(file_size(now_at), 0)
            if not dry_run:
                remove(now_at)

    def _reduce(self, budget: int | None, max_age: float | None, dry_run: bool, done: Collected) -> None:
        """Remove results and values."""
        version = self.index.write("collecting", self.version)
        held = self._snapshot()
        doomed = choose(held, budget, max_age)
        if dry_run:
            done.results = [e.key for e in doomed.results]
            gone = doomed.blobs
        else:
            removal = _Removal(self, held, version)
            done.results = removal.results(doomed.results)
            gone = removal.blobs(doomed.blobs)
        evicted = [e for e in doomed.evicted if any(d in gone for d in e.digests)]
        done.evicted, done.blobs = [e.key for e in evicted], len(gone)
        done.freed += sum(blob.size for blob in gone.values())
        if dry_run:
            done.left = held.index_bytes + held.file_bytes - Doomed(blobs=gone).file_bytes
            return
        self.index.many("collecting", "UPDATE results SET evicted = 1 WHERE id = ?", [(e.id,) for e in evicted])
        self._settle(doomed.clock, budget)
        self.fetched.clear()
        done.left = self.total_bytes()

    def version(self, db: sqlite3.Connection) -> tuple[int, int]:
        """Changes when another process, or another thread of this one, has used the store."""
        return int(db.execute("PRAGMA data_version").fetchone()[0]), self.uses

    def _snapshot(self) -> Snapshot:
        results = [
            Entry(number, key, seconds, used, clock, _digests(body))
            for number, key, seconds, used, clock, body in self.index.rows(_RESULTS)
        ]
        blobs = {
            digest: Held(codec, size, used, bool(is_input), bool(in_index), clock)
            for digest, codec, size, used, is_input, in_index, clock in self.index.rows(BLOBS)
        }
        pinned = frozenset(key for keys in self.pins().values() for key in keys)
        cutoff = live_since(self.index.rows(RUNS))
        return Snapshot(time.time(), results, blobs, pinned, cutoff, self.meta("clock"), self.index_bytes())

    def _settle(self, clock: float, budget: int | None) -> None:
        """Note the clock, count the running total anew, and note what is left when that is over the budget."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("UPDATE meta SET value = max(value, ?) WHERE name = 'clock'", (clock,))
            files = "SELECT COALESCE(SUM(size), 0) FROM blobs WHERE inline IS NULL"
            db.execute(f"UPDATE meta SET value = ({files}) WHERE name = 'bytes'")

        self.index.write("collecting", work)
        if budget is not None:
            left = self.total_bytes()
            in_use = live_since(self.index.rows(RUNS)) < math.inf
            sql = "INSERT OR REPLACE INTO meta VALUES ('floor', ?), ('floor_in_use', ?)"
            self.index.statement("collecting", sql, (left if left > budget else 0, int(in_use)))


class _Removal:
    """Removes what was chosen on a snapshot, unless it has been used since."""

    def __init__(self, store: Collecting, held: Snapshot, version: tuple[int, int]) -> None:
        self._store, self._held, self._version = store, held, version
        self._known = {entry.id: entry.used for entry in held.results}

    def results(self, entries: Sequence[Entry]) -> list[str]:
        """Remove results; returns the keys of those that went."""
        write = self._store.index.write
        return [key for part in batches(entries) for key in write("collecting", partial(self._results, part))]

    def blobs(self, blobs: dict[str, Held]) -> dict[str, Held]:
        """Remove blobs; returns those that went."""
        gone = {}
        for part in batches(list(blobs)):
            for digest, aside in self._store.index.write("collecting", partial(self._blobs, part)):
                gone[digest] = blobs[digest]
                if aside is not None:
                    remove(aside)
        return gone

    def _results(self, entries: Sequence[Entry], db: sqlite3.Connection) -> list[str]:
        pinned = {row[0] for row in db.execute("SELECT key FROM pins")}
        cutoff = live_since(db.execute(RUNS).fetchall())
        sql = "DELETE FROM results WHERE id = ? AND used = ? AND used < ?"
        free = [e for e in entries if e.key not in pinned]
        return [e.key for e in free if db.execute(sql, (e.id, e.used, cutoff)).rowcount]

    def _blobs(self, digests: Sequence[str], db: sqlite3.Connection) -> list[tuple[str, Path | None]]:
        spared = self._used_since(db) if self._store.version(db) != self._version else set()
        cutoff = live_since(db.execute(RUNS).fetchall())
        sql = "DELETE FROM blobs WHERE digest = ? AND used = ? AND used < ?"
        gone: list[tuple[str, Path | None]] = []
        for digest in digests:
            blob = self._held.blobs[digest]
            if digest not in spared and db.execute(sql, (digest, blob.used, cutoff)).rowcount:
                gone.append((digest, self._take_away(digest, blob)))
        return gone

    def _take_away(self, digest: str, blob: Held) -> Path | None:
        """Take a file out of its place; removing a large one can take long, and is done after the transaction."""
        if blob.in_index:
            return None
        aside = self._store.new_temporary()
        with suppress(FileNotFoundError):
            os.replace(self._store.path(digest, blob.codec), aside)
        return aside

    def _used_since(self, db: sqlite3.Connection) -> set[str]:
        """Digests that are pinned, or named by results that were recorded, used or pinned since the snapshot."""
        spared = {row[0] for row in db.execute("SELECT key FROM pins")}
        pinned = spared - self._held.pinned
        for number, key, used, body in db.execute("SELECT id, key, used, body FROM results"):
            if self._known.get(number) != used or key in pinned:
                spared.update(_digests(body))
        return spared


def _digests(body: Any) -> tuple[str, ...]:
    """The digests that a result's row names; none when the row is damaged, as nobody can read it any more."""
    try:
        outputs = json.loads(body)[6].values()
        return tuple(digest for output in outputs for digest in (output[3] or (output[0],)))
    except (ValueError, TypeError, LookupError, AttributeError):
        return ()
