"""Plans and runs: what the plan says is what the run does, and nothing that is finished is computed again."""

from __future__ import annotations

import errno
import gc
from pathlib import Path
from typing import Any

import pytest
import samples
from harness import Harness, statuses
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphflow.codecs import CODECS
from graphflow.errors import ContractError, InvalidError, NodeError, NoOutputError, UsageError
from graphflow.events import Logged, NodeFinished, NodeProgress, RunFinished
from graphflow.node import Context, Node, Ports
from graphflow.ports import Scores, Table, Text, Weights
from graphflow.store import Store

GRAPH = """
graphflow: 1
inputs:
  text: {type: Text, default: hello}
  n: {type: int, default: 3}
nodes:
  shout: {uses: sample.shout, in: {text: inputs.text}}
  rep: {uses: sample.repeat, in: {text: shout.text, times: inputs.n}}
  join: {uses: sample.join, in: {texts: rep.texts}, with: {separator: "-"}}
  count: {uses: sample.count, in: {text: join.text}}
outputs: {text: join.text, length: count.length}
"""
RETURNS = "graphflow: 1\nnodes: {a: {uses: sample.returns}}\noutputs: {value: a.value}\n"


@pytest.fixture
def harness(store: Store) -> Harness:
    return Harness(store, GRAPH)


def test_a_second_run_computes_nothing(harness: Harness, tmp_path: Path) -> None:
    assert harness.run()["text"] == "HELLO!-HELLO!-HELLO!"
    assert sum(samples.RUNS.values()) == 4
    harness.store = Store(tmp_path / "store")  # another process sees the same store
    done = harness.run()
    assert (done["text"], done["length"]) == ("HELLO!-HELLO!-HELLO!", 20)
    assert not samples.RUNS
    assert {n.status for n in done.record.nodes.values()} == {"cached"}


