"""Sweeps: axes, their product, and the table of what came of it."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import record, value

from graphflow.errors import InvalidError, UsageError
from graphflow.sweep import Axis, Point, Row, as_csv, as_table, columns_of, parse_axis, product, results_of


@pytest.mark.parametrize(
    ("text", "target", "values"),
    [
        ("seed=0,1,2", "seed", (0, 1, 2)),
        ("edit.guidance_scale=1, 2.5 ,1e-1", "edit.guidance_scale", (1, 2.5, 0.1)),
        ("each/edit.on=true,false", "each/edit.on", (True, False)),
        ("text=a dog,a cat=b", "text", ("a dog", "a cat=b")),
        ("n=1,true,1.0", "n", (1, True, 1.0)),
        ("text=['a, b', \"c\"]", "text", ("a, b", "c")),
        ("node.sizes=[[1, 2], [3]]", "node.sizes", ([1, 2], [3])),
        ("text=[a]", "text", ("a",)),
    ],
)
def test_an_axis_is_read(text: str, target: str, values: tuple[Any, ...]) -> None:
    found = parse_axis(text)
    assert found == Axis(target, values)
    assert [type(v) for v in found.values] == [type(v) for v in values]
    assert found.is_input == ("." not in target)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed", "expected NODE.PARAM=A,B,C or INPUT=A,B,C"),
        ("=1,2", "expected NODE.PARAM=A,B,C"),
        ("seed=", "expected NODE.PARAM=A,B,C"),
        ("seed=1,,2", "expected values between the commas"),
        ("seed=[]", "expected values between the commas"),
        ("seed=1,2,1", "1 stands twice"),
        ("x.on=true,true", "true stands twice"),
        ("x.s=[[1], [1]]", "[1] stands twice"),
    ],
)
def test_a_wrong_axis_says_what_to_write(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=".*") as caught:
        parse_axis(text)
    assert f"--sweep {text}"[:12] in str(caught.value)
    assert says in str(caught.value)


def test_a_broken_list_has_a_position() -> None:
    with pytest.raises(InvalidError, match=r"--sweep text:1:\d+: GF002"):
        parse_axis("text=[a, 'b]")


def test_the_last_axis_changes_fastest() -> None:
    points = product([Axis("a.x", (1, 2)), Axis("seed", (0, 1, 2))])
    assert [tuple(p.values.values()) for p in points] == [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]
    assert points[4].settings == {"a.x": 2}
    assert points[4].inputs == {"seed": 1}
    assert points[4].label == "x=2 seed=1"
    with pytest.raises(UsageError, match="--sweep seed stands twice"):
        product([Axis("seed", (0,)), Axis("seed", (1,))])


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_every_combination_stands_once(counts: list[int]) -> None:
    axes = [Axis(f"n.p{i}", tuple(range(n))) for i, n in enumerate(counts)]
    points = [tuple(p.values.values()) for p in product(axes)]
    assert len(points) == len(set(points)) == math.prod(counts)
    assert points == sorted(points)


@pytest.mark.parametrize(("counts", "columns"), [((3,), 3), ((9,), 6), ((2, 9), 9), ((4, 1), 1)])
def test_rows_of_the_sheet_follow_the_last_axis(counts: tuple[int, ...], columns: int) -> None:
    assert columns_of([Axis(str(i), tuple(range(n))) for i, n in enumerate(counts)]) == columns


def row(results: dict[str, Any], status: str = "done", **values: Any) -> Row:
    return Row(Point(values), status, 1.234, results)


def test_results_are_numbers_short_texts_and_scores() -> None:
    entries = {
        "image": value("Image", "i"), "scores": value("Scores", "s"), "caption": value("Text", "t"),
        "n": value("int", "n"), "texts": value("list[Text]", "l"),
    }  # fmt: skip
    values = {"scores": {"clip": 0.5, "lpips": None}, "caption": "a cat", "n": 3}
    assert results_of(record(outputs=entries), values.__getitem__) == {
        "clip": 0.5, "lpips": None, "caption": "a cat", "n": 3,
    }  # fmt: skip
    two = {"same": value("Scores", "s"), "n": value("int", "n"), "changed": value("Scores", "c")}
    values = {"same": {"clip": 0.5, "l1": 0.25}, "changed": {"clip": 0.75, "n": 7}, "n": 3}
    assert results_of(record(outputs=two), values.__getitem__) == {
        "same.clip": 0.5, "l1": 0.25, "n": 3, "changed.clip": 0.75, "changed.n": 7,
    }  # fmt: skip


def test_the_csv_reads_back_whatever_stands_in_the_texts() -> None:
    axes = [Axis("edit.text", ("a, b", 'c"d')), Axis("seed", (0,))]
    rows = [
        row({"clip": 0.123456789, "note": "two\nlines"}, **{"edit.text": "a, b", "seed": 0}),
        row({"more": None}, "failed", **{"edit.text": 'c"d', "seed": 0}),
    ]
    found = list(csv.DictReader(io.StringIO(as_csv(axes, rows))))
    assert found == [
        {"edit.text": "a, b", "seed": "0", "status": "done", "seconds": "1.23", "clip": "0.123456789",
         "note": "two\nlines", "more": ""},
        {"edit.text": 'c"d', "seed": "0", "status": "failed", "seconds": "1.23", "clip": "", "note": "", "more": ""},
    ]  # fmt: skip


def test_columns_of_one_name_are_told_apart() -> None:
    axes = [Axis("text", ("a", "b"))]
    rows = [row({"text": v.upper(), "status": v}, text=v) for v in "ab"]
    header = ["text", "status", "seconds", "outputs.text", "outputs.status"]
    assert as_csv(axes, rows).splitlines()[0] == ",".join(header)
    assert as_table(axes, rows)[0] == header


def test_the_table_leaves_out_what_is_the_same_everywhere() -> None:
    axes = [Axis("a.scale", (1.0, 2.123456)), Axis("b.scale", (True,))]
    rows = [row({"same": 1, "clip": 0.123456 * i, "gone": None}, **{"a.scale": s, "b.scale": True})
            for i, s in enumerate(axes[0].values, 1)]  # fmt: skip
    header, body = as_table(axes, rows)
    assert header == ["a.scale", "b.scale", "status", "seconds", "clip"]
    assert body == [("1", "true", "done", "1.23", "0.1235"), ("2.123", "true", "done", "1.23", "0.2469")]
