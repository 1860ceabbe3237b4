"""Where a run's time went: calls, waits and why, and the weights on each device."""

from __future__ import annotations

import math

import pytest
from runs_on_devices import GIB, done, load, mapped, swapped

from graphflow.timeline import HOST, rows, timeline


def test_each_device_has_its_calls_and_the_host_its_own() -> None:
    found = timeline(swapped())
    [lane] = found.lanes
    assert [c.names for c in lane.calls] == [("caption",), ("edit",), ("check",)]
    assert [c.names for c in found.host] == [("fit",), ("grade",)]
    assert {c.device for c in found.host} == {HOST}
    assert (lane.busy, found.seconds, lane.budget) == (5.5, 12.0, 6 * GIB)


def test_a_wait_says_for_what() -> None:
    [lane] = timeline(swapped()).lanes
    assert [(w.start, w.seconds, w.reason) for w in lane.waits] == [
        (0.0, 2.0, "loading qwen"), (3.0, 2.0, "loading unet"), (9.0, 2.0, "for grade on host"),
    ]  # fmt: skip


def test_a_wait_that_nothing_explains_has_no_reason() -> None:
    nodes = {"a": done("k", "cuda:0", 0.0, 1.0), "b": done("k", "cuda:0", 3.0, 1.0, "a.x")}
    [lane] = timeline(swapped(nodes=nodes, loads=[])).lanes
    assert [(w.start, w.seconds, w.reason) for w in lane.waits] == [(1.0, 2.0, "")]


def test_a_gathered_list_is_waited_for_until_its_last_element() -> None:
    nodes = {f"each[{i}]/fit": done("k", "host", 0.0, 1.0 + i) for i in range(3)}
    nodes["join"] = done("k", "cuda:0", 3.0, 1.0, "each[…]/fit.image")
    [lane] = timeline(swapped(nodes=nodes, loads=[])).lanes
    assert [w.reason for w in lane.waits] == ["for each[2]/fit on host"]


def test_resident_weights_rise_with_loads_and_fall_with_releases() -> None:
    [lane] = timeline(swapped()).lanes
    assert lane.weights == [(2.0, 4 * GIB), (3.0, 0), (5.0, 3 * GIB)]
    assert lane.most == 4 * GIB


def test_weights_are_counted_once_and_only_where_they_are() -> None:
    loads = [load("a", "device", "cuda:0", 0.0, 1.0, 2), load("a", "device", "cuda:0", 2.0, 1.0, 2)]
    loads += [load("b", "host", "cuda:1", 0.0, 1.0, 8), load("b", "device", "cuda:1", 1.0, 0.0, 8)]
    lanes = {lane.device: lane for lane in timeline(swapped(loads=loads)).lanes}
    assert (lanes["cuda:0"].most, lanes["cuda:1"].most) == (2 * GIB, 8 * GIB)
    assert timeline(swapped(loads=loads)).loaded == 12 * GIB


def test_on_a_cpu_what_is_read_from_disk_is_on_the_device() -> None:
    nodes = {"a": done("k", "cpu", 2.0, 1.0)}
    loads = [load("m", "host", "cpu", 0.5, 1.5, 2), load("m", "released", "cpu", 3.0, 0.0, 2)]
    found = timeline(swapped(nodes=nodes, loads=loads))
    assert found.lanes[0].weights == [(2.0, 2 * GIB), (3.0, 0)]
    assert [w.reason for w in found.lanes[0].waits] == ["loading m"]
    assert found.loaded == 2 * GIB


def test_elements_of_a_batch_are_one_call() -> None:
    found = timeline(mapped(10, devices=1))
    calls = [c for c in found.lanes[0].calls if c.kind == "denoise.ddim"]
    assert [(len(c.names), c.batch, c.seconds) for c in calls] == [(4, 4, 2.0), (4, 4, 2.0), (2, 2, 1.0)]
    assert calls[0].names == ("each[0]/edit", "each[1]/edit", "each[2]/edit", "each[3]/edit")
    assert calls[0].peak == GIB
    assert found.lanes[0].busy == 10 * 0.5 + 10 * 0.125


def test_elements_of_a_batch_may_be_told_one_after_another() -> None:
    nodes = {f"e[{i}]": done("k", "cuda:0", 1.0 + 0.5 * i, 0.5, batch=3) for i in range(6)}
    [lane] = timeline(swapped(nodes=nodes, loads=[])).lanes
    assert [(c.start, c.seconds, len(c.names)) for c in lane.calls] == [(1.0, 1.5, 3), (2.5, 1.5, 3)]


def test_a_record_cut_down_to_one_element_keeps_the_size_of_its_batch() -> None:
    whole = mapped(8, devices=1)
    cut = whole.model_copy(update={"nodes": {n: r for n, r in whole.nodes.items() if n.startswith("each[2]/")}})
    [call] = [c for c in timeline(cut).lanes[0].calls if c.kind == "denoise.ddim"]
    assert (call.names, call.batch, call.seconds) == (("each[2]/edit",), 4, 0.5)


def test_what_runs_at_the_same_time_stands_in_several_rows() -> None:
    host = timeline(mapped(10)).host
    found = rows(host)
    assert [len(row) for row in found] == [3, 3, 2, 2]
    assert sorted(n for row in found for c in row for n in c.names) == sorted(n for c in host for n in c.names)


def test_a_cached_run_has_no_timeline() -> None:
    nodes = {
        name: node.model_copy(update={"status": "cached", "started": None}) for name, node in swapped().nodes.items()
    }
    found = timeline(swapped(nodes=nodes, loads=[]))
    assert (found.lanes, found.host) == ([], [])


def test_an_older_record_without_devices_is_drawn_on_the_runs_device() -> None:
    nodes = {"a": done("k", "", 0.5, 1.0)}
    assert [lane.device for lane in timeline(swapped(nodes=nodes, loads=[], device="cpu")).lanes] == ["cpu"]


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf, 1e300])
def test_impossible_times_are_left_out(bad: float) -> None:
    nodes = {"a": done("k", "cuda:0", bad, 1.0), "b": done("k", "cuda:0", 0.0, bad), "c": done("k", "cuda:0", 1.0, 1.0)}
    loads = [load("m", "device", "cuda:0", bad, 1.0, 1), load("m", "device", "cuda:0", 1.0, bad, 1)]
    found = timeline(swapped(nodes=nodes, loads=loads, seconds=bad))
    assert ([c.names for c in found.lanes[0].calls], found.loads, found.seconds) == ([("c",)], [], 2.0)