def test_a_run_is_a_mapping_of_its_outputs(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    done = harness.run()
    with monkeypatch.context() as patch:
        patch.setattr(done.runner, "output", None)  # nothing of this reads a value
        assert (list(done), len(done), "text" in done, "txt" in done) == (["text", "length"], 2, True, False)
        assert list(done.keys()) == ["text", "length"]
        assert repr(done) == "Run(done; text, length)"
    assert dict(done) == {"text": "HELLO!-HELLO!-HELLO!", "length": 20}
    assert done.get("txt", "none") == "none"


def test_an_output_that_is_not_there_is_refused_with_those_that_are(harness: Harness) -> None:
    done = harness.run()
    with pytest.raises(UsageError, match=r"^the run has no output 'txt'; it has: text, length; did you mean text\?$"):
        done["txt"]
    with pytest.raises(NoOutputError, match="no output 'lengths'"):
        list(done.elements("lengths"))
    with pytest.raises(KeyError, match="no output '0'"):
        done[0]  # type: ignore[index]


def test_early_cut_off_stops_where_bytes_agree(harness: Harness) -> None:
    harness.run()
    harness.run(text="HELLO")  # another input, the same capitals
    assert dict(samples.RUNS) == {"shout": 1}


def test_only_what_depends_on_the_change_runs(harness: Harness) -> None:
    harness.run()
    harness.run(settings={"join.separator": "+"})
    assert dict(samples.RUNS) == {"join": 1, "count": 1}


def test_plan_gives_status_and_reason(harness: Harness) -> None:
    assert statuses(harness.plan()) == ["run", "maybe", "maybe", "maybe"]
    assert harness.plan().nodes["shout"].reason == "no earlier result"
    harness.run()
    assert statuses(harness.plan()) == ["cached"] * 4
    plan = harness.plan(n=4)
    assert statuses(plan) == ["cached", "run", "maybe", "maybe"]
    assert plan.nodes["rep"].reason == "parameter times 3 → 4 changed"
    assert plan.nodes["rep"].seconds is not None


def test_why_names_the_parameter_and_its_source(harness: Harness) -> None:
    harness.run()
    found = harness.why("count", n=5)
    assert "rep runs: parameter times 3 → 5 changed" in found
    assert "times comes from inputs.n" in found
    assert harness.why("shout").startswith("shout is cached")


def test_why_shows_both_texts_of_a_changed_input(harness: Harness) -> None:
    harness.run()
    assert "text comes from inputs.text: 'hello' → 'good day'" in harness.why("shout", text="good day")


def test_a_failure_keeps_what_is_finished_and_names_the_node(store: Store) -> None:
    failing = Harness(store, GRAPH.replace("sample.count", "sample.fail").replace("count.length", "count.text"))
    with pytest.raises(NodeError, match=r"node 'count' \(sample.fail\) failed: RuntimeError: boom"):
        failing.run()
    assert isinstance(failing.events[-1], RunFinished)
    assert failing.events[-1].status == "failed"
    Harness(store, GRAPH).run()
    assert dict(samples.RUNS) == {"count": 1}


def test_an_interrupt_keeps_what_is_finished(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(store, GRAPH)

    def interrupted(self: samples.Join, x: Any, ctx: Context) -> Any:
        for _ in ctx.steps(range(10)):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(samples.Join, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            harness.run()
        assert harness.events[-1].status == "cancelled"  # type: ignore[attr-defined]
    harness.run()
    assert dict(samples.RUNS) == {"join": 1, "count": 1}


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_a_damaged_value_is_computed_again_never_served(store: Store, damage: str) -> None:
    text = GRAPH.replace("default: hello", f"default: {'long ' * 20000}")  # too long for the index: a file
    harness = Harness(store, text)
    expected = harness.run()["text"]
    files = [p for p in (store.folder / "blobs").rglob("*") if p.is_file()]
    assert files
    for path in files:
        if damage == "remove":
            path.unlink()
        else:
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data if damage == "flip" else data[:-1])
    done = harness.run()
    assert done["text"] == expected
    logged = [e.message for e in harness.events if isinstance(e, Logged)]
    if damage == "flip":  # seen when it is read
        assert "is truncated or altered; computing join again" in logged[0]
    else:
        hint = "graphflow cache verify looks at all"
        assert logged == [f"warning: 2 stored results were damaged or missing and are computed again; {hint}"]
    list(store.verify())  # drops damaged values that no node has asked for
    harness.run()
    assert not samples.RUNS
    assert list(store.verify()) == []


def test_a_full_disk_costs_the_cache_not_the_run(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    harness.text = GRAPH.replace("default: hello", f"default: {'long ' * 20000}")

    def full(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("graphflow.store.os.fsync", full)
        done = harness.run()
        assert done["text"].startswith("LONG")
    warnings = [e.message for e in harness.events if isinstance(e, Logged)]
    assert len(warnings) == 1
    assert "the disk is full" in warnings[0]
    assert list(harness.store.verify()) == []
    assert not list((harness.store.folder / "tmp").iterdir())
    assert harness.run()["text"] == done["text"]


def test_what_a_full_disk_refused_is_stored_by_the_next_run(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Folder(Node, kind="sample.run_folder"):
        """Writes a folder, after a note into its checkpoint."""

        class In(Ports):
            text: Text

        class Out(Ports):
            weights: Weights["vae"]

        def run(self, x: In, ctx: Context) -> Out:
            samples.RUNS["folder"] += 1
            assert ctx.checkpoint is not None
            (ctx.checkpoint / "note").write_text("half")
            folder = ctx.folder()
            (folder / "bin").write_bytes(b"x" * 200_000)
            return self.Out(weights=folder)

    text = GRAPH.partition("nodes:")[0] + (
        "nodes:\n  f: {uses: sample.run_folder, in: {text: inputs.text}}\noutputs: {weights: f.weights}\n"
    )
    harness = Harness(store, text)

    def full(*args: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(CODECS["folder"], "write", full)
        done = harness.run()
    assert (done["weights"] / "bin").stat().st_size == 200_000, "it can be read as long as the run can be asked"
    assert list((store.folder / "checkpoints").iterdir())
    del done
    gc.collect()
    assert not list((store.folder / "tmp").iterdir())
    assert (harness.run()["weights"] / "bin").exists()
    assert not list((store.folder / "checkpoints").iterdir())
    harness.run()
    assert not samples.RUNS


def test_what_was_not_worth_storing_is_stored_when_it_becomes_an_output(store: Store) -> None:
    graph = """graphflow: 1
inputs: {text: {type: Text, default: hello}}
nodes:
  long: {uses: sample.long, in: {text: inputs.text}}
  count: {uses: sample.count, in: {text: long.text}}
outputs: {found: %s}
"""
    Harness(store, graph % "count.length").run()
    harness = Harness(store, graph % "long.text")
    harness.run()
    assert samples.RUNS == {"long": 1}
    harness.run()
    assert not samples.RUNS


def test_a_wrong_budget_is_said_before_anything_is_computed(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHFLOW_STORE_BUDGET", "lots")
    with pytest.raises(UsageError, match="GRAPHFLOW_STORE_BUDGET"):
        harness.run()
    assert not samples.RUNS


def test_progress_counts_every_step(harness: Harness) -> None:
    harness.run(n=5)
    steps = [(e.step, e.total) for e in harness.events if isinstance(e, NodeProgress)]
    assert steps == [(i, 5) for i in range(6)]
    finished = [e.node for e in harness.events if isinstance(e, NodeFinished)]
    assert finished == ["shout", "rep", "join", "count"]


def test_a_node_must_return_what_its_ports_promise(store: Store) -> None:
    class Liar(Node, kind="sample.liar"):
        """Returns a number where text is promised."""

        class In(Ports):
            text: Text

        class Out(Ports):
            text: Text

        def run(self, x: Any, ctx: Context) -> Any:
            return self.Out(text={1, 2})

    with pytest.raises(ContractError, match=r"output 'text' \(Text\): it is not JSON"):
        Harness(store, GRAPH.replace("sample.shout", "sample.liar")).run()


def returns(hint: Any, value: Any) -> None:
    """The kind `sample.returns`, which returns a value where another type may be promised."""

    class Returns(Node, kind="sample.returns"):
        """Returns what it is told."""

        class In(Ports):
            pass

        Out = type("Out", (Ports,), {"__annotations__": {"value": hint}, "__module__": __name__})

        def run(self, x: Any, ctx: Context) -> Any:
            return self.Out(value=value)


@pytest.mark.parametrize(
    ("hint", "value", "says"),
    [
        (Text, 3, r"output 'value' \(Text\): it is int, expected text"),
        (Text, None, r"it is NoneType, expected text"),
        (list[Text], ["a", 3, None], r"output 'value' \(list\[Text\]\): it is int, expected text"),
        (int, 3.0, "it is float, expected int"),
        (int, True, "it is bool, expected int"),
        (float, "3", "it is str, expected float"),
        (bool, 1, "it is int, expected bool"),
        (Scores, {"a": "b"}, "its 'a' is str, expected a number or None"),
        (Scores, {"a": float("nan")}, "it holds NaN or infinity"),
        (Scores, {1: 2.0}, "a score is called 1, expected text"),
        (Scores, [1.0], "it is list, expected named numbers"),
        (Table, [{"a": 1}, 3], "row 1 is no mapping of names to values"),
    ],
)
def test_a_plain_value_of_another_type_is_the_nodes_failure(store: Store, hint: Any, value: Any, says: str) -> None:
    returns(hint, value)
    harness = Harness(store, RETURNS)
    for _ in range(2):
        with pytest.raises(ContractError, match=f"node 'a' .*{says}"):
            harness.run()
    assert statuses(harness.plan()) == ["run"], "nothing is stored"


@pytest.mark.parametrize(
    ("hint", "value"), [(float, 3), (Scores, {"a": 1, "b": 0.5, "c": None}), (Table, ({"a": None},)), (bool, True)]
)
def test_what_a_plain_type_takes(store: Store, hint: Any, value: Any) -> None:
    returns(hint, value)
    assert Harness(store, RETURNS).run()["value"] == (list(value) if isinstance(value, tuple) else value)


def test_an_edge_can_not_smuggle_a_wrong_value_into_a_parameter(harness: Harness) -> None:
    with pytest.raises(InvalidError, match=r"'rep.times': input should be less than or equal to 100, found 500"):
        harness.plan(n=500)


CHANGES = st.lists(
    st.sampled_from(
        [
            ({}, {}), ({"text": "HELLO"}, {}), ({"text": "bye"}, {}), ({"n": 2}, {}), ({"n": 0}, {}),
            ({}, {"join.separator": "+"}), ({}, {"shout.mark": "?"}), ({"text": "bye", "n": 2}, {"shout.mark": "?"}),
        ]
    ),
    min_size=1, max_size=6,
)  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CHANGES)
def test_what_the_plan_says_is_what_the_run_does(tmp_path_factory: pytest.TempPathFactory, changes: list[Any]) -> None:
    harness = Harness(Store(tmp_path_factory.mktemp("store")), GRAPH)
    for given_inputs, overrides in changes:
        plan = harness.plan(overrides, **given_inputs)
        record = harness.run(overrides, **given_inputs).record
        for name, planned in plan.nodes.items():
            how = record.nodes[name].status
            assert (planned.status, how) in {
                ("cached", "cached"),
                ("run", "ran"),
                ("maybe", "ran"),
                ("maybe", "cached"),
            }
            if planned.key is not None:
                assert planned.key == record.nodes[name].key
