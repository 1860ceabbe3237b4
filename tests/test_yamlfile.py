"""YAML 1.2 core semantics, positions, and refusals."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphflow.errors import InvalidError
from graphflow.yamlfile import read_file, read_text, scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("on", "on"), ("no", "no"), ("yes", "yes"), ("True", True), ("null", None), ("~", None),
        ("0x1F", 31), ("0o17", 15), ("012", 12), ("1_000", "1_000"), ("12:30:45", "12:30:45"), (".5", 0.5),
        ("-.inf", float("-inf")), ("2001-01-01", "2001-01-01"), ("+3", 3), ("1.", 1.0), ("e3", "e3"), ("'5'", "5"),
    ],
)  # fmt: skip
def test_plain_scalars_follow_the_core_schema(text: str, value: object) -> None:
    found = read_text(f"x: {text}", "t.yaml")["x"]
    assert found == value
    assert type(found) is type(value)


def test_positions_are_kept() -> None:
    data = read_text("nodes:\n  a:\n    uses: x\n    in: [p.q, r.s]\n", "g.yaml")
    node = data["nodes"]["a"]
    assert str(data["nodes"].key_marks["a"]) == "g.yaml:2:3"
    assert str(node.value_marks["uses"]) == "g.yaml:3:11"
    assert [str(m) for m in node["in"].marks] == ["g.yaml:4:10", "g.yaml:4:15"]


@pytest.mark.parametrize(
    ("text", "where", "says"),
    [
        ("a: 1\nb: 2\na: 3", "3:1", "stands twice; first at line 1"),
        ("a: [1, 2", "1:9", "is not YAML"),
        ("a: 1\nb: [1,\n", "3:1", "is not YAML"),
        ("a: 1\n\tb: 2", "2:1", "is not YAML"),
        ("", "1:1", "is empty"),
        ("a: !!python/object:os.system x", "1:4", "not allowed"),
        ("a: !x y", "1:4", "not allowed"),
        ("<<: {a: 1}", "1:1", "merge keys"),
        ("? [a]\n: 1", "1:3", "a key must be text"),
        ("a: 1\n---\nb: 2", "2:1", "another document"),
        ("a: \x00", "1:1", "control characters"),
        ("[" * 5000 + "]" * 5000, "1:1", "nested too deeply"),
        ("a: *b", "1:4", "undefined alias"),
    ],
)
def test_refusals_name_the_place(text: str, where: str, says: str) -> None:
    with pytest.raises(InvalidError) as caught:
        read_text(text, "t.yaml")
    found = caught.value.diagnostics[0]
    assert str(found.mark) == f"t.yaml:{where}"
    assert says in found.message


def test_all_duplicate_keys_are_reported_at_once() -> None:
    with pytest.raises(InvalidError) as caught:
        read_text("a: 1\na: 2\nb: {c: 1, c: 2}", "t.yaml")
    assert [d.code for d in caught.value.diagnostics] == ["GF003", "GF003"]


def test_alias_bomb_is_stopped() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(InvalidError, match="aliases repeat more than"):
        read_text("\n".join(lines), "bomb.yaml")


def test_an_alias_is_the_value_of_its_anchor_however_often_it_stands() -> None:
    data = read_text("x-a: &a {b: [1, 2]}\n" + "\n".join(f"k{i}: *a" for i in range(1000)), "t.yaml")
    assert data["k7"] == {"b": [1, 2]}
    assert data["k7"] is data["x-a"]


def test_a_bomb_that_nobody_expands_costs_nothing() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 8)}]" for i in range(1, 8)]
    tracemalloc.start()
    try:
        with pytest.raises(InvalidError, match="GF004"):
            read_text("\n".join(lines), "bomb.yaml")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000, "expanded it would hold 17 million strings"
    finally:
        tracemalloc.stop()


def test_alias_that_holds_itself_is_refused() -> None:
    with pytest.raises(InvalidError):
        read_text("a: &a [ *a ]", "t.yaml")


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="No such file"):
        read_file(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: caf\xe9\n")
    with pytest.raises(InvalidError, match=r"latin.yaml:2:1: GF001 is not UTF-8 text: byte 0xe9"):
        read_file(tmp_path / "latin.yaml")
    with pytest.raises(InvalidError, match="GF001"):
        read_file(tmp_path)
    for name in ("a\0.yaml", "n" * 300 + ".yaml"):
        with pytest.raises(InvalidError, match="GF001 can't be read"):
            read_file(tmp_path / name)


@given(st.text())
def test_any_text_is_a_value_or_a_diagnostic(text: str) -> None:
    with suppress(InvalidError):  # anything else that it raises fails the test
        read_text(text, "t.yaml")


@given(st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans()))
def test_numbers_survive_writing_and_reading(value: float) -> None:
    text = {True: "true", False: "false"}.get(value, repr(value)) if isinstance(value, bool) else repr(value)
    assert scalar(text.replace("inf", ".inf")) == value
