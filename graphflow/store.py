"""The store: results by key, values by digest, on disk, shared by all graphs and processes of a user.

    index.sqlite    results (key → outputs, parts, seconds) and blobs (digest → codec, size, hash of the file)
    blobs/ab/…      one file (or folder) a value; small JSON values stand in the index itself
    checkpoints/    unfinished work of long nodes, by key
    tmp/            files being written

A blob is written to tmp, synced and renamed before the index names it, so that a killed process leaves nothing that
looks whole and is not. Reading checks size and hash: a damaged blob is a miss that is reported, never a wrong result.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphflow.codecs import CODECS, canonical_json, digest_file, digest_files, digest_json
from graphflow.errors import DamagedBlobError, StoreError

INLINE_BYTES = 32 * 1024
LAYOUT = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS results (
    key TEXT PRIMARY KEY, kind TEXT NOT NULL, graph TEXT NOT NULL, node TEXT NOT NULL, parts TEXT NOT NULL,
    outputs TEXT NOT NULL, seconds REAL NOT NULL, created REAL NOT NULL, used REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS results_by_kind ON results (kind, node, created);
CREATE TABLE IF NOT EXISTS blobs (
    digest TEXT PRIMARY KEY, codec TEXT NOT NULL, size INTEGER NOT NULL, hash TEXT NOT NULL, inline BLOB
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime INTEGER NOT NULL, digest TEXT NOT NULL
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Stored:
    """A value in the store. A list has the digests of its elements under `items` and no blob of its own."""

    digest: str
    codec: str
    bytes: int = 0
    items: tuple[str, ...] | None = None

    def as_json(self) -> dict[str, Any]:
        """The value's entry in the index."""
        out: dict[str, Any] = {"digest": self.digest, "codec": self.codec, "bytes": self.bytes}
        return out if self.items is None else {**out, "items": list(self.items)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Stored:
        """Read what `as_json` wrote."""
        items = data.get("items")
        return cls(data["digest"], data["codec"], data["bytes"], None if items is None else tuple(items))

    @property
    def digests(self) -> tuple[str, ...]:
        """The blobs that hold the value."""
        return (self.digest,) if self.items is None else self.items


@dataclass(frozen=True)
class Result:
    """What a node computed once: its outputs, the key's parts, and the seconds it took."""

    key: str
    kind: str
    graph: str
    node: str
    parts: dict[str, Any]
    outputs: dict[str, Stored]
    seconds: float
    created: float


def default_folder() -> Path:
    """``GRAPHFLOW_STORE``, or a folder in the user's cache."""
    named = os.environ.get("GRAPHFLOW_STORE")
    if named:
        return Path(named)
    import platformdirs

    return Path(platformdirs.user_cache_dir("graphflow", appauthor=False)) / "store"


class Store:
    """One store; safe to use from several threads and processes.

    Raises:
        StoreError: the folder can't be made or its index can't be opened.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._lock = threading.RLock()
        try:
            for name in ("blobs", "tmp", "checkpoints"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.folder / "index.sqlite", timeout=60, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, LAYOUT):
                raise StoreError(f"the store {self.folder} has layout {version}; this graphflow reads {LAYOUT}")
            if version == 0:
                self._db.executescript(_SCHEMA)
                self._db.execute(f"PRAGMA user_version={LAYOUT}")
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"the store {self.folder} can't be opened: {error}") from error

    def close(self) -> None:
        """Close the index."""
        self._db.close()

    # --- results ------------------------------------------------------------------------------------------------

    def result(self, key: str) -> Result | None:
        """The result stored under a key."""
        rows = self._read("SELECT * FROM results WHERE key = ?", (key,))
        return _result(rows[0]) if rows else None

    def record(self, result: Result) -> None:
        """Enter a result whose values are in the store."""
        outputs = canonical_json({name: s.as_json() for name, s in result.outputs.items()}).decode()
        row = (
            result.key, result.kind, result.graph, result.node, canonical_json(result.parts).decode(), outputs,
            result.seconds, result.created, result.created,
        )  # fmt: skip
        self._write("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def forget(self, key: str) -> None:
        """Remove a result, so that its node runs again; its values stay until they are collected."""
        self._write("DELETE FROM results WHERE key = ?", (key,))

    def touch(self, keys: Iterable[str]) -> None:
        """Note that results were used just now."""
        now = time.time()
        with self._guard("noting use"), self._lock, self._db:
            self._db.executemany("UPDATE results SET used = ? WHERE key = ?", [(now, k) for k in keys])

    def earlier(self, kind: str, node: str, limit: int = 50) -> list[Result]:
        """The latest results of a kind, those of a node of this name first."""
        rows = self._read(
            "SELECT * FROM results WHERE kind = ? ORDER BY node != ?, created DESC LIMIT ?", (kind, node, limit)
        )
        return [_result(row) for row in rows]

    def all_results(self) -> list[Result]:
        """Every result, latest first."""
        return [_result(row) for row in self._read("SELECT * FROM results ORDER BY created DESC", ())]

    # --- values -------------------------------------------------------------------------------------------------

    def describe(self, value: Any, codec_name: str, is_list: bool = False) -> Stored:
        """Digest a value without storing it."""
        codec = CODECS[codec_name]
        if is_list:
            items = tuple(codec.digest(v) for v in value)
            return Stored(digest_json(list(items)), codec_name, 0, items)
        return Stored(codec.digest(value), codec_name)

    def put(self, value: Any, codec_name: str, is_list: bool = False) -> Stored:
        """Store a value.

        Raises:
            StoreError: it could not be written, for example because the disk is full; the store stays whole.
        """
        stored = self.describe(value, codec_name, is_list)
        items = value if is_list else [value]
        sizes = [self._put_blob(d, v, codec_name) for d, v in zip(stored.digests, items, strict=True)]
        return Stored(stored.digest, codec_name, sum(sizes), stored.items)

    def load(self, stored: Stored) -> Any:
        """The value.

        Raises:
            DamagedBlobError: a blob is missing or damaged; its entry has been removed, so that it is made again.
        """
        values = [self._load_blob(digest) for digest in stored.digests]
        return values if stored.items is not None else values[0]

    def peek(self, stored: Stored) -> Any:
        """The value for people to look at: like `load`, but tensors come as numpy arrays, and torch is not imported.

        Raises:
            DamagedBlobError: a blob is missing or damaged.
        """
        values = [self._load_blob(digest, peek=True) for digest in stored.digests]
        return values if stored.items is not None else values[0]

    def has(self, stored: Stored) -> bool:
        """Whether all blobs of a value are there, by name and size."""
        return all(self._present(digest) for digest in stored.digests)

    def small(self, digest: str) -> str | None:
        """A short value as Python would write it, for messages; None when it is long, no JSON, or not here."""
        row = self._blob(digest)
        if row is None or row[3] is None or row[1] > 200:
            return None
        return repr(json.loads(row[3]))

    def _put_blob(self, digest: str, value: Any, codec_name: str) -> int:
        codec = CODECS[codec_name]
        row = self._blob(digest)
        if row is not None and self._present(digest):
            return int(row[1])
        if codec_name == "json":
            data = canonical_json(value)
            if len(data) <= INLINE_BYTES:
                self._write("INSERT OR REPLACE INTO blobs VALUES (?, ?, ?, '', ?)", (digest, "json", len(data), data))
                return len(data)
        with self._guard(f"writing {digest[:12]}{codec.suffix}"):
            size, file_hash = self._write_file(codec_name, value, self.path(digest, codec_name))
        self._write("INSERT OR REPLACE INTO blobs VALUES (?, ?, ?, ?, NULL)", (digest, codec_name, size, file_hash))
        return size

    def _write_file(self, codec_name: str, value: Any, target: Path) -> tuple[int, str]:
        temporary = self.folder / "tmp" / f"{uuid.uuid4().hex}{target.suffix}"
        try:
            CODECS[codec_name].write(value, temporary)
            files = [temporary] if temporary.is_file() else [p for p in temporary.rglob("*") if p.is_file()]
            for path in files:
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            size = sum(p.stat().st_size for p in files)
            file_hash = _hash(temporary)
            target.parent.mkdir(exist_ok=True)
            if target.is_dir():
                shutil.rmtree(target)  # a damaged folder: rename can't replace it
            os.replace(temporary, target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.unlink(missing_ok=True) if not temporary.is_dir() else None
            raise
        return size, file_hash

    def _load_blob(self, digest: str, peek: bool = False) -> Any:
        row = self._blob(digest)
        if row is None:
            raise DamagedBlobError(f"the store has lost the value {digest[:12]}")
        codec_name, size, file_hash, inline = row
        if inline is not None:
            value = json.loads(inline)
            if digest_json(value) != digest:
                self._forget_blob(digest, "its entry in the index was altered")
            return value
        path = self.path(digest, codec_name)
        if not path.exists():
            self._forget_blob(digest, f"{path.name} is missing")
        if _size(path) != size or _hash(path) != file_hash:
            self._forget_blob(digest, f"{path.name} is truncated or altered")
        return CODECS[codec_name].peek(path) if peek else CODECS[codec_name].read(path)

    def _forget_blob(self, digest: str, reason: str) -> None:
        self._write("DELETE FROM blobs WHERE digest = ?", (digest,))
        raise DamagedBlobError(f"the stored value {digest[:12]} is damaged: {reason}")

    def _present(self, digest: str) -> bool:
        row = self._blob(digest)
        if row is None:
            return False
        return row[3] is not None or _size(self.path(digest, row[0])) == row[1]

    def _blob(self, digest: str) -> tuple[str, int, str, bytes | None] | None:
        rows = self._read("SELECT codec, size, hash, inline FROM blobs WHERE digest = ?", (digest,))
        return rows[0] if rows else None

    def path(self, digest: str, codec_name: str) -> Path:
        """Where the blob of a digest lies."""
        return self.folder / "blobs" / digest[:2] / (digest + CODECS[codec_name].suffix)

    # --- files and checkpoints ----------------------------------------------------------------------------------

    def file_digest(self, path: Path, compute: Any) -> str:
        """The digest of a file, remembered by path, size and time of change, so that it is computed once."""
        stat = path.stat()
        known = self._read("SELECT size, mtime, digest FROM files WHERE path = ?", (str(path),))
        if known and known[0][:2] == (stat.st_size, stat.st_mtime_ns):
            return str(known[0][2])
        digest = str(compute(path))
        # A file changed within the clock's last tick may change again without a new time: don't remember it yet.
        if time.time_ns() - stat.st_mtime_ns > 2_000_000_000:
            row = (str(path), stat.st_size, stat.st_mtime_ns, digest)
            self._write("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", row)
        return digest

    def checkpoint(self, key: str) -> Path:
        """The folder in which the node with this key keeps unfinished work."""
        path = self.folder / "checkpoints" / key
        with self._guard("making a checkpoint folder"):
            path.mkdir(parents=True, exist_ok=True)
        return path

    def drop_checkpoint(self, key: str) -> None:
        """Remove the unfinished work of a node that has finished."""
        shutil.rmtree(self.folder / "checkpoints" / key, ignore_errors=True)

    # --- upkeep -------------------------------------------------------------------------------------------------

    def usage(self) -> list[tuple[str, int, int]]:
        """Codec, number of blobs and bytes, largest first."""
        sql = "SELECT codec, COUNT(*), SUM(size) FROM blobs GROUP BY codec ORDER BY SUM(size) DESC"
        return [(str(codec), int(count), int(size)) for codec, count, size in self._read(sql, ())]

    def verify(self) -> Iterator[str]:
        """Read every blob; yield a line for each damaged one, which is dropped from the index."""
        for digest, codec in self._read("SELECT digest, codec FROM blobs", ()):
            try:
                self._load_blob(digest)
            except DamagedBlobError as error:
                yield str(error)
            except Exception as error:  # a codec choked on a file whose hash is right: written by another version
                yield f"the stored value {digest[:12]} ({codec}) can't be read: {error}"

    def clear(self) -> int:
        """Remove all results and values; returns the bytes freed."""
        freed = sum(size for _, _, size in self.usage())
        with self._guard("clearing"), self._lock:
            with self._db:
                for table in ("results", "blobs", "files"):
                    self._db.execute(f"DELETE FROM {table}")
            for name in ("blobs", "tmp", "checkpoints"):
                shutil.rmtree(self.folder / name, ignore_errors=True)
                (self.folder / name).mkdir(parents=True, exist_ok=True)
        return freed

    # --- sqlite -------------------------------------------------------------------------------------------------

    def _read(self, sql: str, values: tuple[Any, ...]) -> list[Any]:
        with self._guard("reading the index"), self._lock:
            return self._db.execute(sql, values).fetchall()

    def _write(self, sql: str, values: tuple[Any, ...]) -> None:
        with self._guard("writing the index"), self._lock, self._db:
            self._db.execute(sql, values)

    @contextmanager
    def _guard(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            reason = "the disk is full" if full else str(error)
            raise StoreError(f"the store {self.folder}: {doing} failed: {reason}") from error
        except sqlite3.Error as error:
            raise StoreError(f"the store {self.folder}: {doing} failed: {error}") from error


def _result(row: Any) -> Result:
    key, kind, graph, node, parts, outputs, seconds, created, _ = row
    stored = {name: Stored.from_json(data) for name, data in json.loads(outputs).items()}
    return Result(key, kind, graph, node, json.loads(parts), stored, seconds, created)


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _hash(path: Path) -> str:
    return digest_files(path, (p for p in path.rglob("*") if p.is_file())) if path.is_dir() else digest_file(path)
