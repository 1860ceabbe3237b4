"""What dead processes left: their files in tmp/, checkpoints, files without a row, rows without a file."""

from __future__ import annotations

import math
import os
import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from graphflow.store.base import GRAIN
from graphflow.store.files import newest
from graphflow.store.owners import exists, remove_owner
from graphflow.store.upkeep import SOUND, Upkeep

T = TypeVar("T")
BATCH = 200  # removals in a transaction, so that no other process waits for long
CHECKPOINT_AGE = 14 * 86400.0
STRAY_AGE = 3600.0  # of files in tmp/ whose owner is not known
ASIDE_AGE = 30 * 86400.0
OWNERS = "SELECT id, host, pid, started, beat FROM owners"
RUNS = """SELECT r.began, o.host, o.pid, o.started, o.beat FROM runs r JOIN owners o ON o.id = r.owner
WHERE typeof(r.began) = 'real'"""
BLOBS = f"SELECT digest, codec, size, used, input, inline IS NOT NULL, clock FROM blobs WHERE {SOUND}"
_OWNED = re.compile(r"([0-9a-f]{16})-")
_ASIDE = re.compile(r"index\.(damaged|layout-\d+)-.*\.sqlite")


class Leftovers(Upkeep):
    """Finding what dead processes left."""

    def leftovers(self) -> Iterator[Path]:
        """Files in tmp/ of dead processes, checkpoints that nobody goes on with, and old damaged indexes."""
        now = time.time()
        alive = {row[0] for row in self.index.rows(OWNERS) if exists(*row[1:])}
        cutoff = min(now - STRAY_AGE, live_since(self.index.rows(RUNS)))
        for path in (self.folder / "tmp").iterdir():
            owned = _OWNED.match(path.name)
            if (owned[1] not in alive) if owned else (newest(path) < cutoff):
                yield path
        leased = {row[0] for row in self.index.rows("SELECT key FROM leases")}
        for path in (self.folder / "checkpoints").iterdir():
            if path.name not in leased and newest(path) < now - CHECKPOINT_AGE:
                yield path
        for path in self.folder.iterdir():
            if _ASIDE.match(path.name) and newest(path) < now - ASIDE_AGE:
                yield path

    def strays(self, dry_run: bool) -> Iterator[tuple[Path, Path]]:
        """Files in blobs/ that no row names: what is left of a process that was killed in the middle.

        They are taken out of their place in the transaction that finds no row; yields both places.
        """
        paths = [Path(entry.path) for folder in (self.folder / "blobs").iterdir() for entry in os.scandir(folder)]
        for part in batches(paths):
            yield from self.index.write("collecting", partial(self._stray, paths=part, dry_run=dry_run))

    def forget_lost(self) -> None:
        """Remove rows whose file is gone: each is a miss anyhow, and would count for the budget."""
        rows = [(r[0], r[1], r[3]) for r in self.index.rows(BLOBS) if not r[5] and not self.path(r[0], r[1]).exists()]
        self.index.many("collecting", "DELETE FROM blobs WHERE digest = ? AND codec = ? AND used = ?", rows)

    def _stray(self, db: sqlite3.Connection, paths: Sequence[Path], dry_run: bool) -> list[tuple[Path, Path]]:
        found = []
        for path in paths:
            digest = path.name.partition(".")[0]
            row = db.execute("SELECT codec FROM blobs WHERE digest = ? AND inline IS NULL", (digest,)).fetchone()
            if row is None or self.path(digest, row[0]) != path:
                aside = path if dry_run else self.new_temporary()
                if not dry_run:
                    os.replace(path, aside)
                found.append((path, aside))
        return found


def forget_dead(db: sqlite3.Connection) -> None:
    """In a transaction: remove dead owners with their leases and runs."""
    for owner, *entry in db.execute(OWNERS).fetchall():
        if not exists(*entry):
            remove_owner(db, owner)


def live_since(runs: Sequence[Any]) -> float:
    """Since when live runs use things; infinite when there is none."""
    return min((row[0] - GRAIN for row in runs if exists(*row[1:])), default=math.inf)


def batches(items: Sequence[T]) -> Iterator[list[T]]:
    """The items in parts of `BATCH`."""
    rest = iter(items)
    while part := list(islice(rest, BATCH)):
        yield part
