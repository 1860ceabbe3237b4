"""Results: looking them up, one by one or a graph at a time, recording them, and what they cost."""

from __future__ import annotations

import sqlite3
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from graphflow.errors import DamagedBlobError, UsageError
from graphflow.store.base import CLOCK, GRAIN
from graphflow.store.records import COLUMNS, Result, Row, parts_of, result_of, row_of
from graphflow.store.values import Prepared, Values

# A power failure may cost at most this much computing: results are synced to the disk once they add up to it.
UNSYNCED_SECONDS = 0.5
_BY_KEY = f"SELECT {COLUMNS} FROM results WHERE key = ?"
_WITH_PARTS = f"SELECT {COLUMNS}, parts, parts_mark FROM results"
_RECORD = f"""INSERT OR REPLACE INTO results
({COLUMNS}, kind, graph, node, seconds, bytes, created, parts, parts_mark, clock)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ({CLOCK}))"""
# The latest results of a kind: exactly, as long as it has no more than `WINDOW`.
WINDOW = 2000
_OF_KIND = f"""WHERE id IN (
    SELECT id FROM (SELECT id FROM results WHERE kind = ? LIMIT {WINDOW}) ORDER BY id DESC LIMIT ?
) ORDER BY id DESC"""
_OF_NODE = "WHERE kind = ? AND node = ? ORDER BY id DESC LIMIT ?"
PREFIX_DIGITS = 6


@dataclass(frozen=True)
class Cost:
    """What nodes of a kind took lately: medians of seconds and bytes over `count` results."""

    seconds: float
    bytes: int
    count: int


