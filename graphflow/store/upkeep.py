"""What a store keeps besides results and values, and looking after all of it: file digests, checkpoints, checks."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from graphflow.errors import DamagedBlobError, UsageError, did_you_mean
from graphflow.store.leases import Leases
from graphflow.store.records import COLUMNS, file_mark, parts_of, result_of

# A row of a blob that holds what no row may hold is rot: nobody can read it, and `verify` removes it.
SOUND = """typeof(digest) = 'text' AND length(digest) = 40 AND digest NOT GLOB '*[^0-9a-f]*' AND typeof(codec) = 'text'
AND typeof(size) = 'integer' AND typeof(used) = 'real' AND typeof(clock) = 'real'"""


class Upkeep(Leases):
    """File digests, checkpoints, pins and checks of a store."""

    def file_digest(self, path: Path, compute: Callable[[Path], str], what: str = "") -> str:
        """The digest of a file, remembered by path, size and time of change, so that it is computed once.

        Args:
            path: the file.
            compute: gives the digest; or any other text that depends on nothing but the file.
            what: what is computed, where there are several such texts of one file.
        """
        stat = path.stat()
        name = f"{path}\n{what}" if what else str(path)
        row = self.index.row("SELECT path, size, mtime, digest, mark FROM files WHERE path = ?", (name,))
        if row is not None and row[1:3] == (stat.st_size, stat.st_mtime_ns) and file_mark(*row[:4]) == row[4]:
            return str(row[3])
        digest = str(compute(path))
        # A file changed within the clock's last tick may change again without a new time: don't remember it yet.
        if time.time_ns() - stat.st_mtime_ns > 2_000_000_000:
            entry = (name, stat.st_size, stat.st_mtime_ns, digest)
            sql = "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)"
            self.index.statement("remembering a file", sql, (*entry, file_mark(*entry)))
        return digest

    def checkpoint(self, key: str) -> Path:
        """The folder in which the node with this key keeps unfinished work."""
        path = self.folder / "checkpoints" / key
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self.index.error("making a checkpoint folder", error) from error
        return path

    def drop_checkpoint(self, key: str) -> None:
        """Remove the unfinished work of a node that has finished."""
        path = self.folder / "checkpoints" / key
        if path.exists():
            shutil.rmtree(path, ignore_errors=True)

    # --- pins ---------------------------------------------------------------------------------------------------

    def pin(self, keys: Iterable[str], name: str) -> int:
        """Keep results, and values named by digest, whatever the budget; returns how many the pin has now.

        Raises:
            StoreError: the index can't be written.
        """
        rows = [(name, key) for key in keys]

        def work(db: sqlite3.Connection) -> int:
            self.uses += 1
            db.executemany("INSERT OR IGNORE INTO pins VALUES (?, ?)", rows)
            return int(db.execute("SELECT COUNT(*) FROM pins WHERE name = ?", (name,)).fetchone()[0])

        return self.index.write("pinning", work)

    def unpin(self, name: str) -> int:
        """Remove a pin; returns how many results and values it had.

        Raises:
            UsageError: there is no pin of this name.
        """
        count = self.index.statement("unpinning", "DELETE FROM pins WHERE name = ?", (name,))
        self.index.statement("unpinning", "DELETE FROM meta WHERE name = 'floor'", ())  # more may go now than before
        if not count:
            names = list(self.pins())
            hint = did_you_mean(name, names) or (f"there are: {', '.join(names)}" if names else "nothing is pinned")
            raise UsageError(f"there is no pin '{name}'; {hint}")
        return count

    def pins(self) -> dict[str, list[str]]:
        """Keys and digests by the name of their pin."""
        found: dict[str, list[str]] = {}
        for name, key in self.index.rows("SELECT name, key FROM pins ORDER BY name, key"):
            found.setdefault(str(name), []).append(str(key))
        return found

    # --- checks -------------------------------------------------------------------------------------------------

    def usage(self) -> list[tuple[str, int, int]]:
        """Codec, number of blobs and bytes, largest first."""
        sql = f"SELECT codec, COUNT(*), SUM(size) FROM blobs WHERE {SOUND} GROUP BY codec ORDER BY SUM(size) DESC"
        return [(str(codec), int(count), int(size)) for codec, count, size in self.index.rows(sql)]

    def total_bytes(self) -> int:
        """Bytes of all files and of the index, from the running total; `collect` counts anew."""
        return int(self.meta("bytes")) + self.index_bytes()

    def index_bytes(self) -> int:
        """Bytes of the index, without the room in it that is free."""
        names = ("page_count", "freelist_count", "page_size")
        pages, free, size = (self.index.row(f"PRAGMA {name}")[0] for name in names)
        return int(pages - free) * int(size)

    def verify(self) -> Iterator[str]:
        """Read everything; yield a line for each damaged entry, which is dropped, so that it is computed again."""
        if problems := self.index.check():
            self.index.replace(problems[0])
            yield f"the index was damaged: {problems[0]}"
        yield from self._verify_results()
        if count := self.index.statement("forgetting damaged values", f"DELETE FROM blobs WHERE NOT ({SOUND})"):
            yield f"entries of values were altered: {count}"
        for digest, codec in self.index.rows("SELECT digest, codec FROM blobs"):
            try:
                self._load(digest, codec)
            except DamagedBlobError as error:
                yield str(error)

    def _verify_results(self) -> Iterator[str]:
        sql = f"SELECT {COLUMNS}, parts, parts_mark, id FROM results"
        for row in self.index.rows(sql):
            try:
                parts_of(row[0], row[-3], row[-2])
                whole = result_of(row, self._parts) is not None
            except DamagedBlobError:
                whole = False
            if not whole:
                self.index.statement("forgetting a damaged result", "DELETE FROM results WHERE id = ?", (row[-1],))
                yield f"the entry of the result {str(row[0])[:12]} was altered"

    def clear(self) -> int:
        """Remove all results, values, pins and checkpoints; returns the bytes freed."""
        freed = sum(size for _, _, size in self.usage())
        away = [(self.folder / name, self.new_temporary()) for name in ("blobs", "checkpoints")]

        def work(db: sqlite3.Connection) -> None:
            for table in ("results", "blobs", "files", "pins"):
                db.execute(f"DELETE FROM {table}")
            db.execute("UPDATE meta SET value = 0 WHERE name = 'bytes'")
            for folder, aside in away:  # moved in the transaction: what others write from now on stays
                os.replace(folder, aside)
                folder.mkdir()

        self.index.write("clearing", work)
        self.fetched.clear()
        for _, aside in away:
            shutil.rmtree(aside, ignore_errors=True)
        return freed
