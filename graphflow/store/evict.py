"""What goes when a store is collected: greedy-dual-size, as a pure function of what the store holds.

Cao and Irani, "Cost-Aware WWW Proxy Caching Algorithms" (USITS 1997): each result has the priority

    H = L + seconds / bytes

where `seconds` is what it took to compute, `bytes` is the size of its files, and L, the clock, is the priority of the
result evicted last at the time this one was used last. The lowest H goes first. So a second of computing in a small
file outlives one in a large file, and what was not used for long falls behind, because L grows with each eviction.

`seconds` is the node's own time: when what feeds it is gone too, computing it again takes longer than that.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

# An input is no result; that it is stored saves the user finding the file again.
INPUT_SECONDS = 10.0
# Digests and parts of evicted results stay, because nodes below are found by them. The index may take this share of the
# budget, and so many bytes in any case.
INDEX_SHARE = 0.1
FREE_INDEX_BYTES = 4 * 2**20
# Blobs that no result names are of a program that has not recorded its result yet, or of results since replaced.
UNNAMED_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A result, as far as collecting is concerned; an input is an entry without `id`."""

    id: int | None
    key: str
    seconds: float
    used: float
    clock: float
    digests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """A blob. Those that stand in the index have no file of their own."""

    codec: str
    size: int
    used: float
    is_input: bool
    in_index: bool
    clock: float = 0.0


@dataclass(frozen=True)
class Snapshot:
    """What a store holds. What was used at `cutoff` or later is used by a live run."""

    now: float
    results: list[Entry]
    blobs: dict[str, Held]
    pinned: frozenset[str] = frozenset()
    cutoff: float = math.inf
    clock: float = 0.0
    index_bytes: int = 0

    @property
    def file_bytes(self) -> int:
        """The size of all files."""
        return sum(blob.size for blob in self.blobs.values() if not blob.in_index)


@dataclass
class Doomed:
    """What goes: results altogether, and blobs; `evicted` are results that lose values, but not their entry."""

    results: list[Entry] = field(default_factory=list)
    blobs: dict[str, Held] = field(default_factory=dict)
    evicted: list[Entry] = field(default_factory=list)
    clock: float = 0.0

    @property
    def file_bytes(self) -> int:
        """The size of the files that go."""
        return sum(blob.size for blob in self.blobs.values() if not blob.in_index)


def choose(held: Snapshot, budget: int | None = None, max_age: float | None = None) -> Doomed:
    """What is to go.

    Args:
        held: what the store holds.
        budget: bytes that may stay; pinned results and what live runs use stay in any case.
        max_age: seconds after which an unused result goes altogether.
    """
    doomed = Doomed(clock=held.clock)
    safe = _safe_digests(held)
    oldest = -math.inf if max_age is None else held.now - max_age
    leaving = {e.id for e in _unprotected(held) if e.used < oldest}
    index_bytes = held.index_bytes
    if budget is not None:
        few, index_bytes = _oldest_rows(held, leaving, max(INDEX_SHARE * budget, FREE_INDEX_BYTES))
        leaving |= few
    doomed.results = [e for e in held.results if e.id in leaving]
    staying = [e for e in held.results if e.id not in leaving]
    inputs = [
        Entry(None, digest, INPUT_SECONDS, blob.used, blob.clock, (digest,))
        for digest, blob in held.blobs.items()
        if blob.is_input and (digest in safe or blob.used >= oldest)
    ]
    names = Counter(digest for entry in (*staying, *inputs) for digest in entry.digests)
    unnamed_since = {digest for entry in doomed.results for digest in entry.digests}
    for digest, blob in held.blobs.items():
        young = digest not in unnamed_since and not blob.is_input and blob.used >= held.now - UNNAMED_SECONDS
        if not names[digest] and digest not in safe and not young:
            doomed.blobs[digest] = blob
    if budget is not None:
        room = budget - index_bytes - held.file_bytes + doomed.file_bytes
        _evict(held, [*_unprotected(held, staying), *inputs], names, safe, room, doomed)
    doomed.evicted = [e for e in staying if any(d in doomed.blobs for d in e.digests)]
    return doomed


def _evict(
    held: Snapshot, entries: Iterable[Entry], names: Counter[str], safe: set[str], room: int, doomed: Doomed
) -> None:
    """Evict by priority until there is room. A shared blob goes with the last result that names it."""
    ranked = []
    for entry in entries:
        size = sum(held.blobs[d].size for d in entry.digests if d in held.blobs and not held.blobs[d].in_index)
        if size:
            ranked.append((entry.clock + entry.seconds / size, entry.used, entry.key, entry))
    for priority, _, _, entry in sorted(ranked, key=lambda r: r[:3]):
        if room >= 0:
            return
        for digest in set(entry.digests):
            blob = held.blobs.get(digest)
            names[digest] -= entry.digests.count(digest)
            if blob is not None and not blob.in_index and names[digest] <= 0 and digest not in safe:
                doomed.blobs[digest] = blob
                room += blob.size
                doomed.clock = max(doomed.clock, priority)


def _oldest_rows(held: Snapshot, leaving: set[int | None], limit: float) -> tuple[set[int | None], int]:
    """The results that were not used for longest, as many as must go for the index to keep within its limit."""
    if not held.results or held.index_bytes <= limit:
        return set(), held.index_bytes
    each = held.index_bytes / len(held.results)
    count = math.ceil((held.index_bytes - limit) / each) - len(leaving)
    rows = sorted((e for e in _unprotected(held) if e.id not in leaving), key=lambda e: e.used)[: max(count, 0)]
    return {e.id for e in rows}, held.index_bytes - int(each * (len(rows) + len(leaving)))


def _unprotected(held: Snapshot, entries: Iterable[Entry] | None = None) -> list[Entry]:
    chosen = held.results if entries is None else entries
    return [e for e in chosen if e.key not in held.pinned and e.used < held.cutoff]


def _safe_digests(held: Snapshot) -> set[str]:
    """The blobs that stay: pinned, of a pinned result, of a result that a live run uses, or put by a live run."""
    safe = set(held.pinned)
    safe.update(d for e in held.results if e.key in held.pinned or e.used >= held.cutoff for d in e.digests)
    safe.update(digest for digest, blob in held.blobs.items() if blob.used >= held.cutoff)
    return safe
