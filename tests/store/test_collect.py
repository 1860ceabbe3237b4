"""Collecting: what goes, what stays, and that nobody notices who uses the store meanwhile."""

from __future__ import annotations

import os
import time
from pathlib import Path

import PIL.Image
import pytest
from store_processes import finish, kill, running, start
from store_workers import key_of, record

from graphflow.errors import DamagedBlobError, UsageError
from graphflow.store import Result, Store, Stored, budget, default_budget, owners

ROOM = 2**40


def picture(store: Store, i: int, seconds: float = 1.0, key: str | None = None) -> Result:
    """A result with a picture of its own, about 3 KiB, that was last used long ago."""
    image = PIL.Image.effect_noise((32, 32), 90).convert("RGB")
    result = record(store, key or key_of("picture", i), image, "image", seconds)
    age(store)
    return result


def age(store: Store, by: float = 7200) -> None:
    """Let everything in the store have been used long ago."""
    for table in ("results", "blobs"):
        store.index.statement("test", f"UPDATE {table} SET used = ? WHERE used > ?", (time.time() - by,) * 2)


def stored(result: Result) -> Stored:
    """The only output."""
    return result.outputs["out"]


def files(store: Store) -> list[Path]:
    """All files of blobs."""
    return [p for p in (store.folder / "blobs").rglob("*") if p.is_file()]


def test_the_cheapest_results_are_evicted_and_their_digests_stay(store: Store) -> None:
    cheap, dear = picture(store, 1, 0.1), picture(store, 2, 10.0)
    room = store.total_bytes() - stored(cheap).bytes
    done = store.collect(room)
    assert (done.evicted, done.results, done.blobs) == ([cheap.key], [], 1)
    assert (done.freed, done.left) == (stored(cheap).bytes, room)
    assert not store.has(stored(cheap))
    assert store.has(stored(dear))
    found = store.result(cheap.key)
    assert found is not None
    assert found.evicted
    assert found.outputs == cheap.outputs
    assert list(store.verify()) == []
    again = record(store, cheap.key, PIL.Image.new("L", (2, 2)), "image")
    found = store.result(again.key)
    assert found is not None
    assert not found.evicted


def test_a_dry_run_says_the_same_and_does_nothing(store: Store) -> None:
    results = [picture(store, i, float(i)) for i in range(5)]
    (store.folder / "blobs" / "ab").mkdir(exist_ok=True)
    (store.folder / "blobs" / "ab" / ("ab" * 20 + ".png")).write_text("stray")
    room = store.total_bytes() - 3 * stored(results[0]).bytes
    before = sorted(files(store))
    said = store.collect(room, dry_run=True)
    assert sorted(files(store)) == before
    assert len(said.evicted) >= 2
    assert store.collect(room) == said


def test_pinned_results_stay(store: Store) -> None:
    pinned, free = picture(store, 1), picture(store, 2)
    assert store.pin([pinned.key], "paper") == 1
    store.collect(0, max_age=0)
    assert store.has(stored(pinned))
    assert store.result(pinned.key) is not None
    assert store.result(free.key) is None
    assert store.pins() == {"paper": [pinned.key]}
    assert store.unpin("paper") == 1
    store.collect(0)
    assert files(store) == []
    with pytest.raises(UsageError, match="nothing is pinned"):
        store.unpin("paper")


def test_what_a_live_run_uses_stays(store: Store) -> None:
    old, touched = picture(store, 1), picture(store, 2)
    runner = Store(store.folder)
    run = runner.begin_run()
    runner.touch([touched.key])
    new = record(runner, key_of("new"), PIL.Image.new("RGB", (9, 9)), "image")
    unnamed = runner.put(PIL.Image.new("RGB", (7, 7)), "image")
    store.collect(0, max_age=0)
    assert [runner.has(v) for v in (stored(old), stored(touched), stored(new), unnamed)] == [False, True, True, True]
    runner.end_run(run)
    store.collect(0)
    assert len(files(store)) == 1  # put lately, named by no result: perhaps its result is about to be recorded
    age(store)
    store.collect(0)
    assert files(store) == []


