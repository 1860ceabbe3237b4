"""What differs between two runs, and where the difference begins."""

from __future__ import annotations

from typing import Any

from records import node, record, value

from graphflow.diff import differences
from graphflow.record import InputRecord, ModelRecord, NodeRecord, RunRecord


def run(**nodes: NodeRecord) -> RunRecord:
    return record(nodes={name.replace("_0", "[0]").replace("_1", "[1]"): n for name, n in nodes.items()}, outputs={})


def made(digest: str = "old", **more: Any) -> NodeRecord:
    found = node("shout", {"text": "inputs.text"}, {"text": value("Text", digest)}, parameters={"n": 1, "mark": "!"})
    return found.model_copy(update={"key": "k", **more})


def test_equal_runs_do_not_differ_whenever_and_however_long_they_ran() -> None:
    assert differences(record(), record(started="2031-01-01T00:00:00+00:00", seconds=99.0)) == []
    assert differences(run(a=made()), run(a=made(status="cached", seconds=5.0, reason="refreshed"))) == []


def test_versions_devices_inputs_settings_and_models_are_named() -> None:
    model = record().models["vae"].model_copy(update={"source": "some/repo@ffff/vae"})
    other = record(
        graphflow="0.2.0", device="cuda:0", dtype="bfloat16", preset="sd15", overrides={"invert.steps": 5},
        models={"vae": model, "clip": ModelRecord(loader="l", source="s", space="", fingerprint="")},
        inputs={**record().inputs, "seed": InputRecord(type="int", value=7)},
    )  # fmt: skip
    assert differences(record(), other) == [
        "graphflow '0.1.0' → '0.2.0'", "preset 'pocket' → 'sd15'", "device 'cpu' → 'cuda:0'",
        "dtype 'float32' → 'bfloat16'", "input seed 0 → 7", "setting invert.steps absent → 5",
        "model vae 'some/repo@0123abc/vae' → 'some/repo@ffff/vae'", "model clip absent → 's'",
    ]  # fmt: skip


def test_another_picture_of_the_same_name_differs() -> None:
    image = InputRecord(type="Image", digest="feed", source="cat.png")
    assert differences(record(), record(inputs={**record().inputs, "image": image})) == [
        "input image 'cat.png cat' → 'cat.png feed'"
    ]


def test_a_node_that_computes_something_else_is_named_and_its_followers_are_summed_up() -> None:
    before = run(a=made(), b=made(key="kb"), c=made(key="kc"))
    after = run(
        a=made("new", key="k2", parameters={"n": 2, "more": 1}), b=made("new", key="kb2"), c=made("new", key="kc2")
    )
    assert differences(before, after) == [
        "node a: parameter n 1 → 2, parameter mark '!' → absent, parameter more absent → 1",
        "other bytes, because their inputs differ: b, c",
    ]


def test_kind_version_and_wiring_count_and_equal_bytes_are_no_difference() -> None:
    after = made(kind="whisper", version=2, key="k2", inputs={"text": "caption.text", "loud": "inputs.loud"})
    assert differences(run(a=made(), b=made()), run(a=after, b=made(key="k2"))) == [
        "node a: kind 'shout' → 'whisper', version 1 → 2, edge text 'inputs.text' → 'caption.text', "
        "edge loud absent → 'inputs.loud'"
    ]


def test_a_computation_that_gives_other_bytes_is_told_as_such() -> None:
    assert differences(run(a=made()), run(a=made("new"))) == ["node a: the same computation gave other bytes"]


def test_failures_and_missing_nodes_are_told() -> None:
    failed = made(status="failed", outputs={})
    assert differences(run(a=made(), b=made()), run(a=failed, c=made())) == [
        "node a: ran → failed", "node b is only in the first", "node c is only in the second",
    ]  # fmt: skip


def test_outputs_are_compared_by_content() -> None:
    other = record(outputs={"image": value("Image", "fish", "image.png"), "scores": record().outputs["scores"]})
    assert differences(record(), other) == ["output image differs"]


def test_instances_of_a_mapped_node_share_a_line_when_they_differ_alike() -> None:
    before, after = run(a_0=made(), a_1=made()), run(a_0=made(parameters={}), a_1=made(parameters={}))
    assert differences(before, after) == ["node a[0, 1]: parameter n 1 → absent, parameter mark '!' → absent"]
    assert differences(run(), before) == ["node a[0, 1] is only in the second"]
    wired = run(**{f"a_{i}": made(inputs={"text": f"inputs.texts[{i}]"}) for i in range(2)})
    assert differences(before, wired) == ["node a[0, 1]: edge text 'inputs.text' → 'inputs.texts[…]'"]
    assert differences(before, run(a_0=made(), a_1=wired.nodes["a[1]"])) == [
        "node a[1]: edge text 'inputs.text' → 'inputs.texts[1]'"
    ]
    assert differences(before, run(a_0=made("x", key="x"), a_1=made("x", key="y"))) == [
        "other bytes, because their inputs differ: a[0, 1]"
    ]


def test_a_list_of_one_number_is_no_position() -> None:
    before, after = run(a_0=made(parameters={"sizes": [3]})), run(a_0=made(parameters={"sizes": [4]}))
    assert differences(before, after) == ["node a[0]: parameter sizes [3] → [4]"]
