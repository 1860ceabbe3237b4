"""Values by digest: small JSON in the index, everything else as files.

A file is written to tmp/ and synced; then, inside the transaction that enters its row, it is renamed to its place and
its folder is synced. Collecting works in such transactions too, so that a row never names a file that is not there, and
no file is removed between its renaming and its row. Reading checks size and hash.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from graphflow.codecs import CODECS, canonical_json, digest_bytes, digest_json
from graphflow.errors import DamagedBlobError
from graphflow.store.base import CLOCK, GRAIN, Base
from graphflow.store.files import file_size, hash_of, remove, sync, sync_folder
from graphflow.store.records import Stored, inline_value

INLINE_BYTES = 32 * 1024
# A long list is entered in parts, so that no transaction holds up other processes for long.
QUERY = 500  # digests that one query asks for
BATCH_BLOBS, BATCH_BYTES = 64, 64 * 2**20
_PASSING = {
    errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT, errno.EINTR,
}  # fmt: skip
_ENTER = "INSERT OR IGNORE INTO blobs VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_BLOB = "SELECT codec, size, hash, inline, used, input FROM blobs WHERE digest = ?"


@dataclass(slots=True)
class Blob:
    """A value that is written, but not entered: JSON for the index, or a file in tmp/."""

    digest: str
    codec: str
    size: int
    hash: str = ""
    inline: bytes | None = None
    temporary: Path | None = None
    input: bool = False


@dataclass
class Prepared:
    """A value on its way into the store: what it will be stored as, and the blobs still to be entered."""

    stored: Stored
    blobs: list[Blob] = field(default_factory=list)

    def discard(self) -> None:
        """Remove the files that were not entered."""
        for blob in self.blobs:
            if blob.temporary is not None:
                remove(blob.temporary)


class Values(Base):
    """The values of a store."""

    def describe(self, value: Any, codec_name: str, is_list: bool = False) -> Stored:
        """Digest a value without storing it."""
        codec = CODECS[codec_name]
        if is_list:
            items = tuple(codec.digest(v) for v in value)
            return Stored(digest_json(list(items)), codec_name, 0, items, kept=False)
        return Stored(codec.digest(value), codec_name, kept=False)

    def prepare(self, value: Any, codec_name: str, is_list: bool = False, is_input: bool = False) -> Prepared:
        """Digest a value and write its files, to be entered by `record`.

        Args:
            value: a value, or an iterable of elements, of which one is held at a time.
            codec_name: how it is digested and stored.
            is_list: whether it is a list.
            is_input: it was given from outside: it stays although no result has it as its output.

        Raises:
            StoreError: it could not be written, for example because the disk is full; the store stays whole.
        """
        if codec_name == "json" and not is_list:
            return self._prepare_json(value, is_input)
        blobs: list[Blob] = []
        digests: list[str] = []
        total = 0
        try:
            for item in value if is_list else (value,):
                digest, size, blob = self._stage(item, codec_name, is_input)
                digests.append(digest)
                total += size
                if blob is not None:
                    blobs.append(blob)
                if len(blobs) >= BATCH_BLOBS or sum(b.size for b in blobs) >= BATCH_BYTES:
                    self._enter(blobs)
                    blobs = []
        except BaseException:
            Prepared(Stored("", codec_name), blobs).discard()
            raise
        if is_list:
            return Prepared(Stored(digest_json(digests), codec_name, total, tuple(digests)), blobs)
        return Prepared(Stored(digests[0], codec_name, total), blobs)

    def put(self, value: Any, codec_name: str, is_list: bool = False, is_input: bool = False) -> Stored:
        """Store a value; see `prepare`.

        Raises:
            StoreError: it could not be written, for example because the disk is full; the store stays whole.
        """
        prepared = self.prepare(value, codec_name, is_list, is_input)
        if prepared.blobs:
            self._enter(prepared.blobs)
        return prepared.stored

    def load(self, stored: Stored) -> Any:
        """The value.

        Raises:
            DamagedBlobError: a blob is missing or damaged; its entry has been removed, so that it is made again.
        """
        values = [self._load(digest, stored.codec) for digest in stored.digests]
        return values if stored.items is not None else values[0]

    def peek(self, stored: Stored) -> Any:
        """The value for people to look at: like `load`, but tensors come as numpy arrays, and torch is not imported.

        Raises:
            DamagedBlobError: a blob is missing or damaged.
        """
        values = [self._load(digest, stored.codec, peek=True) for digest in stored.digests]
        return values if stored.items is not None else values[0]

    def has(self, stored: Stored) -> bool:
        """Whether all blobs of a value are there, by name and size."""
        return all(self._present(digest) for digest in stored.digests)

    def lacking(self, values: Iterable[Stored]) -> set[str]:
        """The digests of those values that `has` would deny, asked for together."""
        wanted = {stored.digest: stored.digests for stored in values}
        digests = list({d for parts in wanted.values() for d in parts})
        there: set[str] = set()
        for start in range(0, len(digests), QUERY):
            part = digests[start : start + QUERY]
            sql = f"SELECT digest, codec, size, inline IS NULL FROM blobs WHERE digest IN ({','.join('?' * len(part))})"
            for digest, codec, size, in_file in self.index.rows(sql, part):
                if not in_file or (codec in CODECS and file_size(self.path(digest, codec)) == size):
                    there.add(digest)
        return {digest for digest, parts in wanted.items() if not there.issuperset(parts)}

    def small(self, digest: str) -> str | None:
        """A short value as Python would write it, for messages; None when it is long, no JSON, or not here."""
        row = self._blob(digest)
        if row is None or row[3] is None or len(row[3]) > 200:
            return None
        try:
            return repr(inline_value(digest, row[3]))
        except ValueError:
            return None

    def path(self, digest: str, codec_name: str) -> Path:
        """Where the blob of a digest lies."""
        suffix = CODECS[codec_name].suffix if codec_name in CODECS else ""
        return self.folder / "blobs" / digest[:2] / (digest + suffix)

    # --- writing ------------------------------------------------------------------------------------------------

    def commit_blobs(self, db: sqlite3.Connection, blobs: Iterable[Blob]) -> None:
        """In a write transaction: move files to their places and enter their rows."""
        now = time.time()
        folders: set[Path] = set()
        for blob in blobs:
            if blob.temporary is not None and not self._move(db, blob, folders):
                continue
            row = (blob.digest, blob.codec, blob.size, blob.hash, now, blob.input, 0.0, blob.inline)
            if not db.execute(_ENTER, row).rowcount or blob.input:
                _use(db, blob.digest, now, blob.input)
        for folder in folders:
            sync_folder(folder)

    def _prepare_json(self, value: Any, is_input: bool) -> Prepared:
        """The short way for what most nodes return."""
        data = canonical_json(value)
        digest = digest_bytes(b"json", data)
        if len(data) > INLINE_BYTES:
            digest, _, blob = self._stage(value, "json", is_input)
            return Prepared(Stored(digest, "json", len(data)), [] if blob is None else [blob])
        blob = Blob(digest, "json", len(data), inline=data, input=is_input)
        return Prepared(Stored(digest, "json", len(data)), [blob])

    def _stage(self, value: Any, codec_name: str, is_input: bool) -> tuple[str, int, Blob | None]:
        """Digest, size, and what is still to be entered; None when the store has the value."""
        codec = CODECS[codec_name]
        if codec_name == "json":
            data = canonical_json(value)
            digest = digest_bytes(b"json", data)
            if len(data) <= INLINE_BYTES:
                return digest, len(data), Blob(digest, "json", len(data), inline=data, input=is_input)
        else:
            digest = codec.digest(value)
        if (size := self._use_present(digest, is_input)) is not None:
            return digest, size, None
        temporary = self.new_temporary(codec.suffix)
        try:
            codec.write(value, temporary)
            size = sync(temporary)
            file_hash = hash_of(temporary)
        except OSError as error:
            remove(temporary)
            raise self.index.error(f"writing {digest[:12]}{codec.suffix}", error) from error
        except BaseException:
            remove(temporary)
            raise
        return digest, size, Blob(digest, codec_name, size, file_hash, temporary=temporary, input=is_input)

    def _use_present(self, digest: str, is_input: bool) -> int | None:
        """The size of a value that the store has, marked as used, so that nobody collects it; None when it has not."""
        row = self._blob(digest)
        if row is None or not self._whole_size(digest, row):
            return None
        now = time.time()
        if row[4] < now - GRAIN or (is_input and not row[5]):
            found = self.index.write("noting use", lambda db: _use(db, digest, now, is_input))
            return int(row[1]) if found else None
        return int(row[1])

    def _enter(self, blobs: list[Blob]) -> None:
        try:
            self.index.write("entering values", lambda db: self.commit_blobs(db, blobs))
        finally:
            Prepared(Stored("", ""), blobs).discard()

    def _move(self, db: sqlite3.Connection, blob: Blob, folders: set[Path]) -> bool:
        """Put a file in its place; False when another process has done so."""
        assert blob.temporary is not None
        target = self.path(blob.digest, blob.codec)
        row = db.execute(_BLOB, (blob.digest,)).fetchone()
        if row is not None and self._whole_size(blob.digest, row):
            _use(db, blob.digest, time.time(), blob.input)
            return False
        db.execute("DELETE FROM blobs WHERE digest = ?", (blob.digest,))
        if not target.parent.exists():
            target.parent.mkdir()
            folders.add(target.parent.parent)
        if blob.temporary.exists():  # else it was moved before the index had to be replaced
            if target.is_dir():
                shutil.rmtree(target)  # a damaged folder: rename can't replace it
            os.replace(blob.temporary, target)
        folders.add(target.parent)
        return True

    # --- reading ------------------------------------------------------------------------------------------------

    def _load(self, digest: str, codec_name: str, peek: bool = False) -> Any:
        row = self._blob(digest)
        if row is None:
            raise DamagedBlobError(f"the value {digest[:12]} is not in the store any more")
        if row[0] != codec_name:
            self._forget_blob(digest, row, "its entry in the index was altered")
        try:
            if row[3] is not None:
                return inline_value(digest, row[3])
            return self._read_file(digest, row, peek)
        except FileNotFoundError:
            self._forget_blob(digest, row, f"{self.path(digest, codec_name).name} is missing")
        except (ImportError, MemoryError, DamagedBlobError):
            raise
        except Exception as error:  # whatever a codec says about a file that it did not write
            if _is_passing(error):
                raise self.index.error(f"reading {self.path(digest, codec_name).name}", error) from error
            self._forget_blob(digest, row, str(error))

    def _read_file(self, digest: str, row: Any, peek: bool) -> Any:
        codec = CODECS[row[0]]
        path = self.path(digest, row[0])
        if file_size(path) != row[1] or hash_of(path) != row[2]:
            if not path.exists():
                raise FileNotFoundError
            raise ValueError(f"{path.name} is truncated or altered")
        return codec.peek(path) if peek else codec.read(path)

    def _blob(self, digest: str) -> Any:
        """The row of a blob; None when there is none, or when it holds what no row may hold."""
        row = self.index.row(_BLOB, (digest,))
        if row is None or (isinstance(row[0], str) and isinstance(row[1], int) and isinstance(row[4], float)):
            return row
        self.index.statement("forgetting a damaged value", "DELETE FROM blobs WHERE digest = ?", (digest,))
        return None

    def _forget_blob(self, digest: str, row: Any, reason: str) -> NoReturn:
        # Only the entry that was read: another process may have mended it meanwhile.
        sql = "DELETE FROM blobs WHERE digest = ? AND used = ?"
        self.index.statement("forgetting a damaged value", sql, (digest, row[4]))
        raise DamagedBlobError(f"the stored value {digest[:12]} is damaged: {reason}")

    def _present(self, digest: str) -> bool:
        row = self._blob(digest)
        return row is not None and self._whole_size(digest, row)

    def _whole_size(self, digest: str, row: Any) -> bool:
        if row[3] is not None:
            return True
        return row[0] in CODECS and file_size(self.path(digest, row[0])) == row[1]


def _is_passing(error: Exception) -> bool:
    """Whether the system lacked something for a moment, such as file handles: that says nothing about the file."""
    if isinstance(error, OSError):
        return error.errno in _PASSING
    return any(os.strerror(number) in str(error) for number in _PASSING)  # safetensors has errors of its own


def _use(db: sqlite3.Connection, digest: str, now: float, is_input: bool) -> int:
    """Mark a blob as used; returns 0 when there is none."""
    sql = f"UPDATE blobs SET used = max(used, ?), input = max(input, ?), clock = ({CLOCK}) WHERE digest = ?"
    return db.execute(sql, (now, is_input, digest)).rowcount