def test_a_dead_run_protects_nothing(store: Store) -> None:
    with running("stage", store.folder) as process:
        old = picture(store, 1)
        store.touch([old.key])
        staged = list((store.folder / "tmp").iterdir())
        assert len(staged) == 1
        store.collect(0)
        assert store.has(stored(old))
        assert list((store.folder / "tmp").iterdir()) == staged
        kill(process)
        done = store.collect(0)
    assert not store.has(stored(old))
    assert done.leftovers == [f"tmp/{staged[0].name}"]
    assert list((store.folder / "tmp").iterdir()) == []
    assert len(store.index.rows("SELECT * FROM owners")) == 1


def test_leftovers_of_unknown_owners_go_when_they_are_old(store: Store) -> None:
    now = time.time()
    for name, age in [("run-young", 60), ("run-old", 7200)]:
        (store.folder / "tmp" / name).mkdir()
        os.utime(store.folder / "tmp" / name, (now - age, now - age))
    for name, days in [("a" * 40, 15), ("b" * 40, 13), ("c" * 40, 15)]:
        store.checkpoint(name)
        os.utime(store.folder / "checkpoints" / name, (now - days * 86400,) * 2)
    with store.lease("c" * 40):
        assert store.collect().leftovers == ["tmp/run-old", f"checkpoints/{'a' * 40}"]


def test_strays_and_lost_files_are_found(store: Store) -> None:
    kept, lost = picture(store, 1), picture(store, 2)
    stray = store.path("ab" * 20, "image")
    stray.parent.mkdir(exist_ok=True)
    stray.write_text("left by a process that was killed before its row was written")
    store.path(stored(lost).digest, "image").unlink()
    done = store.collect(ROOM)
    assert done.leftovers == [f"blobs/ab/{stray.name}"]
    assert not stray.exists()
    assert store.has(stored(kept))
    assert store.total_bytes() == stored(kept).bytes + store.index_bytes()
    with pytest.raises(DamagedBlobError):
        store.load(stored(lost))


def test_shared_values_stay_as_long_as_a_result_names_them(store: Store) -> None:
    image = PIL.Image.new("RGB", (5, 5))
    one, two = (record(store, key_of(i), image, "image") for i in range(2))
    age(store)
    store.forget(one.key)
    store.collect(ROOM)
    assert store.has(stored(two))
    store.forget(two.key)
    store.collect(ROOM)
    assert not store.has(stored(two))


def test_inputs_stay_within_the_budget(store: Store) -> None:
    image = store.put(PIL.Image.new("RGB", (5, 5)), "image", is_input=True)
    text = store.put("text", "json", is_input=True)
    age(store)
    store.collect(ROOM, max_age=9000)
    assert store.has(image)
    assert store.has(text)
    store.collect(0)
    assert not store.has(image)
    store.collect(ROOM, max_age=7000)
    assert not store.has(text)


def test_unused_results_go_altogether(store: Store) -> None:
    old, new = picture(store, 1), picture(store, 2)
    store.touch([new.key])
    done = store.collect(ROOM, max_age=3600)
    assert (done.results, done.evicted) == ([old.key], [])
    assert store.result(old.key) is None
    assert store.result(new.key) is not None


def test_a_store_within_its_budget_is_left_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    results = [picture(store, i) for i in range(4)]
    total = store.total_bytes()
    assert store.collect_if_over_budget(total) is None
    monkeypatch.setenv(budget.VARIABLE, f"{total - 1}B")
    done = store.collect_if_over_budget()
    assert done is not None
    assert done.left <= 0.9 * total
    assert 0 < len(done.evicted) < 4
    store.pin([r.key for r in results], "all")
    assert store.collect_if_over_budget(1) is not None
    assert store.collect_if_over_budget(1) is None  # nothing more can go: it does not try again each time


def test_what_a_run_held_goes_when_the_run_has_ended(store: Store) -> None:
    run = store.begin_run()
    result = record(store, key_of(1), PIL.Image.effect_noise((64, 64), 90), "image")
    room = store.total_bytes() - 1
    done = store.collect_if_over_budget(room)
    assert done is not None
    assert store.has(stored(result))
    assert store.collect_if_over_budget(room) is None
    store.end_run(run)
    age(store)
    assert store.collect_if_over_budget(room) is not None
    assert not store.has(stored(result))


