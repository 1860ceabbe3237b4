"""Laws that hold for every graph: what the plan says is what the run does, what did not change does not run, and
whatever happens to the store, results are those of a plain interpreter that knows no store."""

from __future__ import annotations

import json
import os
import random
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import random_graphs as rg
import samples
from harness import Harness
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from reference import KINDS, Computation, Reference, TooLargeError

from graphflow.errors import InvalidError, StoreError
from graphflow.events import RunFinished, RunStarted
from graphflow.plan import Plan
from graphflow.record import RunRecord
from graphflow.store import Store

QUIET = list(HealthCheck)  # a graph that is left out, or a slow machine, is no finding
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]  # making a failing graph smaller takes minutes, and helps little


def law(examples: int) -> settings:
    """How often a law is tried."""
    return settings(max_examples=examples, deadline=None, suppress_health_check=QUIET, phases=PHASES)


class World:
    """A random graph with its files, a store, and values that change from run to run."""

    def __init__(self, data: st.DataObject, folder: Path, unstored: bool = False) -> None:
        self.data, self.folder, self.unstored = data, folder, unstored
        self.graphs = data.draw(rg.graphs(unstored), "graph")
        self.graphs.write(folder)
        self.harness = Harness(Store(folder / "store"), self.graphs.text, folder)
        self.given = data.draw(rg.givens(self.graphs.inputs), "inputs")
        self.settings: dict[str, Any] = {}
        self.possible()
        self.reference()
        self.seen: set[Computation] = set()
        self.keys: dict[Computation, str] = {}

    def possible(self) -> None:
        """Leave out graphs that pass on what can't be passed on, the one thing that the generator does not avoid."""
        try:
            self.harness.session(self.settings)
        except InvalidError as error:
            assume(any(d.code != "GF118" for d in error.diagnostics))
            raise

    def change(self) -> None:
        """Change one input or one setting, or nothing."""
        what = self.data.draw(st.sampled_from(["input", "setting", "nothing", "input", "setting"]), "change")
        if what == "input":
            new = self.data.draw(rg.givens(self.graphs.inputs), "inputs")
            lists = {n for n, i in self.graphs.inputs.items() if "[" in i["type"]}
            name = self.data.draw(st.sampled_from(sorted(self.graphs.inputs)), "changed")
            names = lists if name in lists else {name}
            self.given = {n: new[n] if n in names else v for n, v in self.given.items()}
        elif what == "setting" and (possible := self.graphs.settings()):
            name, type_name = self.data.draw(st.sampled_from(possible), "setting")
            self.settings = {**self.settings, name: self.data.draw(rg.values(type_name), "value")}
            self.possible()

    @property
    def engine_inputs(self) -> dict[str, Any]:
        return rg.for_engine(self.given)

    def reference(self) -> Reference:
        try:
            return Reference(self.graphs.files, self.settings, rg.for_reference(self.given))
        except TooLargeError:
            assume(False)
            raise

    def plan(self) -> Plan:
        self.reference()
        return self.harness.plan(self.settings, **self.engine_inputs)

    def run(self) -> tuple[RunRecord, Reference]:
        """Run; the outputs, and who computed what, are those of the reference."""
        reference = self.reference()
        samples.RUNS.clear()
        self.runner = self.harness.session(self.settings).runner(self.engine_inputs, self.harness.events.append)
        done = self.runner.run()
        assert {n: rg.plain_value(done[n]) for n in reference.outputs} == reference.outputs
        record = done.record
        assert {n: r.kind for n, r in record.nodes.items()} == {n: c.kind for n, c in reference.instances.items()}
        ran = Counter(r.kind.partition(".")[2] for r in record.nodes.values() if r.status == "ran")
        assert ran <= samples.RUNS, "what the record says is what the nodes themselves have counted"
        if not self.unstored:  # a value that was let go runs again when it turns out that somebody needs it
            assert ran == samples.RUNS
        for name, found in reference.instances.items():
            assert self.keys.setdefault(found, record.nodes[name].key or "") == record.nodes[name].key
        assert len(set(self.keys.values())) == len(self.keys), "other computations have other keys"
        return record, reference


