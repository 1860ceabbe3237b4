"""The timeline on the page: lanes by device, readable however long the run."""

from __future__ import annotations

import re
from typing import Any

import pytest
import records
from runs_on_devices import GIB, done, load, mapped, swapped

from graphflow.record import RunRecord
from graphflow.report import render
from graphflow.report.steps import bars as bars_of
from graphflow.report.timeline import Drawn, Mark, Track, Weights, drawn


def timeline(record: RunRecord) -> Drawn:
    found = drawn(record)
    assert found is not None
    return found


def tracks(record: RunRecord) -> dict[str, Track]:
    return {track.name: track for track in timeline(record).tracks if isinstance(track, Track)}


def of_style(track: Track, style: str) -> list[Mark]:
    return [mark for mark in track.marks if mark.style == style]


def test_each_device_has_a_lane_and_so_have_host_and_models() -> None:
    found = tracks(swapped())
    assert list(found) == ["cuda:0", "host", "models"]
    assert [(m.label, round(m.left, 1), round(m.width, 1)) for m in of_style(found["cuda:0"], "call")] == [
        ("caption", 16.7, 8.3), ("edit", 41.7, 33.3), ("", 91.7, 4.2),
    ]  # fmt: skip
    assert (found["cuda:0"].note, found["host"].note) == ("46 % busy", "2.40 s computed")
    assert [m.label for m in of_style(found["models"], "load disk")] == ["qwen", "unet"]


def test_a_mark_says_what_it_is_and_leads_to_its_node() -> None:
    [caption, edit, _] = of_style(tracks(swapped())["cuda:0"], "call")
    assert caption.tip == "caption (caption), 1.00 s, peak 1.0 GiB, at 2.00 s"
    assert edit.anchor == "edit"
    waits = of_style(tracks(swapped())["cuda:0"], "wait")
    assert [m.tip for m in waits] == [
        "waited 2.00 s loading qwen, at 0 ms", "waited 2.00 s loading unet, at 3.00 s",
        "waited 2.00 s for grade on host, at 9.00 s",
    ]  # fmt: skip
    loads = tracks(swapped())["models"].marks
    assert loads[0].tip == "qwen into host memory, 4.0 GiB in 1.20 s, at 0.50 s"


def test_the_figures_are_busy_shares_loads_and_waits_for_them() -> None:
    assert timeline(swapped()).figures == [
        ("cuda:0 busy", "46 %"), ("2 loads onto devices", "7.0 GiB"), ("waits for loads", "4.00 s"),
    ]  # fmt: skip
    assert timeline(swapped()).waits[2] == ("9.00 s", "cuda:0", "2.00 s", "for grade on host")
    assert timeline(swapped()).loads[1] == ("1.70 s", "qwen", "host → cuda:0", "4.0 GiB", "0.30 s", "13.3 GiB/s")


def test_weights_are_drawn_against_the_budget() -> None:
    [found] = [t for t in timeline(swapped()).tracks if isinstance(t, Weights)]
    assert found.note == "4.0 GiB of 6.0 GiB"
    assert found.budget == pytest.approx(4)
    assert re.findall(r"L([\d.]+) ([\d.]+)", found.path) == [
        ("166.7", "100.0"), ("166.7", "36.0"), ("250.0", "36.0"), ("250.0", "100.0"), ("416.7", "100.0"),
        ("416.7", "52.0"), ("1000", "52.0"), ("1000", "100"),
    ]  # fmt: skip
    [free] = [t for t in timeline(swapped(memory={})).tracks if isinstance(t, Weights)]
    assert (free.budget, free.note) == (None, "4.0 GiB")


def test_a_device_that_only_loaded_has_its_weights_but_no_lane() -> None:
    record = swapped(nodes={"fit": done("image.prepare", "host", 0.0, 1.0)})
    assert list(tracks(record)) == ["host", "models"]
    assert [t.device for t in timeline(record).tracks if isinstance(t, Weights)] == ["cuda:0"]
    assert "busy" not in str(timeline(record).figures)


def test_neighbours_of_one_kind_are_one_mark_with_a_count() -> None:
    nodes = {f"each[{i}]/caption": done("caption", "cuda:0", i * 0.01, 0.01) for i in range(600)}
    nodes |= {f"each[{i}]/edit": done("edit", "cuda:0", 6 + i * 0.02, 0.02) for i in range(600)}
    found = of_style(tracks(swapped(nodes=nodes, loads=[], seconds=18.0))["cuda:0"], "call")
    assert [(m.label, round(m.width)) for m in found] == [("caption ×600", 33), ("edit ×600", 67)]
    assert found[0].tip == "each[0…599]/caption (caption), 6.00 s, 600 calls, at 0 ms"


def test_kinds_that_alternate_share_a_mark_by_their_shares() -> None:
    nodes: dict[str, Any] = {}
    for i in range(600):
        nodes[f"each[{i}]/a"] = done("a", "cuda:0", i * 0.04, 0.01)
        nodes[f"each[{i}]/b"] = done("b", "cuda:0", i * 0.04 + 0.01, 0.03)
    [mark] = of_style(tracks(swapped(nodes=nodes, loads=[], seconds=24.0))["cuda:0"], "call")
    assert mark.label == "a, b ×1200"
    assert [(colour, round(share, 2)) for colour, share in mark.fill] == [("k0", 0.75), ("k1", 0.25)]


