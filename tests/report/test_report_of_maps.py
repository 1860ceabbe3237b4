"""The report of a run over many: instances of a mapped node are one step, one box and one bar; elements are a table."""

from __future__ import annotations

import re
from typing import Any

import records
from records import node, picture, record, value

from graphflow.record import InputRecord, RunRecord, ValueRecord
from graphflow.report import render
from graphflow.report.chart import chart
from graphflow.report.page import build, rerun_command
from graphflow.report.steps import MAX_ELEMENTS
from graphflow.report.values import MAX_PICTURES

COUNT = 4


def values() -> dict[str, Any]:
    found = records.values()
    found |= {f"in{i}": picture("orange", (8 + i, 6)) for i in range(COUNT)}
    found |= {f"out{i}": picture("brown", (8 + i, 6)) for i in range(COUNT)}
    found |= {f"text{i}": f"words of {i}" for i in range(COUNT)}
    found |= {f"scores{i}": {"clip": i / 8, "lpips": None} for i in range(COUNT)}
    present = [i for i in range(COUNT) if i != 2]
    found["images"] = [found[f"in{i}"] for i in range(COUNT)]
    found["made"] = [found[f"out{i}"] for i in present]
    found["texts"] = [found[f"text{i}"] for i in range(COUNT)]
    found["all scores"] = [found[f"scores{i}"] for i in present]
    return found


def load(found: ValueRecord) -> Any:
    return values().get(found.digest)


def mapped(**changes: Any) -> RunRecord:
    """Four pictures are captioned, edited and scored; the third edit fails."""
    nodes = {}
    for i in range(COUNT):
        nodes[f"each[{i}]/caption"] = node(
            "caption", {"image": f"inputs.image[{i}]"}, {"text": value("Text", f"text{i}")}, seconds=0.25,
            parameters={"num_beams": 3}, status="cached" if i == 0 else "ran", key=f"key{i}",
        )  # fmt: skip
        nodes[f"each[{i}]/invert"] = node(
            "invert.ddim", {"image": f"inputs.image[{i}]"},
            {"latents": value("Latents", "latents"), "trajectory": value("Trajectory", "path")},
        )  # fmt: skip
    for i in range(COUNT):
        made = {"image": value("Image", f"out{i}")} if i != 2 else {}
        nodes[f"each[{i}]/edit"] = node(
            "edit", {"latents": f"each[{i}]/invert.latents", "text": f"each[{i}]/caption.text"}, made,
            parameters={"seed": i}, **({"status": "failed", "reason": "out of luck"} if i == 2 else {}),
        )  # fmt: skip
        scored = {"scores": value("Scores", f"scores{i}")} if i != 2 else {}
        edges = {"image": f"each[{i}]/edit.image"} if i != 2 else {}
        status = {"status": "skipped", "reason": "needs each[2]/edit, which has no result"} if i == 2 else {}
        nodes[f"each[{i}]/score"] = node("score", edges, scored, **status)
    nodes["mean"] = node("mean", {"rows": "each[…]/score.scores"}, {})
    image = ValueRecord(type="list[Image]", digest="made", file="image-*.png", failed=[2])
    fields: dict[str, Any] = {
        "mapped": ["image"],
        "inputs": {
            "image": InputRecord(type="list[Image]", digest="images", items=[], source="a.png, b c.png"),
            "mark": InputRecord(type="list[Text]", value=["!", "?", ".", "…"]),
            "seed": InputRecord(type="int", value=3),
        },
        "nodes": nodes,
        "outputs": {
            "image": image, "text": value("list[Text]", "texts", "text.json"),
            "scores": ValueRecord(type="list[Scores]", digest="all scores", failed=[2]),
        },
        "status": "failed",
    }  # fmt: skip
    return record(**{**fields, **changes})


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", html.replace("</td>", " ").replace("</th>", " ")))


def test_instances_are_one_step_with_their_values_side_by_side() -> None:
    steps = {s.name: s for s in build(mapped(), load).steps}
    assert list(steps) == ["each[0…3]/caption", "each[0…3]/invert", "each[0…3]/edit", "each[0…3]/score"]
    caption, edit = steps["each[0…3]/caption"], steps["each[0…3]/edit"]
    assert caption.time == "3 computed in 0.75 s, 1 cached"
    [texts] = caption.views
    assert (texts.type, texts.columns) == ("Text ×4", ["element", "text"])
    assert texts.rows == [[str(i), f"words of {i}"] for i in range(4)]
    assert (edit.status, edit.time) == ("failed", "3 computed in 0 ms, 1 failed")
    [pictures] = edit.views
    assert [(p.caption, p.width) for p in pictures.pictures] == [("[0]", 8), ("[1]", 9), ("[3]", 11)]
    [scores] = steps["each[0…3]/score"].views
    assert scores.rows[1] == ["1", "0.125", "not available"]
    latents, trajectory = steps["each[0…3]/invert"].views
    assert [p.caption for p in latents.pictures] == ["[0]", "[1]", "[2]", "[3]"]
    assert (len(trajectory.pictures), trajectory.more) == (3, 3), "a film is shown of the first one"


def test_values_that_are_gone_say_so_once() -> None:
    [view] = build(mapped(), lambda _: None).steps[0].views
    assert (view.shape, view.text, view.type) == ("lost", "no longer in the store", "Text ×4")
    partly = build(mapped(), lambda v: None if v.digest == "text0" else load(v)).steps[0].views[0]
    assert [row[0] for row in partly.rows] == ["1", "2", "3"]
    assert partly.more == 1