class Results(Values):
    """The results of a store."""

    _unsynced = 0.0
    _fetched_at: tuple[Any, ...] = ()

    def result(self, key: str) -> Result | None:
        """The result stored under a key; None when there is none, or when its entry was damaged."""
        found = self.fetched.get(key)
        if isinstance(found, Result):
            return found
        row = found or self.index.row(_BY_KEY, (key,))
        if row is None or row[0] != key:
            return None
        result = result_of(row, self._parts)
        if found is not None and result is not None:
            self.fetched[key] = result
        return result

    def prefetch(self, graph: str, limit: int = 10_000) -> None:
        """Read the latest results of a graph at once, so that `result` finds them in memory.

        What other processes record later is found as well; what they remove is noticed when its value is read.
        """
        now = (graph, limit, self.index.row("PRAGMA data_version"))
        if now != self._fetched_at:
            sql = f"SELECT {COLUMNS} FROM results WHERE graph = ? ORDER BY id DESC LIMIT ?"
            self.fetched = {row[0]: row for row in self.index.rows(sql, (graph, limit))}
            self._fetched_at = now

    def record(self, result: Result, values: Iterable[Prepared] = ()) -> None:
        """Enter a result, together with its prepared values, and give back the lease on its key: one transaction.

        Values that are not in the store are allowed: their digests stand for them.

        Raises:
            StoreError: it could not be written; nothing of it is in the store.
        """
        prepared = list(values)
        row = row_of(result, time.time())
        self._unsynced += result.seconds
        durable = self._unsynced >= UNSYNCED_SECONDS

        def work(db: sqlite3.Connection) -> None:
            self.uses += 1
            self.commit_blobs(db, [blob for p in prepared for blob in p.blobs])
            db.execute(_RECORD, row)
            if result.key in self.held:
                db.execute("DELETE FROM leases WHERE key = ? AND owner = ?", (result.key, self.owner.id))

        try:
            self.index.write("recording a result", work, durable)
        finally:
            for p in prepared:
                p.discard()
        if durable:
            self._unsynced = 0.0
        self.fetched.pop(result.key, None)
        self.held.discard(result.key)

    def forget(self, key: str) -> None:
        """Remove a result, so that its node runs again; its values stay until they are collected."""
        self.index.statement("forgetting a result", "DELETE FROM results WHERE key = ?", (key,))
        self.fetched.pop(key, None)

    def touch(self, keys: Iterable[str], inputs: Iterable[str] = ()) -> None:
        """Note that results, and inputs by their digests, were used just now: they are the last to be evicted.

        Raises:
            StoreError: the index can't be written.
        """
        now = time.time()
        known = self.fetched
        old = [k for k in keys if (entry := known.get(k)) is None or _used(entry) < now - GRAIN]
        digests = list(inputs)
        if not old and not digests:
            return

        def work(db: sqlite3.Connection) -> None:
            self.uses += 1
            for table, column, names in (("results", "key", old), ("blobs", "digest", digests)):
                sql = f"UPDATE {table} SET used = ?, clock = ({CLOCK}) WHERE {column} = ? AND used < ?"
                db.executemany(sql, [(now, name, now - GRAIN) for name in names])

        self.index.write("noting use", work)

    def touch_found(self, result: Result) -> None:
        """Note that a result in hand was used just now, at the price of a comparison when that was noted lately.

        Raises:
            StoreError: the index can't be written.
        """
        if result.used < time.time() - GRAIN:
            self.touch([result.key])

    def earlier(self, kind: str, node: str, limit: int = 50) -> list[Result]:
        """The latest results of a kind, those of a node of this name first."""
        rows = self.index.rows(f"{_WITH_PARTS} {_OF_NODE}", (kind, node, limit))
        if len(rows) < limit:
            known = {row[0] for row in rows}
            rows += [r for r in self.index.rows(f"{_WITH_PARTS} {_OF_KIND}", (kind, limit)) if r[0] not in known]
        return self._whole(rows[:limit])

    def all_results(self, kind: str | None = None, limit: int = -1) -> list[Result]:
        """Every result, or those of a kind, latest first."""
        where = "" if kind is None else "WHERE kind = ?"
        sql = f"{_WITH_PARTS} {where} ORDER BY created DESC, id DESC LIMIT ?"
        return self._whole(self.index.rows(sql, (limit,) if kind is None else (kind, limit)))

    def find_key(self, prefix: str) -> str:
        """The only key that begins like this.

        Raises:
            UsageError: the prefix is too short, or no key or several keys begin like this.
        """
        prefix = prefix.lower()
        if len(prefix) < PREFIX_DIGITS or set(prefix) - set("0123456789abcdef"):
            digits = f"at least {PREFIX_DIGITS} hexadecimal digits of a key"
            raise UsageError(f"'{prefix}' is neither a file nor a key: expected an out folder, or {digits}")
        sql = "SELECT key FROM results WHERE key >= ? AND key < ? LIMIT 3"
        found = [str(row[0]) for row in self.index.rows(sql, (prefix, prefix + "g"))]
        if len(found) != 1:
            several = f"several keys begin with {prefix}: {', '.join(k[:16] for k in found)}, …"
            raise UsageError(several if found else f"no stored result has a key that begins with {prefix}")
        return found[0]

    def cost(self, kind: str, node: str | None = None, window: int = 20) -> Cost | None:
        """What nodes of a kind, or of this name, took lately; None when none was recorded."""
        query, values = (_OF_KIND, (kind, window)) if node is None else (_OF_NODE, (kind, node, window))
        rows = self.index.rows(f"SELECT seconds, bytes FROM results {query}", values)
        rows = [row for row in rows if isinstance(row[0], float) and isinstance(row[1], int)]
        if not rows:
            return None
        return Cost(statistics.median(r[0] for r in rows), int(statistics.median(r[1] for r in rows)), len(rows))

    def _parts(self, key: str) -> dict[str, Any]:
        row = self.index.row("SELECT parts, parts_mark FROM results WHERE key = ?", (key,))
        if row is None:
            raise DamagedBlobError(f"the result {key[:12]} is no longer in the store")
        return parts_of(key, *row)

    def _whole(self, rows: Iterable[Any]) -> list[Result]:
        """The results in rows with parts, without those that were damaged."""
        found = []
        for row in rows:
            try:
                parts = parts_of(row[0], row[-2], row[-1])
            except DamagedBlobError:
                continue
            result = result_of(row, lambda _, parts=parts: parts)  # type: ignore[misc]
            if result is not None:
                found.append(result)
        return found


def _used(entry: Row | Result) -> float:
    used = entry.used if isinstance(entry, Result) else entry[3]
    return used if isinstance(used, float) else 0.0
