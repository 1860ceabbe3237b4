"""Instances told as one."""

from __future__ import annotations

import pytest

from graphflow.groups import grouped, title, titles, without_positions


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["caption"], "caption"),
        (["each[4]/caption"], "each[4]/caption"),
        ([f"each[{i}]/caption" for i in range(30)], "each[0…29]/caption"),
        (["a[1]", "a[0]"], "a[0, 1]"),
        (["a[0]", "a[3]", "a[7]", "a[8]", "a[9]"], "a[0, 3, 7…9]"),
        ([f"a[{i}]" for i in range(0, 20, 2)], "a[0…18]"),
        ([f"a[{i}]/b[{j}]" for i in range(3) for j in range(5)], "a[0…2]/b[0…4]"),
        (["a[0]/b[…]", "a[1]/b[…]"], "a[0, 1]/b[…]"),
        (["a[0]/b[0]", "a[0]/b[1]", "a[…]/b[…]"], "a[…]/b[…]"),
        (["a[…]", "a[…]/b"], "a[…]"),
    ],
)
def test_a_title_names_the_positions(names: list[str], expected: str) -> None:
    assert title(names) == expected


def test_names_are_grouped_by_node_in_order_of_appearance() -> None:
    names = ["load", "e[0]/a", "e[0]/b", "e[1]/a", "join", "e[1]/b", "e[2]/a"]  # windows interleave nodes
    assert grouped(names) == {
        "load": ["load"], "e/a": ["e[0]/a", "e[1]/a", "e[2]/a"], "e/b": ["e[0]/b", "e[1]/b"], "join": ["join"],
    }  # fmt: skip
    assert titles(names) == ["load", "e[0…2]/a", "e[0, 1]/b", "join"]


def test_a_text_can_be_told_of_all_instances() -> None:
    assert without_positions("after each[3]/rep, once for each element") == "after each[…]/rep, once for each element"