def test_a_long_map_shows_the_first_elements_and_every_failure() -> None:
    many = MAX_ELEMENTS + 50
    nodes = {
        f"e[{i}]": node("edit", {}, {"image": value("Image", "dog")}, status="failed" if i == many - 1 else "ran")
        for i in range(many)
    }
    page = build(mapped(nodes=nodes, outputs={}), load)
    [view], [bar] = page.steps[0].views, page.bars
    assert (len(view.pictures), view.more) == (MAX_PICTURES, many - MAX_PICTURES)
    assert (len(bar.elements), bar.more) == (MAX_ELEMENTS + 1, 49)
    assert bar.elements[-1].position == str(many - 1)


def test_a_bar_opens_to_its_instances() -> None:
    bars = {b.anchor: b for b in build(mapped(), load).bars}
    edit = bars["each/edit"]
    assert dict(edit.facts) == {
        "kind": "edit, version 1", "latents": "← each[…]/invert.latents", "text": "← each[…]/caption.text",
        "seed": "several",
    }  # fmt: skip
    assert dict(bars["each/caption"].facts)["num_beams"] == "3"
    assert [(e.position, e.status, e.reason) for e in edit.elements][2] == ("2", "failed", "out of luck")
    html = render(mapped(), load)
    assert 'id="node-each/edit"' in html
    assert "2 failed failed out of luck" in text_of(html)
    assert "2 skipped not run needs each[2]/edit, which has no result" in text_of(html)


def test_the_chart_has_a_box_a_node() -> None:
    found = chart(mapped())
    boxes = {b.name: b for b in found.boxes}
    assert set(boxes) == {"image", "each/caption", "each/invert", "each/edit", "each/score", "mean"}
    assert (boxes["each/edit"].count, boxes["each/edit"].status, boxes["mean"].count) == (4, "failed", 1)
    assert boxes["each/score"].x < boxes["mean"].x, "a list that is gathered is an edge, too"
    html = render(mapped(), load)
    links = set(re.findall(r'href="#(node-[^"]*)"', html))
    assert links <= set(re.findall(r'id="(node-[^"]*)"', html))
    assert "each/edit ×4" in text_of(html)


def test_elements_stand_in_a_table_with_what_went_in_and_came_out() -> None:
    page = build(mapped(), load)
    table = page.elements
    assert table is not None
    assert [(c.name, c.given) for c in table.columns] == [
        ("mark", True), ("image", True), ("image", False), ("text", False), ("clip", False), ("lpips", False),
    ]  # fmt: skip
    rows = list(zip(*(c.cells for c in table.columns), strict=True))
    assert [getattr(cell, "width", cell) for cell in rows[1]] == ["?", 9, 9, "words of 1", "0.125", "not available"]
    assert [getattr(cell, "width", cell) for cell in rows[2]] == [".", 10, "failed", "words of 2", "failed", "failed"]
    assert getattr(rows[3][2], "width", 0) == 11, "later elements keep their places"
    assert page.input_views == page.output_views == []
    assert page.plain_inputs == [("seed", "3")]


def test_scores_of_one_name_are_told_apart_by_their_outputs() -> None:
    scores = {name: ValueRecord(type="list[Scores]", digest="all scores", failed=[2]) for name in ("before", "after")}
    table = build(mapped(outputs={"text": value("list[Text]", "texts"), **scores}), load).elements
    assert table is not None
    names = [column.name for column in table.columns if not column.given]
    assert names == ["text", "before.clip", "before.lpips", "after.clip", "after.lpips"]


def test_elements_are_told_apart_by_the_names_of_their_files() -> None:
    names = ["a.png", "b c.png", "<i>.png", "d, e.png"]
    given = {"image": InputRecord(type="list[Image]", digest="images", items=[], source=names)}
    table = build(mapped(inputs=given), load).elements
    assert table is not None
    assert [(c.name, c.given) for c in table.columns[:2]] == [("image file", True), ("image", True)]
    assert table.columns[0].cells == names
    assert "&lt;i&gt;.png" in render(mapped(inputs=given), load)


def test_a_run_without_lists_has_no_table_of_elements() -> None:
    assert build(record(), records.values().get).elements is None  # type: ignore[arg-type]
    one = mapped(outputs={"text": ValueRecord(type="list[Text]", digest="one")})
    assert build(one, lambda v: ["alone"]).elements is None


def test_several_failures_are_listed() -> None:
    nodes = {f"e[{i}]": node("edit", {}, {}, status="failed", reason=f"no {i}") for i in range(30)}
    failure = build(mapped(nodes=nodes), load).failure
    assert failure is not None
    assert failure[0] == "30 of the nodes failed"
    lines = failure[1].splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("e[0] (edit): no 0", "and 10 more", 21)


def test_the_rerun_command_maps_again() -> None:
    found = mapped(overrides={"each/edit.seed": 3, "each.x": 1})
    assert rerun_command(found)[1:] == [
        "--map 'image=*.png'", "-i 'mark=[\"!\", \"?\", \".\", \"…\"]'", "-i seed=3", "--set edit.seed=3",
        "--set each.x=1",
    ]  # fmt: skip
    mixed = {"photos": InputRecord(type="list[Image]", digest="d", items=[], source="a.png, b.jpg")}
    assert rerun_command(mapped(inputs=mixed, mapped=[]))[1] == "-i 'photos=*'"
    for source, expected in ((["a.png", "b.jpg"], "'photos=*'"), (["a, b.png"], "'photos=a, b.png'")):
        named = {"photos": InputRecord(type="list[Image]", digest="d", items=[], source=source)}
        assert rerun_command(mapped(inputs=named, mapped=[]))[1] == f"-i {expected}"
    assert "graphflow run run.json" in text_of(render(found, load)), "the name of a picture would be image-*.png"


def test_a_folder_is_named() -> None:
    folder = InputRecord(type="Folder", digest="d", source="pictures")
    assert build(record(inputs={"data": folder}), load).input_views[0].text == "pictures"
