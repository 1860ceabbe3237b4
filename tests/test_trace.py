"""The trace of a run obeys the format of trace events, whatever the record, and tells what was done where and when."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs_on_devices import GIB, done, load, mapped, swapped
from trace_rules import problems

from graphflow.cli import run as graphflow
from graphflow.provenance import embed
from graphflow.record import RunRecord
from graphflow.trace import trace


def events(record: RunRecord, phase: str) -> list[dict[str, Any]]:
    return [e for e in trace(record)["traceEvents"] if e["ph"] == phase]


def processes(record: RunRecord) -> dict[str, int]:
    return {e["args"]["name"]: e["pid"] for e in events(record, "M") if e["name"] == "process_name"}


def threads(record: RunRecord, process: str) -> dict[int, str]:
    number = processes(record)[process]
    found = [e for e in events(record, "M") if e["name"] == "thread_name" and e["pid"] == number]
    return {e["tid"]: e["args"]["name"] for e in found}


@pytest.mark.parametrize("record", [swapped(), mapped(10), mapped(3, devices=1, batch=1), swapped(nodes={}, loads=[])])
def test_the_rules_of_the_format_are_obeyed(record: RunRecord) -> None:
    assert problems(json.dumps(trace(record))) == []


def test_the_rules_find_what_breaks_them() -> None:
    found = trace(swapped())
    first = next(e for e in found["traceEvents"] if e["ph"] == "X" and e["cat"] == "denoise.ddim")
    found["traceEvents"] += [{**first, "ts": first["ts"] + 1}, {**first, "tid": 99}, {**first, "ts": 0.5}]
    text = "\n".join(problems(json.dumps(found)))
    assert "overlap" in text
    assert "has no name" in text
    assert "is no count" in text


times = st.floats(0, 50, allow_nan=False)
nodes = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.sampled_from(["host", "cuda:0", "cuda:1", ""]), times, times, st.integers(1, 3)
    )
)
loads = st.lists(
    st.tuples(st.sampled_from("mn"), st.sampled_from(["host", "device", "released"]),
              st.sampled_from(["host", "cuda:0"]), times, times, st.floats(0, 9))
)  # fmt: skip


@given(nodes, loads)
def test_no_record_makes_a_trace_that_breaks_the_rules(made: list[Any], moved: list[Any]) -> None:
    found = {f"n[{i}]/{kind}": done(kind, where, at, s, batch=b) for i, (kind, where, at, s, b) in enumerate(made)}
    record = swapped(nodes=found, loads=[load(*move) for move in moved])
    assert problems(json.dumps(trace(record), allow_nan=False)) == []
    calls = [e for e in events(record, "X") if "kind" in e["args"]]
    assert sum(len(e["args"]["node"].split(", ")) for e in calls) == len(found)


def test_a_device_is_a_process_that_computes_and_loads() -> None:
    record = swapped()
    assert list(processes(record)) == ["run of edit", "host", "cuda:0"]
    assert list(threads(record, "cuda:0").values()) == ["compute", "loads", "waits"]
    waits = [e["name"] for e in events(record, "X") if e["cat"] == "wait"]
    assert waits == ["loading qwen", "loading unet", "for grade on host"]
    assert list(threads(record, "host").values()) == ["worker", "from disk"]
    assert list(threads(mapped(10), "host").values()) == ["worker 1", "worker 2", "worker 3", "worker 4"]


def test_a_call_is_told_in_microseconds_with_what_is_known_of_it() -> None:
    [found] = [e for e in events(swapped(), "X") if e["name"] == "caption"]
    assert (found["ts"], found["dur"], found["cat"]) == (2_000_000, 1_000_000, "caption")
    assert found["args"] == {
        "node": "caption", "kind": "caption", "key": "c0ffee", "reason": "image changed", "peak": GIB,
    }  # fmt: skip
    [batch, *_] = [e for e in events(mapped(8), "X") if e["cat"] == "denoise.ddim"]
    assert (batch["name"], batch["dur"], batch["args"]["batch"]) == ("denoise.ddim ×4", 2_000_000, 4)


def test_resident_bytes_are_a_counter_beside_the_budget() -> None:
    found = [(e["name"], e["ts"], e["args"]["bytes"]) for e in events(swapped(), "C")]
    assert found == [
        ("weights", 0, 0), ("weights", 2_000_000, 4 * GIB), ("weights", 3_000_000, 0), ("weights", 5_000_000, 3 * GIB),
        ("weights", 12_000_000, 3 * GIB), ("budget", 0, 6 * GIB), ("budget", 12_000_000, 6 * GIB),
    ]  # fmt: skip
    assert [(e["name"], e["ts"]) for e in events(swapped(), "i")] == [("release qwen", 3_000_000)]


def test_clock_readings_that_differ_a_little_make_no_overlap() -> None:
    nodes = {"a": done("k", "cuda:0", 0.0, 1.0004), "b": done("k", "cuda:0", 1.0, 1.0)}
    record = swapped(nodes=nodes, loads=[])
    assert list(threads(record, "cuda:0").values()) == ["compute"]
    assert [(e["ts"], e["dur"]) for e in events(record, "X")][1:] == [(0, 1_000_400), (1_000_400, 999_600)]


def test_the_command_writes_the_trace_beside_what_was_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    (tmp_path / "run.json").write_text(swapped().model_dump_json())
    assert graphflow(["trace", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "trace.json")
    text = (tmp_path / "trace.json").read_text()
    assert problems(text) == []
    embed(Image.new("RGB", (4, 4)), swapped(), tmp_path / "made.png")
    assert graphflow(["trace", str(tmp_path / "made.png"), "--out", str(tmp_path / "other.json")]) == 0
    assert (tmp_path / "other.json").read_text() == text
    assert graphflow(["trace", str(tmp_path), "--out", str(tmp_path / "no" / "folder.json")]) == 2
    assert "can't be written" in capsys.readouterr().err
