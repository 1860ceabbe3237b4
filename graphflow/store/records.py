"""What the index holds: values by digest, results by key; rows carry a checksum, so that bit rot is a miss."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from graphflow.codecs import digest_json
from graphflow.errors import DamagedBlobError

# The columns of a result that a lookup reads. All of the result but its parts stands in `body`, under one checksum; the
# other columns repeat some of it for queries. Parts stand apart, because only `why` needs them.
COLUMNS = "key, body, mark, used, evicted"
Row = tuple[Any, ...]
# json.dumps and json.loads without what they look up on each call; the checksum has said that the text is whole.
_decode = json.JSONDecoder().raw_decode
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Stored:
    """A value by its digest. A list has the digests of its elements under `items` and no blob of its own.

    Attributes:
        bytes: size in the store; 0 when the value was only digested.
        kept: False when the value was digested and deliberately not stored: whoever needs it computes it again.
    """

    digest: str
    codec: str
    bytes: int = 0
    items: tuple[str, ...] | None = None
    kept: bool = field(default=True, compare=False)

    @property
    def digests(self) -> tuple[str, ...]:
        """The blobs that hold the value."""
        return (self.digest,) if self.items is None else self.items


class Result:
    """What a node computed once: its outputs, the key's parts, and the seconds it took.

    `code` is the digest of the node's source at that time. `evicted` says that files of its values were removed to
    keep the store within its budget; their digests still stand for them. Parts are read when they are asked for.
    """

    __slots__ = ("_parts", "code", "created", "evicted", "graph", "key", "kind", "node", "outputs", "seconds", "used")

    def __init__(
        self, key: str, kind: str, graph: str, node: str, parts: Mapping[str, Any] | Callable[[str], Mapping[str, Any]],
        outputs: dict[str, Stored], seconds: float, created: float, code: str = "",
    ) -> None:  # fmt: skip
        self.key, self.kind, self.graph, self.node = key, kind, graph, node
        self._parts = parts
        self.outputs, self.seconds, self.created, self.code = outputs, seconds, created, code
        self.used, self.evicted = created, False

    @property
    def parts(self) -> dict[str, Any]:
        """What the key was made of.

        Raises:
            DamagedBlobError: the index has lost them.
        """
        if callable(self._parts):
            self._parts = self._parts(self.key)
        return dict(self._parts)

    @property
    def bytes(self) -> int:
        """The size of all outputs."""
        return sum(stored.bytes for stored in self.outputs.values())

    def __repr__(self) -> str:
        return f"Result({self.key[:12]}, {self.kind}, {self.graph}.{self.node}, {self.outputs})"


def row_of(result: Result, used: float) -> Row:
    """The row of a result: `COLUMNS`, the columns for queries, the parts and their checksum."""
    outputs = {n: (s.digest, s.codec, s.bytes, s.items, s.kept) for n, s in result.outputs.items()}
    seconds, created = float(result.seconds), float(result.created)
    body = _encode((result.kind, result.graph, result.node, seconds, created, result.code, outputs))
    parts = _encode(result.parts)
    return (
        result.key, body, _mark(result.key + body), used, 0,
        result.kind, result.graph, result.node, seconds, result.bytes, created, parts, _mark(result.key + parts),
    )  # fmt: skip


def result_of(row: Row, parts: Callable[[str], dict[str, Any]]) -> Result | None:
    """The result in a row that begins with `COLUMNS`; None when the row is damaged."""
    key, body, mark, used, evicted = row[:5]
    if not isinstance(body, str) or _mark(key + body) != mark:
        return None
    kind, graph, node, seconds, created, code, outputs = _decode(body)[0]
    stored = {n: Stored(d, c, b, i and tuple(i), k) for n, (d, c, b, i, k) in outputs.items()}
    found = Result(key, kind, graph, node, parts, stored, seconds, created, code)
    # Not under the checksum, because they change: bit rot in them can only move an eviction.
    found.used, found.evicted = used if isinstance(used, float) else created, bool(evicted)
    return found


def parts_of(key: str, text: Any, mark: Any) -> dict[str, Any]:
    """The parts in a row.

    Raises:
        DamagedBlobError: they were altered.
    """
    if not isinstance(text, str) or _mark(key + text) != mark:
        raise DamagedBlobError(f"the index has lost what the key {key[:12]} was made of")
    parts: dict[str, Any] = _decode(text)[0]
    return parts


def inline_value(digest: str, data: Any) -> Any:
    """A JSON value that stands in the index.

    Raises:
        ValueError: it was altered.
    """
    value = json.loads(data)
    if digest_json(value) != digest:
        raise ValueError("its entry in the index was altered")
    return value


def file_mark(path: str, size: int, mtime: int, digest: str) -> bytes:
    """Checksum of a remembered file digest."""
    return _mark(f"{size!r} {mtime!r} {digest!r} {path!r}")


def _mark(text: str) -> bytes:
    return blake2b(text.encode(errors="replace"), digest_size=8).digest()
