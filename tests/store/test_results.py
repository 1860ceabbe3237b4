"""Results: found by key, recorded in one transaction, and remembered by kind."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import pytest
from store_workers import key_of, record

from graphflow.codecs import digest_json
from graphflow.errors import DamagedBlobError, UsageError
from graphflow.store import Cost, Result, Store, worth_storing


def test_results_are_found_by_key(store: Store) -> None:
    parts = {"kind": "k", "parameters": {"b": 1, "a": 2}}
    value = store.put("text", "json")
    store.record(Result(digest_json(parts), "k", "g", "n", parts, {"out": value}, 1.5, 100.0, code="c0de"))
    found = store.result(digest_json({"parameters": {"a": 2, "b": 1}, "kind": "k"}))
    assert found is not None
    assert found.outputs == {"out": value}
    assert (found.parts, found.seconds, found.created, found.code) == (parts, 1.5, 100.0, "c0de")
    assert store.result("0" * 40) is None


def test_a_result_may_name_values_that_are_not_kept(store: Store) -> None:
    described = replace(store.describe("text", "json"), bytes=12)
    items = store.put([1, 2], "json", is_list=True)
    store.record(Result("a" * 40, "k", "g", "n", {}, {"text": described, "list": items}, 1.5, 1.0))
    found = Store(store.folder).result("a" * 40)
    assert found is not None
    assert found.outputs == {"text": described, "list": items}
    assert [s.kept for s in found.outputs.values()] == [False, True]
    assert found.bytes == 14
    assert list(store.verify()) == []


def test_prefetched_results_are_the_same(store: Store) -> None:
    for i in range(20):
        record(store, key_of(i), {"n": i})
    store.prefetch("g", 5)
    other = Store(store.folder)
    record(other, key_of("new"), "new")
    other.forget(key_of(19))
    assert store.result(key_of("new")) is not None
    store.prefetch("g", 5)
    assert store.result(key_of(19)) is None
    for i in range(19):
        a, b = store.result(key_of(i)), other.result(key_of(i))
        assert a is not None
        assert b is not None
        assert (a.outputs, a.parts, a.created) == (b.outputs, b.parts, b.created)


def test_a_result_that_was_recorded_again_replaces_the_prefetched_one(store: Store) -> None:
    record(store, "a" * 40, 1)
    store.prefetch("g")
    assert store.result("a" * 40) is not None
    again = record(store, "a" * 40, 2)
    found = store.result("a" * 40)
    assert found is not None
    assert found.outputs == again.outputs


def test_earlier_results_of_the_same_node_come_first(store: Store) -> None:
    for i, node in enumerate(["a", "b", "a", "b", "b"]):
        record(store, key_of(i), i, node=node)
    found = store.earlier("k", "a")
    assert [(r.node, r.parts["of"]) for r in found] == [
        (n, key_of(i)) for n, i in [("a", 2), ("a", 0), ("b", 4), ("b", 3), ("b", 1)]
    ]
    assert [r.node for r in store.earlier("k", "b", 2)] == ["b", "b"]
    assert store.earlier("unknown", "a") == []


def test_the_cost_of_a_kind_is_a_median(store: Store) -> None:
    for i, seconds in enumerate([1.0, 2.0, 90.0]):
        record(store, key_of(i), "x" * i, seconds=seconds, node="n" if i else "other")
    assert store.cost("k") == Cost(2.0, 3, 3)
    assert store.cost("k", "other") == Cost(1.0, 2, 1)
    assert store.cost("unknown") is None


def test_parts_that_were_altered_are_not_served(store: Store) -> None:
    record(store, "a" * 40, 1)
    with sqlite3.connect(store.folder / "index.sqlite") as db:
        db.execute("UPDATE results SET parts = replace(parts, 'a', 'b')")
    found = store.result("a" * 40)
    assert found is not None
    with pytest.raises(DamagedBlobError, match="was made of"):
        _ = found.parts
    assert store.earlier("k", "n") == []
    assert len(list(store.verify())) == 1
    assert store.result("a" * 40) is None


@pytest.mark.parametrize("column", ["key", "body", "mark"])
def test_a_result_that_was_altered_is_a_miss(store: Store, column: str) -> None:
    key = record(store, "a" * 40, 1).key
    with sqlite3.connect(store.folder / "index.sqlite") as db:
        db.execute(f"UPDATE results SET {column} = replace({column}, substr({column}, 5, 1), '-')")
    assert store.result(key) is None
    assert store.all_results() == []


def test_use_is_noted_once_a_minute(store: Store) -> None:
    key = record(store, "a" * 40, 1).key
    store.index.statement("test", "UPDATE results SET used = 5.0")
    store.prefetch("g")
    before = time.time()
    store.touch([key])
    noted = store.index.row("SELECT used FROM results")[0]
    assert noted >= before
    store.touch([key])
    assert store.index.row("SELECT used FROM results")[0] == noted


def test_a_key_is_found_by_its_beginning(store: Store) -> None:
    for key in ("abcdef" + "0" * 34, "abcdef" + "1" * 34, "123456" + "a" * 34):
        record(store, key, key)
    assert store.find_key("123456") == "123456" + "a" * 34
    assert store.find_key("ABCDEF0") == "abcdef" + "0" * 34
    for prefix, message in [("abcdef", "several keys"), ("fffffff", "no stored result"), ("12345", "at least 6")]:
        with pytest.raises(UsageError, match=message):
            store.find_key(prefix)


def test_file_digests_are_remembered_until_the_file_changes(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_text("1")
    store.file_digest(path, lambda p: "young")
    assert store.file_digest(path, lambda p: "still young") == "still young"
    import os

    os.utime(path, (1000, 1000))
    assert store.file_digest(path, lambda p: "one") == "one"
    assert store.file_digest(path, lambda p: "two") == "one"
    with sqlite3.connect(store.folder / "index.sqlite") as db:
        db.execute("UPDATE files SET digest = 'evil'")
    assert store.file_digest(path, lambda p: "three") == "three"


def test_small_values_and_slow_ones_are_worth_storing() -> None:
    assert worth_storing(1000, 0.0)
    assert not worth_storing(2**30, 2.0)  # a gibibyte is read back in about three seconds
    assert worth_storing(2**30, 12.0)
    assert not worth_storing(2**30, 12.0, "image")
    assert not worth_storing(2**20, 0.001)