def test_what_a_pin_held_goes_when_the_pin_is_gone(store: Store) -> None:
    result = picture(store, 1)
    room = store.total_bytes() - 1
    store.pin([result.key], "mine")
    assert store.collect_if_over_budget(room) is not None
    assert store.collect_if_over_budget(room) is None
    store.unpin("mine")
    assert store.collect_if_over_budget(room) is not None
    assert not store.has(stored(result))


def test_a_process_that_can_not_say_that_it_lives_keeps_its_files(store: Store) -> None:
    store.begin_run()
    scratch = store.scratch()
    store.index.statement("test", "UPDATE owners SET beat = ?", (time.time() - 2 * owners.TTL,))
    result = record(store, key_of(1), PIL.Image.new("L", (9, 9)), "image")
    Store(store.folder).collect(0)
    assert scratch.is_dir()
    assert store.has(stored(result))
    store.index.statement("test", "UPDATE owners SET started = 'another'")  # a later process with its number
    Store(store.folder).collect(0)
    assert not scratch.exists()


def test_the_budget_of_the_user_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < default_budget(tmp_path) <= budget.LARGEST_DEFAULT
    monkeypatch.setenv(budget.VARIABLE, "1.5 GiB")
    assert default_budget(tmp_path) == 3 * 2**29
    monkeypatch.setenv(budget.VARIABLE, "much")
    with pytest.raises(UsageError, match=r"GRAPHFLOW_STORE_BUDGET: 'much' is no size"):
        default_budget(tmp_path)


def test_the_running_total_is_right(store: Store) -> None:
    results = [picture(store, i) for i in range(3)]
    store.put([PIL.Image.new("L", (4, i)) for i in range(1, 9)], "image", is_list=True)
    store.path(stored(results[0]).digest, "image").write_bytes(b"damaged")
    with pytest.raises(DamagedBlobError):
        store.load(stored(results[0]))
    on_disk = sum(p.stat().st_size for p in files(store)) - len(b"damaged")
    assert store.total_bytes() - store.index_bytes() == on_disk


def test_only_one_process_collects(store: Store) -> None:
    picture(store, 1)
    with store.lease("collect"):
        assert Store(store.folder).collect(0).busy
    assert not Store(store.folder).collect(0).busy


@pytest.mark.parametrize("when", ["recorded", "touched", "pinned"])
def test_what_is_used_after_the_snapshot_stays(store: Store, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    doomed = picture(store, 1)
    other = Store(store.folder)
    decide = store._snapshot

    def decided_before() -> object:
        snapshot = decide()
        if when == "recorded":  # another result with the same value, which is not written again
            other.record(Result(key_of("new"), "k", "g", "n", {}, doomed.outputs, 1.0, time.time()))
        elif when == "touched":
            other.touch([doomed.key])
        else:
            other.pin([doomed.key], "it")
        return snapshot

    monkeypatch.setattr(store, "_snapshot", decided_before)
    assert store.collect(0).evicted == []
    assert store.has(stored(doomed))


def test_processes_run_while_others_collect(store: Store) -> None:
    for i in range(10):
        picture(store, i, key=key_of("old", i))
    workers = [start("run_and_read", store.folder, str(n)) for n in range(2)]
    collected = 0
    while any(worker.poll() is None for worker in workers):
        collected += len(store.collect(0).evicted)
    for worker in workers:
        assert finish(worker)[-1].startswith("read")
    assert list(store.verify()) == []
    store.collect(0)
    assert files(store) == []
    assert list((store.folder / "tmp").iterdir()) == []


def test_several_processes_write_one_store(store: Store) -> None:
    workers = [start("write_many", store.folder, str(n)) for n in range(3)]
    for worker in workers:
        finish(worker)
    assert len(store.all_results()) == 180
    assert len(files(store)) == 60
    assert list(store.verify()) == []
