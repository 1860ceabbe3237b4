"""Durations and sizes read well at every magnitude, and never as ``60 s`` or ``1000 ms``."""

from __future__ import annotations

import pytest

from graphflow.units import duration, parse_size, plural, printable, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"), (0.0042, "4 ms"), (0.0999, "0.10 s"), (0.35, "0.35 s"), (9.996, "10.0 s"), (59.94, "59.9 s"),
        (59.96, "1 min 00 s"), (125, "2 min 05 s"), (3599.6, "1 h 00 min"), (3720, "1 h 02 min"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 * 2**30, "3.0 GiB"), (2**40, "1.0 TiB")]
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("text", "count"),
    [("50GiB", 50 * 2**30), ("1.5 GB", 1_500_000_000), ("800k", 800_000), ("4096B", 4096), ("2 gib", 2**31), ("0", 0)],
)
def test_sizes_are_read(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["24", "1.5", "", "GiB", "24iB", "-1GB", "1e3MB", "many"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a number with a unit"):
        parse_size(text)


def test_plurals_and_control_characters() -> None:
    assert (plural(1, "node"), plural(2, "node")) == ("1 node", "2 nodes")
    assert printable("a\x1b[31m\tb\nc\u202e") == "a\ufffd[31m\tb\nc\ufffd"