def agree(plan: Plan, record: RunRecord, stored: set[str] | None) -> None:
    """The run has done what the plan said.

    Args:
        plan: what was planned.
        record: what was done.
        stored: keys of the results that the store had before; None when some have no stored values.
    """
    ways = {"cached": {"cached"}, "run": {"ran"}, "maybe": {"ran", "cached"}}
    left = dict(record.nodes)
    maybe = dict(record.nodes)
    for name, planned in plan.nodes.items():
        pattern = re.escape(name)
        if planned.index is None:  # several, whose list was not known
            pattern = pattern.replace(re.escape("…"), r"\d+")
        for instance in [n for n in left if re.fullmatch(pattern, n)]:
            node = left.pop(instance)
            assert node.status in ways[planned.status], f"{instance}: {planned.status}, but {node.status}"
            assert planned.key in (None, node.key)
            if planned.status != "maybe":
                del maybe[instance]
    assert not left, "the run has instances that the plan did not name"
    if stored is None:
        return
    ran = Counter(node.key for node in record.nodes.values() if node.status == "ran")
    for node in maybe.values():  # of several with one key, whichever comes first runs
        if not KINDS[node.kind].always_runs:
            assert ran[node.key] == (node.key not in stored), "a maybe runs, once, exactly when its key is not stored"


