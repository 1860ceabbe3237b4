"""What a report has drawn is remembered, and drawn again when the memory is lost, damaged or of another version."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import records
from PIL import Image
from records import picture, record, value

from graphflow.cli import run as graphflow
from graphflow.record import ValueRecord
from graphflow.report import memory, render
from graphflow.report.memory import Memory
from graphflow.report.values import Viewer
from graphflow.store import Store


class Source:
    """Counts what is read."""

    def __init__(self) -> None:
        self.read: Counter[str] = Counter()

    def __call__(self, found: ValueRecord) -> Any:
        self.read[found.digest] += 1
        return records.values().get(found.digest)


def test_a_second_report_reads_no_picture_and_no_tensor_and_is_the_same(store: Store) -> None:
    plain = render(record(), Source())
    first, second = Source(), Source()
    assert render(record(), first, Memory(store)) == plain
    assert render(record(), second, Memory(store)) == plain
    assert {"dog", "cat", "latents", "path", "cond", "mask"} <= set(first.read)
    assert set(second.read) <= {"words", "lines", "scores", "rows"}


def test_a_view_is_of_a_value_not_of_a_port(store: Store) -> None:
    viewer = Viewer(Source(), Memory(store))
    viewer.view("one", value("Latents", "latents"))
    again = Viewer(lambda _: pytest.fail("drawn again"), Memory(store)).view("two", value("Latents?", "latents"))
    assert (again.port, again.type, len(again.pictures)) == ("two", "Latents?", 1)
    assert again.facts[0] == ("shape", "1 × 4 × 6 × 8")


def test_the_same_bytes_as_another_type_are_drawn_for_themselves(store: Store) -> None:
    source = Source()
    viewer = Viewer(source, Memory(store))
    assert viewer.view("a", value("Latents", "latents")).pictures
    assert not viewer.view("a", value("Embedding", "latents")).pictures
    assert source.read["latents"] == 2


def test_what_is_lost_is_not_remembered(store: Store) -> None:
    viewer = Viewer(lambda _: None, Memory(store))
    assert viewer.view("a", value("Image", "dog")).shape == "lost"
    assert viewer.picture(value("Image", "dog"), 64) is None
    assert Viewer(Source(), Memory(store)).view("a", value("Image", "dog")).shape == "pictures"


def test_another_version_draws_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    Viewer(Source(), Memory(store)).view("a", value("Image", "dog"))
    monkeypatch.setattr(memory, "VERSION", memory.VERSION + 1)
    source = Source()
    Viewer(source, Memory(store)).view("a", value("Image", "dog"))
    assert source.read["dog"] == 1


def test_a_damaged_or_foreign_drawing_is_drawn_again(store: Store) -> None:
    kept = Memory(store)
    viewer = Viewer(Source(), kept)
    large = Image.effect_noise((300, 300), 90).convert("RGB")
    whole = Viewer(lambda _: large, kept).view("a", value("Image", "large"))
    [blob] = [p for p in (store.folder / "blobs").rglob("*.json") if p.is_file()]
    blob.write_bytes(blob.read_bytes()[:-9])
    assert Viewer(lambda _: large, kept).view("a", value("Image", "large")) == whole
    kept.put("view Image", "dog", {"nonsense": 1}, 0.1)
    assert viewer.view("a", value("Image", "dog")).shape == "pictures"


def test_a_store_that_can_not_be_written_costs_the_memory_not_the_report(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise store.index.error("recording", OSError(28, "No space left on device"))

    monkeypatch.setattr(store, "record", full)
    assert Viewer(Source(), Memory(store)).view("a", value("Image", "dog")).shape == "pictures"


def test_drawings_are_collected_like_results_and_listed_only_on_demand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    picture("red").save("a.png")
    (tmp_path / "g.yaml").write_text(
        "graphflow: 1\ninputs: {image: Image}\nnodes: {a: {uses: sample.invert, in: {image: inputs.image}}}\n"
        "outputs: {image: a.image}\n"
    )
    assert graphflow(["run", "g.yaml", "-i", "image=a.png", "--store", "s", "--out", "out", "-q"]) == 0
    capsys.readouterr()
    graphflow(["cache", "ls", "--store", "s"])
    assert "report.view" not in capsys.readouterr().out
    graphflow(["cache", "ls", "--store", "s", "--kind", "report.view"])
    assert "report.view Image" in capsys.readouterr().out
    store = Store(tmp_path / "s")
    assert list(store.verify()) == []
    assert len(store.collect(0).evicted) + len(store.collect(0, max_age=0.0).results) > 1
    assert store.all_results("report.view") == []
