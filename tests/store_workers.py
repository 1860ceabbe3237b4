"""What the tests' other processes do: ``python store_workers.py WHAT FOLDER …``; each prints a line a step."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import PIL.Image

from graphflow.codecs import digest_json
from graphflow.store import Result, Store


def key_of(*parts: object) -> str:
    """A key as the engine would make it."""
    return digest_json(list(parts))


def record(store: Store, key: str, value: object, codec: str = "json", seconds: float = 1.0, node: str = "n") -> Result:
    """Store a value as the only output of a result."""
    prepared = store.prepare(value, codec)
    result = Result(key, "k", "g", node, {"of": key}, {"out": prepared.stored}, seconds, time.time())
    store.record(result, [prepared])
    return result


def write_many(folder: Path, start: str) -> None:
    """Sixty results with pictures; pictures are shared by all processes."""
    store = Store(folder)
    for i in range(60):
        store.put(PIL.Image.new("RGB", (8, 8), (i, 0, 0)), "image")
        record(store, f"{start}-{i}", {"n": i})


def hold(folder: Path, key: str) -> None:
    """Hold a lease for ever."""
    store = Store(folder)
    with store.lease(key) as lease:
        print("held" if lease.held else "not held", flush=True)
        time.sleep(600)


def compute(folder: Path, count: str) -> None:
    """Compute keys, each once among all processes; prints those that this process has computed."""
    store = Store(folder)
    for i in range(int(count)):
        key = key_of("shared", i)
        with store.lease(key) as lease:
            if lease.held:
                time.sleep(0.002)
                record(store, key, {"value": i})
                print(i, flush=True)
            else:
                assert lease.result is not None
                assert store.load(lease.result.outputs["out"]) == {"value": i}


def run_and_read(folder: Path, start: str) -> None:
    """A live run beside collections: everything it has recorded or touched must be readable until it ends."""
    store = Store(folder)
    run = store.begin_run()
    old = [key_of("old", i) for i in range(10)]
    used = {key: found.outputs["out"] for key in old if (found := store.result(key)) is not None}
    store.touch(used)
    used = {key: stored for key, stored in used.items() if store.has(stored)}
    print("touched", flush=True)
    for i in range(40):
        key = key_of(start, i)
        picture = PIL.Image.new("RGB", (16, 16), (i, i, 0))  # the same in every process
        used[key] = record(store, key, picture, "image").outputs["out"]
        for stored in used.values():
            store.load(stored)
    store.end_run(run)
    print("read", len(used), flush=True)


def stage(folder: Path) -> None:
    """Write a value's file, and never enter it."""
    store = Store(folder)
    prepared = store.prepare(PIL.Image.new("RGB", (8, 8)), "image")
    store.begin_run()
    store.checkpoint("unfinished")
    print(len(prepared.blobs), flush=True)
    time.sleep(600)


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