def test_marks_that_can_be_seen_stay_apart() -> None:
    nodes = {f"each[{i}]/edit": done("edit", "cuda:0", i * 1.0, 1.0) for i in range(12)}
    assert len(of_style(tracks(swapped(nodes=nodes, loads=[]))["cuda:0"], "call")) == 12


def test_a_failed_call_stands_out_of_a_long_map() -> None:
    record = mapped(1000)
    record.nodes["each[77]/edit"].status = "failed"
    found = tracks(record)
    assert sum(len(of_style(track, "call failed")) for track in found.values()) == 1
    assert "1 failed" in next(m.tip for t in found.values() for m in t.marks if m.style == "call failed")


def test_a_page_of_a_thousand_elements_is_not_much_larger_than_one_of_fifty() -> None:
    marks = [sum(len(t.marks) for t in tracks(mapped(count)).values()) for count in (50, 1000)]
    assert marks[1] < 400
    assert max(len(t.marks) for t in tracks(mapped(1000)).values()) < 200
    assert sum(m.rows > 1 for m in tracks(mapped(1000))["host"].marks) == len(tracks(mapped(1000))["host"].marks)


def test_many_workers_share_four_rows() -> None:
    nodes = {f"each[{i}]/fit": done("fit", "host", 0.0, 1.0 + i / 10) for i in range(9)}
    host = tracks(swapped(nodes=nodes, loads=[]))["host"]
    assert {(m.row, m.rows) for m in host.marks} == {(i, 4) for i in range(4)}


@pytest.mark.parametrize(
    ("seconds", "ticks"),
    [(12.0, ["0", "2 s", "4 s", "6 s", "8 s", "10 s"]), (0.3, ["0", "50 ms", "0.1 s", "0.15 s", "0.2 s", "0.25 s"]),
     (500.0, ["0", "2 min", "4 min", "6 min"]), (40000.0, ["0", "2 h", "4 h", "6 h", "8 h", "10 h"])],
)  # fmt: skip
def test_ticks_are_round_times(seconds: float, ticks: list[str]) -> None:
    nodes = {"a": done("k", "cuda:0", 0.0, seconds)}
    assert [text for _, text in timeline(swapped(nodes=nodes, loads=[], seconds=seconds)).ticks] == ticks


def test_kinds_beyond_the_colours_are_others() -> None:
    nodes = {f"n{i}": done(f"kind{i}", "cuda:0", float(i), 1.0) for i in range(9)}
    legend = timeline(swapped(nodes=nodes, loads=[])).legend
    assert len(legend) == 7
    assert legend[-1] == ("other", "other kinds")


def test_the_legend_names_kinds_and_what_is_no_call() -> None:
    html = render(swapped(), lambda _: None)
    [legend] = re.findall(r'<p class="quiet legend">(<span>.*?)</p>', html)
    assert re.findall(r'<span><i class="c ([^"]*)"></i>([^<]*)</span>', legend) == [
        ("k0", "denoise.ddim"), ("k1", "image.grade"), ("k2", "caption"), ("k3", "score.clip"),
        ("k4", "image.prepare"), ("wait", "waiting"), ("load disk", "from disk"), ("load", "host → device"),
    ]  # fmt: skip


def test_a_cached_run_has_no_timeline() -> None:
    assert drawn(records.record()) is None
    assert "<h2>Timeline" not in render(records.record(), records.values().get)  # type: ignore[arg-type]


def test_the_page_shows_it_and_escapes_what_stands_in_it() -> None:
    bad = "</style><script>alert(1)</script>\x1b"
    nodes = {bad: done(bad, "cuda:0", 0.0, 1.0)}
    record = swapped(nodes=nodes, loads=[load(bad, "device", "cuda:0", 0.0, 1.0, 1)], memory={"cuda:0": GIB})
    html = render(record, lambda _: None)
    assert "<h2>Timeline" in html
    assert bad not in html
    assert "<script>alert" not in html
    assert "\x1b" not in "".join(m.tip + m.label for track in tracks(record).values() for m in track.marks)


def test_links_lead_to_nodes_of_the_page() -> None:
    html = render(mapped(30), lambda _: None)
    links = set(re.findall(r'href="#(node-[^"]*)"', html))
    assert {"node-each/edit", "node-each/decode"} <= links <= set(re.findall(r'id="(node-[^"]*)"', html))


def test_a_node_tells_its_device_batch_and_peak() -> None:
    bars = {bar.anchor: bar for bar in bars_of(swapped())}
    assert [fact for fact in bars["edit"].facts if fact[0] in ("computed on", "batch", "peak memory")] == [
        ("computed on", "cuda:0"), ("peak memory", "2.0 GiB beside the weights"),
    ]  # fmt: skip
    several = next(bar for bar in bars_of(mapped(8)) if bar.anchor == "each/edit")
    assert dict(several.facts)["computed on"] == "cuda:0, cuda:1"
    assert dict(several.facts)["batch"] == "up to 4 together"
    assert {e.peak for e in several.elements} == {"1.0 GiB"}
    html = render(mapped(8), lambda _: None)
    assert "<th>time</th><th>peak memory</th><th>reason</th>" in html
    assert html.count("<th>peak memory</th>") == 1, "decoding told none"
