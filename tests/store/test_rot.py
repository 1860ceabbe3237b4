"""Rot: whatever is flipped, cut off or deleted in a store, what it serves is right or missing."""

from __future__ import annotations

import random
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_workers import key_of, record

from graphflow.errors import StoreError
from graphflow.store import Store

COUNT = 12
VALUES: list[object] = [{"n": i, "text": "x" * 20 * i} for i in range(COUNT)]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A store with results of every kind: with its write-ahead log, as a killed process leaves it, and closed."""
    folder = tmp_path_factory.mktemp("rot") / "store"
    store = Store(folder)
    for i, value in enumerate(VALUES):
        record(store, key_of("json", i), value)
        record(store, key_of("image", i), PIL.Image.new("L", (4, 4 + i), i), "image")
    record(store, key_of("long"), "y" * 40_000)
    store.pin([key_of("json", 1)], "pin")
    copy = folder.parent / "copy"
    shutil.copytree(folder, copy)  # while it is open: with index.sqlite-wal
    store.close()
    (copy / "index.sqlite-shm").unlink(missing_ok=True)
    return [copy, folder]


# The places come from a generator of their own: hypothesis likes round numbers, rot does not.
damages = st.lists(
    st.tuples(st.integers(0, 2**32), st.sampled_from(["flip", "flip", "zero", "cut", "delete", "double"])),
    min_size=1,
    max_size=6,
)


def damage(folder: Path, seed: int, how: str) -> None:
    """Damage one file. Half of the choices fall on the index and its log.

    Left alone is what SQLite maps into the memory of the processes that have the index open, and makes anew otherwise.
    """
    chance = random.Random(seed)
    index = [p for p in (folder / "index.sqlite", folder / "index.sqlite-wal") if p.exists()]
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.endswith("-shm"))
    if not files:
        return
    path = chance.choice(index if index and chance.random() < 0.5 else files)
    data = bytearray(path.read_bytes())
    place = chance.randrange(len(data)) if data else 0
    if how == "delete":
        path.unlink()
        return
    if how == "flip" and data:
        for _ in range(chance.choice([1, 1, 30])):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif how == "zero":
        data[place : place + 600] = bytes(len(data[place : place + 600]))
    elif how == "cut":
        del data[place:]
    elif how == "double":
        data[place:place] = data[place : place + 4096]
    path.write_bytes(data)


def served(store: Store) -> None:
    """Everything that the store serves is what was put in."""
    for i, value in enumerate(VALUES):
        for name, right in (("json", value), ("image", bytes([i]) * 4 * (4 + i))):
            found = store.result(key_of(name, i))
            if found is None:
                continue
            assert (found.kind, found.graph, found.node, found.seconds) == ("k", "g", "n", 1.0)
            with suppress(StoreError):
                assert found.parts == {"of": key_of(name, i)}
            try:
                loaded = store.load(found.outputs["out"])
            except StoreError:
                continue
            assert (loaded.tobytes() if name == "image" else loaded) == right


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1), damages, st.booleans())
def test_rot_never_changes_a_result(
    originals: list[Path], which: int, damaged: list[tuple[int, str]], while_open: bool
) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "store"
        shutil.copytree(originals[which], folder)
        early = Store(folder) if while_open else None
        for choice in damaged:
            damage(folder, *choice)
        if early is not None:
            with suppress(StoreError):
                served(early)
            early.close()
        store = Store(folder)
        served(store)
        store.prefetch("g")
        served(store)
        assert all(r.kind == "k" for r in [*store.earlier("k", "n"), *store.all_results()])
        assert store.cost("k") is None or store.cost("k")
        store.touch([key_of("json", i) for i in range(COUNT)])
        store.usage()
        list(store.verify())
        served(store)
        assert list(store.verify()) == []
        store.collect(10_000)
        store.collect_if_over_budget(0)
        served(store)
        for i, value in enumerate(VALUES):
            record(store, key_of("json", i), value)
            found = store.result(key_of("json", i))
            assert found is not None
            assert store.load(found.outputs["out"]) == value
        store.close()
