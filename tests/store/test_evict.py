"""What goes when the budget is exceeded, by an example computed by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphflow.store.evict import FREE_INDEX_BYTES, INPUT_SECONDS, UNNAMED_SECONDS, Entry, Held, Snapshot, choose

NOW = 1e6


def held(results: dict[str, tuple[float, int, float]], **others: Any) -> Snapshot:
    """Results by key: seconds, bytes, clock; each has a blob of its own, named by the key in capitals."""
    entries, blobs = [], {}
    for i, (key, (seconds, size, clock)) in enumerate(results.items()):
        entries.append(Entry(i, key, seconds, NOW - 7200 + i, clock, (key.upper(),)))
        blobs[key.upper()] = Held("image", size, NOW - 7200, False, False)
    return Snapshot(NOW, entries, {**blobs, **others.pop("blobs", {})}, **others)


# seconds / bytes: a 0.01, b 0.1, c 0.002, d 0.05; on top of their clocks: a 0.01, b 0.1, c 0.042, d 0.05
FOUR = {"a": (1.0, 100, 0.0), "b": (10.0, 100, 0.0), "c": (1.0, 500, 0.04), "d": (15.0, 300, 0.0)}


@pytest.mark.parametrize(
    ("budget", "gone", "clock"),
    [(1000, "", 0.0), (999, "A", 0.01), (900, "A", 0.01), (899, "AC", 0.042), (400, "AC", 0.042),
     (399, "ACD", 0.05), (50, "ABCD", 0.1), (0, "ABCD", 0.1)],
)  # fmt: skip
def test_the_cheapest_second_per_byte_goes_first(budget: int, gone: str, clock: float) -> None:
    doomed = choose(held(FOUR), budget)
    assert sorted(doomed.blobs) == list(gone)
    assert [e.key for e in doomed.evicted] == list(gone.lower())
    assert doomed.results == []
    assert doomed.clock == pytest.approx(clock)


def test_the_clock_lets_the_unused_fall_behind() -> None:
    used_later = {"old": (10.0, 100, 0.0), "new": (1.0, 100, 0.1)}  # 0.1 against 0.11
    assert list(choose(held(used_later), 100).blobs) == ["OLD"]


def test_pinned_results_and_what_a_live_run_uses_stay() -> None:
    assert sorted(choose(held(FOUR, pinned=frozenset("ac")), 0).blobs) == ["B", "D"]
    assert sorted(choose(held(FOUR, pinned=frozenset("A")), 0).blobs) == ["B", "C", "D"]
    assert sorted(choose(held(FOUR, cutoff=NOW - 7200 + 2), 0, max_age=0).blobs) == ["A", "B"]
    assert choose(held(FOUR, cutoff=NOW - 7200), 0, max_age=0).results == []


def test_a_shared_blob_goes_with_the_last_that_names_it() -> None:
    snapshot = held({"a": (1.0, 100, 0.0), "b": (10.0, 100, 0.0)})
    both = Entry(9, "c", 5.0, NOW - 7200, 0.0, ("A", "B"))
    snapshot.results.append(both)  # H: a 0.01, c 0.025, b 0.1
    assert choose(snapshot, 199).clock == pytest.approx(0.025)
    doomed = choose(snapshot, 199)
    assert list(doomed.blobs) == ["A"]
    assert sorted(e.key for e in doomed.evicted) == ["a", "c"]


def test_old_results_go_altogether() -> None:
    doomed = choose(held(FOUR), max_age=7199)
    assert [e.key for e in doomed.results] == ["a"]
    assert list(doomed.blobs) == ["A"]
    assert doomed.evicted == []


def test_blobs_that_no_result_names_go_after_an_hour() -> None:
    blobs = {
        "young": Held("image", 9, NOW - UNNAMED_SECONDS, False, False),
        "old": Held("image", 9, NOW - UNNAMED_SECONDS - 1, False, False),
        "json": Held("json", 9, NOW - UNNAMED_SECONDS - 1, False, True),
        "input": Held("image", 9, 0.0, True, False),
    }
    assert list(choose(held(FOUR, blobs=blobs)).blobs) == ["old", "json"]
    assert list(choose(held({}, blobs=blobs), max_age=9000).blobs) == ["old", "json", "input"]


def test_inputs_are_evicted_like_results() -> None:
    blobs = {"input": Held("image", 100, NOW - 7200, True, False)}
    assert pytest.approx(0.1) == INPUT_SECONDS / 100
    assert list(choose(held({"a": (9.0, 100, 0.0)}, blobs=blobs), 100).blobs) == ["A"]
    assert list(choose(held({"a": (11.0, 100, 0.0)}, blobs=blobs), 100).blobs) == ["input"]


def test_the_index_keeps_its_share() -> None:
    rows = {f"r{i}": (1.0, 0, 0.0) for i in range(100)}
    doomed = choose(held(rows, index_bytes=2 * FREE_INDEX_BYTES), 0)
    assert [e.key for e in doomed.results] == [f"r{i}" for i in range(50)]
    assert choose(held(rows, index_bytes=2 * FREE_INDEX_BYTES), 20 * FREE_INDEX_BYTES).results == []


digests = st.sampled_from([f"d{i}" for i in range(12)])
entries = st.builds(
    Entry,
    id=st.integers(),
    key=st.sampled_from([f"k{i}" for i in range(20)]),
    seconds=st.floats(0, 100),
    used=st.floats(0, NOW),
    clock=st.floats(0, 1),
    digests=st.lists(digests, max_size=3).map(tuple),
)
blobs = st.builds(
    Held, codec=st.just("image"), size=st.integers(0, 1000), used=st.floats(0, NOW), is_input=st.booleans(),
    in_index=st.booleans(),
)  # fmt: skip


@given(
    st.lists(entries, max_size=15, unique_by=lambda e: e.id),
    st.dictionaries(digests, blobs),
    st.frozensets(st.sampled_from(["k1", "k2", "d3"])),
    st.one_of(st.just(math.inf), st.floats(0, NOW)),
    st.one_of(st.none(), st.integers(0, 5000)),
    st.one_of(st.none(), st.floats(0, NOW)),
)
def test_nothing_pinned_or_in_use_ever_goes(
    results: list[Entry],
    stored: dict[str, Held],
    pinned: frozenset[str],
    cutoff: float,
    budget: int | None,
    max_age: float | None,
) -> None:
    snapshot = Snapshot(NOW, results, stored, pinned, cutoff)
    doomed = choose(snapshot, budget, max_age)
    safe = [e for e in results if e.key in pinned or e.used >= cutoff]
    assert not {e.id for e in safe} & {e.id for e in doomed.results}
    needed = {d for e in safe for d in e.digests} | pinned | {d for d, b in stored.items() if b.used >= cutoff}
    assert not needed & set(doomed.blobs)
    if budget is not None:
        left = snapshot.file_bytes - doomed.file_bytes
        free = [b for d, b in stored.items() if d not in needed and d not in doomed.blobs and not b.in_index]
        young = [b for b in free if b.used >= NOW - UNNAMED_SECONDS]
        assert left <= budget or len(free) == len(young) or not any(b.size for b in free)