@law(60)
@given(st.data())
def test_plan_and_run_agree_and_exactly_the_cone_of_a_change_runs(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    world = World(data, tmp_path_factory.mktemp("world"))
    for _ in range(data.draw(st.integers(1, 4), "runs")):
        stored = {r.key for r in world.harness.store.all_results()}
        plan = world.plan()
        record, reference = world.run()
        agree(plan, record, stored)
        ran = Counter(c for n, c in reference.instances.items() if record.nodes[n].status == "ran")
        expected = Counter(
            {
                c: count if KINDS[c.kind].always_runs else int(c not in world.seen)
                for c, count in Counter(reference.instances.values()).items()
            }
        )
        assert ran == +expected
        world.seen |= set(reference.instances.values())
        world.change()
    world.harness.store.close()


@law(25)
@given(st.data())
def test_values_that_are_not_stored_come_again_when_they_are_wanted(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    world = World(data, tmp_path_factory.mktemp("world"), unstored=True)
    for _ in range(data.draw(st.integers(1, 4), "runs")):
        plan = world.plan()
        record, _ = world.run()
        agree(plan, record, None)
        world.change()
    world.harness.store.close()


@pytest.fixture(scope="module")
def others() -> Iterator[list[subprocess.Popen[str]]]:
    """Two processes with other hash seeds."""
    worker = Path(rg.__file__).with_name("keys_worker.py")
    found = [
        subprocess.Popen(
            [sys.executable, str(worker)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        for seed in ("1", "2")
    ]  # fmt: skip
    yield found
    for process in found:
        process.communicate(timeout=60)


def shuffled(value: Any, chance: random.Random) -> Any:
    """The same mapping with its keys in another order, at every level."""
    if not isinstance(value, dict):
        return value
    keys = list(value)
    chance.shuffle(keys)
    return {key: shuffled(value[key], chance) for key in keys}


@law(15)
@given(st.data())
def test_keys_depend_on_nothing_but_what_is_computed(
    tmp_path_factory: pytest.TempPathFactory, others: list[subprocess.Popen[str]], data: st.DataObject
) -> None:
    """Not on the order of keys, the file's place, the process, its hash seed, or where the pictures lie."""
    world = World(data, tmp_path_factory.mktemp("world"))
    world.change()
    record, _ = world.run()
    chance = random.Random(data.draw(st.integers(0, 10**6)))
    for process in others:
        folder = tmp_path_factory.mktemp("another place") / "a folder"
        folder.mkdir()
        rg.Graphs({place: shuffled(graph, chance) for place, graph in world.graphs.files.items()}).write(folder)
        given = rg.for_engine(world.given, lambda colour: {"colour": colour})
        assert process.stdin is not None
        assert process.stdout is not None
        print(json.dumps({"folder": str(folder), "given": given, "settings": world.settings}), file=process.stdin)
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {name: node.key for name, node in record.nodes.items()}
    world.harness.store.close()


class Collecting(list[Any]):
    """Takes the events of a run, and lets another process's collection happen between them."""

    def __init__(self, world: World, pinned: set[str]) -> None:
        self.world, self.pinned, self.live = world, pinned, False
        self.chance = random.Random(world.data.draw(st.integers(0, 10**6), "moments"))

    def append(self, event: Any) -> None:
        if isinstance(event, RunStarted | RunFinished):
            self.live = isinstance(event, RunStarted)
        if self.chance.random() < 0.1:
            store = self.world.harness.store
            known = self.world.runner.known.digests if self.world.runner.begun else {}
            used = [stored for place, stored in known.items() if place.node != "inputs" and store.has(stored)]
            self.collect()
            # What a run that is over has made may go: who still reads its outputs has them computed again.
            assert not self.live or all(map(store.has, used))

    def collect(self) -> None:
        with closing(Store(self.world.folder / "store")) as store:
            store.collect(self.chance.choice([0, 0, 300, None]), self.chance.choice([None, 0.0, 100.0]))
            kept = [stored for key in self.pinned if (found := store.result(key)) for stored in found.outputs.values()]
            assert len({key for key in self.pinned if store.result(key)}) == len(self.pinned)
            assert all(store.has(stored) for stored in kept)


def age(store: Store) -> None:
    """Everything in the store was used long ago."""
    store.fetched.clear()  # it remembers rows that are changed behind its back here
    with closing(sqlite3.connect(store.folder / "index.sqlite")) as db, db:
        for table in ("results", "blobs"):
            db.execute(f"UPDATE {table} SET used = used - 7200")


@law(25)
@given(st.data())
def test_collecting_at_any_moment_drops_nothing_that_is_pinned_or_in_use(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    world = World(data, tmp_path_factory.mktemp("world"), unstored=True)
    pinned: set[str] = set()
    collecting = Collecting(world, pinned)
    world.harness.events = collecting
    for _ in range(data.draw(st.integers(2, 4), "runs")):
        record, _ = world.run()
        collecting.collect()
        keys = sorted(node.key for node in record.nodes.values() if node.key)
        new = set(data.draw(st.lists(st.sampled_from(keys), max_size=3), "pinned")) if keys else set()
        with closing(Store(world.folder / "store")) as store:
            new = {key for key in new if (found := store.result(key)) and all(map(store.has, found.outputs.values()))}
            store.pin(new, "kept")
        pinned |= new
        age(world.harness.store)
        world.change()
    world.harness.store.close()


def damage(folder: Path, chance: random.Random) -> None:
    """Damage a file of a store. What SQLite maps into memory while the index is open is made anew when it is opened."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.endswith("-shm"))
    if not files:  # all were deleted
        return
    index = [p for p in files if p.name.startswith("index.sqlite")]
    path = chance.choice(index if index and chance.random() < 0.4 else files)
    content = bytearray(path.read_bytes())
    how = chance.choice(["flip", "flip", "cut", "delete", "empty", "noise"])
    if how == "delete":
        path.unlink()
        return
    if how == "flip":
        for _ in range(chance.choice([1, 1, 20]) if content else 0):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    elif how == "noise":
        place = chance.randrange(len(content) + 1)
        content[place : place + 500] = chance.randbytes(300)
    path.write_bytes(
        b"" if how == "empty" else content[: chance.randrange(len(content) + 1)] if how == "cut" else content
    )


@law(40)
@given(st.data())
def test_damage_to_any_file_of_the_store_never_changes_a_result(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("world")
    world = World(data, folder, unstored=True)
    chance = random.Random(data.draw(st.integers(0, 10**6), "damage"))
    for _ in range(3):
        world.run()
        world.harness.store.close()
        for _ in range(chance.randint(1, 4)):
            damage(folder / "store", chance)
        try:
            world.harness.store = Store(folder / "store")
        except StoreError as error:
            if "newer graphflow" in str(error):  # the index says so now
                return
            raise
        world.change()
    world.harness.store.close()
