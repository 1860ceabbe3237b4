"""Leases: a key is computed once, whatever becomes of its owner."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from store_processes import finish, kill, running, start
from store_workers import key_of, record

from graphflow.errors import Cancelled
from graphflow.store import Store, owners

KEY = "a" * 40


def test_recording_gives_the_lease_back(store: Store) -> None:
    with store.lease(KEY) as lease:
        assert lease.held
        record(store, KEY, 1)
        assert store.index.rows("SELECT * FROM leases") == []
    with store.lease(KEY) as lease:
        assert lease.result is not None
        assert not lease.held


def test_a_failed_computation_gives_the_lease_back(store: Store) -> None:
    with pytest.raises(RuntimeError), store.lease(KEY):
        raise RuntimeError
    other = Store(store.folder).try_lease(KEY)
    assert other is not None
    assert other.held


def test_one_thread_computes_and_the_others_find_the_result(store: Store) -> None:
    computed: list[str] = []

    def compute(key: str) -> object:
        with store.lease(key) as lease:
            if lease.result is not None:
                return store.load(lease.result.outputs["out"])
            time.sleep(0.01)
            computed.append(key)
            record(store, key, key)
            return key

    keys = [key_of(i) for i in range(5)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(compute, keys * 8)) == keys * 8
    assert sorted(computed) == sorted(keys)


def test_one_process_computes_and_the_others_find_the_result(store: Store) -> None:
    workers = [start("compute", store.folder, "25") for _ in range(3)]
    computed = [line for worker in workers for line in finish(worker)]
    assert sorted(map(int, computed)) == list(range(25))
    assert store.index.rows("SELECT * FROM leases") == []
    assert store.index.rows("SELECT * FROM owners") == []


def test_a_killed_owner_is_noticed_at_once(store: Store) -> None:
    with running("hold", store.folder, KEY) as process:
        assert store.try_lease(KEY) is None
        kill(process)
        lease = store.try_lease(KEY)
    assert lease is not None
    assert lease.held
    assert lease.taken_over


def test_the_wait_names_the_owner_and_can_be_cancelled(store: Store) -> None:
    cancelled = threading.Event()
    told: list[str] = []

    def waiting(owner: str) -> None:
        told.append(owner)
        cancelled.set()

    with running("hold", store.folder, KEY) as process, pytest.raises(Cancelled):
        store.lease(KEY, cancelled, waiting=waiting)
    assert told == [f"process {process.pid} on {os.uname().nodename}"]


def test_an_owner_on_another_machine_is_dead_when_it_does_not_beat(store: Store) -> None:
    row = ("far", "another machine", 1, "1")
    store.index.statement("test", "INSERT INTO owners VALUES (?, ?, ?, ?, ?)", (*row, time.time()))
    store.index.statement("test", "INSERT INTO leases VALUES (?, 'far')", (KEY,))
    assert store.try_lease(KEY) is None
    for beat in (time.time() - owners.TTL - 1, time.time() + owners.TTL + 1):
        store.index.statement("test", "UPDATE owners SET beat = ? WHERE id = 'far'", (beat,))
        store.index.statement("test", "UPDATE leases SET owner = 'far'")
        lease = store.try_lease(KEY)
        assert lease is not None
        assert lease.held
        store.held.clear()


def test_a_reused_process_number_is_not_the_owner(store: Store) -> None:
    entry = (owners.this_host(), os.getpid(), "another start", time.time())
    assert not owners.lives(*entry)
    assert owners.lives(owners.this_host(), os.getpid(), owners.started(os.getpid()), time.time())


def test_a_stalled_owner_can_not_release_what_another_has_taken_over(store: Store) -> None:
    other = Store(store.folder)
    lease = store.lease(KEY)
    store.index.statement("test", "UPDATE owners SET beat = 0.0")
    with other.lease(KEY) as taken:
        assert taken.taken_over
        lease.release()
        assert store.index.rows("SELECT owner FROM leases") == [(other.owner.id,)]
        record(store, KEY, 1)  # both write the same
        record(other, KEY, 1)
    assert store.index.rows("SELECT * FROM leases") == []


def test_a_result_that_is_not_trusted_does_not_count(store: Store) -> None:
    old = record(store, KEY, 1)
    with store.lease(KEY, since=old.created) as lease:
        assert lease.held
        time.sleep(0.001)
        new = record(store, KEY, 2)
    with store.lease(KEY, since=old.created) as lease:
        assert lease.result is not None
        assert lease.result.outputs == new.outputs


def test_a_damaged_result_does_not_block_its_key(store: Store) -> None:
    record(store, KEY, 1)
    store.index.statement("test", "UPDATE results SET body = 'rot'")
    with store.lease(KEY) as lease:
        assert lease.held
        record(store, KEY, 1)
    assert store.result(KEY) is not None


def test_the_heartbeat_beats(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "BEAT", 0.01)
    run = store.begin_run()
    store.index.statement("test", "UPDATE owners SET beat = 0.0")
    deadline = time.monotonic() + 10
    while store.index.row("SELECT beat FROM owners")[0] == 0.0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    store.end_run(run)


def test_a_closed_store_leaves_nothing_behind(store: Store) -> None:
    store.begin_run()
    store.lease(KEY)
    store.close()
    store.close()
    again = Store(store.folder)
    for table in ("owners", "leases", "runs"):
        assert again.index.rows(f"SELECT * FROM {table}") == []


def test_a_store_that_is_forgotten_in_a_transaction_does_not_wait(store: Store) -> None:
    forgotten = [Store(store.folder)]
    forgotten[0].begin_run()
    began = time.monotonic()
    store.index.write("testing", lambda db: forgotten.clear())
    assert time.monotonic() - began < 10
