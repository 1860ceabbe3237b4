"""What the index holds: values by digest, results by key; rows carry a checksum, so that bit rot is a miss."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from blake3 import blake3

from graphflow.codecs import canonical_json, digest_json
from graphflow.errors import DamagedBlobError

# The columns of a result that a lookup reads, in this order; `parts` stands apart, because only `why` needs it.
COLUMNS = "key, kind, graph, node, outputs, seconds, bytes, created, code, mark, used, evicted"
Row = tuple[Any, ...]


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

    def as_json(self) -> dict[str, Any]:
        """The value's entry in the index."""
        out: dict[str, Any] = {"digest": self.digest, "codec": self.codec, "bytes": self.bytes}
        if self.items is not None:
            out["items"] = list(self.items)
        return out if self.kept else {**out, "kept": False}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Stored:
        """Read what `as_json` wrote."""
        items = data.get("items")
        return cls(
            data["digest"], data["codec"], data["bytes"], None if items is None else tuple(items),
            data.get("kept", True),
        )  # fmt: skip

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
        self, key: str, kind: str, graph: str, node: str, parts: Mapping[str, Any] | Callable[[], dict[str, Any]],
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
            self._parts = self._parts()
        return dict(self._parts)

    @property
    def bytes(self) -> int:
        """The size of all outputs."""
        return sum(stored.bytes for stored in self.outputs.values())

    def __repr__(self) -> str:
        return f"Result({self.key[:12]}, {self.kind}, {self.graph}.{self.node}, {self.outputs})"


def row_of(result: Result, used: float) -> Row:
    """The row of a result: `COLUMNS`, the parts and their checksum."""
    outputs = json.dumps({n: s.as_json() for n, s in result.outputs.items()}, separators=(",", ":"))
    parts = canonical_json(result.parts).decode()
    seconds, created = float(result.seconds), float(result.created)
    hot = (result.key, result.kind, result.graph, result.node, outputs, seconds, result.bytes, created, result.code)
    return (*hot, _mark(hot), used, 0, parts, _mark((result.key, parts)))


def result_of(row: Row, parts: Callable[[str], dict[str, Any]]) -> Result | None:
    """The result in a row that begins with `COLUMNS`; None when the row is damaged."""
    if _mark(row[:9]) != row[9]:
        return None
    key, kind, graph, node, outputs, seconds, _, created, code = row[:9]
    stored = {name: Stored.from_json(data) for name, data in json.loads(outputs).items()}
    found = Result(key, kind, graph, node, lambda: parts(key), stored, seconds, created, code)
    # Not under the checksum, because they change: bit rot in them can only move an eviction.
    found.used, found.evicted = row[10], bool(row[11])
    return found


def parts_of(key: str, text: Any, mark: Any) -> dict[str, Any]:
    """The parts in a row.

    Raises:
        DamagedBlobError: they were altered.
    """
    if _mark((key, text)) != mark:
        raise DamagedBlobError(f"the index has lost what the key {key[:12]} was made of")
    parts: dict[str, Any] = json.loads(text)
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


def file_mark(path: str, size: int, mtime: int, digest: str) -> int:
    """Checksum of a remembered file digest."""
    return _mark((path, size, mtime, digest))


def _mark(values: tuple[Any, ...]) -> int:
    """Checksum of a row. It covers types as well as values: rot can turn a number into text."""
    return int.from_bytes(blake3(repr(values).encode(errors="replace")).digest(length=6), "little")
