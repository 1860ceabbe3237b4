"""Exemplar sets: what is written is what dataset.reedit reads, and thresholds turn away what they say."""

from __future__ import annotations

import csv
import gc
import logging
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny_datasets as tiny
from PIL import Image

import graphflow
from graphflow.errors import NodeError
from graphflow.node import Context
from graphflow.nodes.dataset import InstructPix2Pix, ReEdit
from graphflow.nodes.exemplar_set import Combine, Filter, FilterPairs, Write
from graphflow.nodes.lib.exemplar_sets import combinations, folder_name, prefix_of, same_edits

COLOURS = ("red", "green", "blue", "yellow", "magenta", "cyan")


def picture(number: int, size: tuple[int, int] = (12, 8)) -> Image.Image:
    image = Image.new("RGB", size, COLOURS[number % 6])
    image.putpixel((number % size[0], 0), (1, 2, 3))
    return image


def pairs(count: int = 3, instruction: str = "make it snow", edit_type: str = "background") -> dict[str, Any]:
    return {
        "name": [f"pictures/{n}.png" for n in range(count)],
        "source": [picture(2 * n) for n in range(count)],
        "target": [picture(2 * n + 1) for n in range(count)],
        "instruction": [instruction] * count,
        "edit_type": [edit_type] * count,
    }


def same(a: Image.Image, b: Image.Image) -> bool:
    return a.size == b.size and a.convert("RGB").tobytes() == b.convert("RGB").tobytes()


def test_what_is_written_is_what_the_reader_reads(tmp_path):
    made = Combine(per_edit=6).run(Combine.In(**pairs()), Context())
    columns = {name: getattr(made, name) for name in Combine.outputs()}
    folder = Write().run(Write.In(**columns), Context(out=tmp_path)).exemplars
    found = ReEdit(only_with_target=True).run(ReEdit.In(folder=folder), Context())
    order = sorted(range(len(made.name)), key=lambda n: folder_name(made.name[n], "background"))
    assert found.name == [folder_name(made.name[n], "background") for n in order]
    assert len(found.name) == 6
    for column in ("exemplar_before", "exemplar_after", "source", "target"):
        assert all(same(a, getattr(made, column)[n]) for a, n in zip(getattr(found, column), order, strict=True))
    assert found.instruction == ["make it snow"] * 6
    assert found.edit_type == ["background"] * 6


def test_the_reader_s_own_names_and_types_survive_a_round_trip(tmp_path):
    columns = {
        "exemplar_before": [picture(0)] * 2,
        "exemplar_after": [picture(1)] * 2,
        **pairs(2, edit_type="motion"),
        "name": ["mot_horse-12", "mot_horse-12"],
    }
    first = Write().run(Write.In(**columns), Context(out=tmp_path)).exemplars
    read = ReEdit().run(ReEdit.In(folder=first), Context())
    assert read.name == ["mot_horse-12", "mot_horse-12.2"]
    again = Write().run(Write.In(**{name: getattr(read, name) for name in columns}), Context(out=tmp_path)).exemplars
    assert {p.relative_to(again): p.read_bytes() for p in again.rglob("*.png")} == {
        p.relative_to(first): p.read_bytes() for p in first.rglob("*.png")
    }


def test_an_exemplar_is_one_pair_and_the_picture_of_another():
    out = Combine(per_edit=4).run(Combine.In(**pairs()), Context())
    assert out.name == [f"pictures/{n}.png-{ij}" for n, ij in ((0, "12"), (1, "23"), (2, "31"), (0, "13"))]
    assert same(out.exemplar_before[1], picture(2))
    assert same(out.exemplar_after[1], picture(3))
    assert same(out.source[1], picture(4))
    assert same(out.target[1], picture(5))
    mixed = pairs()
    mixed["edit_type"][1] = "style"
    out = Combine().run(Combine.In(**mixed), Context())
    assert [name.rpartition("-")[2] for name in out.name] == ["12", "21"]
    assert same(out.source[0], picture(4))


def test_what_counts_as_the_same_edit():
    said = ["Make it snow.", "make  it snow", "make it rain", "MAKE IT SNOW!"]
    assert same_edits(said, ["bg"] * 4) == [[0, 1, 3]]
    assert combinations([[5, 7]], 9) == [(5, 7, "12"), (7, 5, "21")]
    assert [between for _, _, between in combinations([list(range(10))], 2)] == ["1x2", "2x3"]
    with pytest.raises(ValueError, match="no two of the 3 pairs have the same instruction"):
        Combine().run(Combine.In(**pairs() | {"instruction": ["a", "b", "c"]}), Context())


def scores(*rows: Sequence[float]) -> list[dict[str, float]]:
    return [dict(zip(("clip_text", "clip_image", "clip_direction"), row, strict=True)) for row in rows]


def test_each_threshold_turns_away_and_says_so(caplog):
    caplog.set_level(logging.INFO, "graphflow.node")
    rows = scores((0.2, 0.7, 0.2), (0.1, 0.9, 0.9), (0.9, 0.6, 0.9), (0.9, 0.9, 0.1))
    x = FilterPairs.In(**pairs(4), scores=rows)
    assert list(FilterPairs().run(x, Context()).name) == ["pictures/0.png"]
    assert "1 of 4 edits kept; too low: clip_text 1, clip_image 1, clip_direction 1" in caplog.text
    out = FilterPairs(min_text=None, min_image=None).run(x, Context())
    assert list(out.name) == [f"pictures/{n}.png" for n in range(3)]
    assert same(out.target[2], picture(5))
    before = [{"clip_text": value} for value in (0.3, 0.3, 0.3, 0.1)]
    x = FilterPairs.In(**pairs(4), scores=rows, source_scores=before)
    out = FilterPairs(min_image=None, min_direction=None).run(x, Context())
    assert list(out.name) == ["pictures/0.png", "pictures/2.png"]


def test_what_a_filter_cannot_do_is_said():
    x = FilterPairs.In(**pairs(2), scores=[{"clip_text": 0.9}] * 2)
    with pytest.raises(ValueError, match="scores\\[0\\] has no clip_image, .*; it has: clip_text"):
        FilterPairs().run(x, Context())
    with pytest.raises(ValueError, match="none of 2 edits is good enough; too low: clip_text 2"):
        FilterPairs(min_text=0.95, min_image=None, min_direction=None).run(x, Context())
    with pytest.raises(ValueError, match="1 scores for 2 edits"):
        FilterPairs().run(FilterPairs.In(**pairs(2), scores=scores((1, 1, 1))), Context())
    with pytest.raises(ValueError, match="1 source_scores for 2 scores"):
        FilterPairs().run(FilterPairs.In(**pairs(2), scores=scores(*[(1, 1, 1)] * 2), source_scores=[{}]), Context())
    with pytest.raises(ValueError, match="differ in length: 2 name, 2 source, 0 target"):
        Combine().run(Combine.In(**pairs(2) | {"target": []}), Context())


def test_exemplars_that_do_not_change_alike_are_turned_away():
    made = Combine().run(Combine.In(**pairs()), Context())
    columns = {name: getattr(made, name) for name in Combine.outputs()}
    rows = [{"s_visual": 0.1}, {"s_visual": 0.5}]
    out = Filter().run(Filter.In(**columns, scores=rows), Context())
    assert list(out.name) == [made.name[1]]
    assert same(out.exemplar_after[0], made.exemplar_after[1])


def test_a_set_that_says_no_types_gets_the_default(tmp_path):
    data = InstructPix2Pix()
    read = data.run(data.In(folder=tiny.instruct_pix2pix(tmp_path / "ip2p")), Context())
    columns = {name: getattr(read, name) for name in ("name", "source", "target", "instruction")}
    good = FilterPairs(min_image=None, min_direction=None).run(
        FilterPairs.In(**columns, scores=[{"clip_text": 0.3}] * 3), Context()
    )
    assert list(good.edit_type) == []
    chosen = {name: getattr(good, name) for name in columns}
    made = Combine(default_type="style").run(Combine.In(**chosen), Context())
    assert list(made.name) == ["0000000/11-12", "0000000/12-21"]
    assert list(made.edit_type) == ["style", "style"]
    exemplars = {name: getattr(made, name) for name in Write.inputs() if name != "edit_type"}
    folder = Write().run(Write.In(**exemplars), Context(out=tmp_path)).exemplars
    assert sorted(p.name for p in folder.iterdir()) == ["sor_0000000-11-12", "sor_0000000-12-21"]


def test_types_of_other_sets_have_a_prefix():
    assert folder_name("a b/ü?", "insertion") == "add_a-b-ü"
    assert (prefix_of("remove"), prefix_of("global_style"), prefix_of("recolour")) == ("sor", "style", "poc")
    with pytest.raises(ValueError, match="'backgroud' is no type of edit.*did you mean 'background'"):
        prefix_of("backgroud")


def test_pictures_are_not_held_in_memory():
    alive: list[weakref.ref[Image.Image]] = []

    class Drawn(Sequence[Image.Image]):
        def __len__(self) -> int:
            return 50

        def __getitem__(self, index: Any) -> Any:
            alive.append(weakref.ref(image := picture(index, (64, 64))))
            return image

    columns = pairs(50) | {"source": Drawn(), "target": Drawn()}
    out = Combine(per_edit=50).run(Combine.In(**columns), Context())
    assert alive == []
    for image in out.source:
        assert image.size == (64, 64)
    del image
    gc.collect()
    assert len(alive) == 50
    assert sum(ref() is not None for ref in alive) == 0


# --- the graphs -----------------------------------------------------------------------------------------------------


def pair_data(folder: Path, count: int) -> Path:
    """The first replacements of the pocket world, twice each, as a table with captions."""
    from graphflow.nodes.pocket.exemplars import rows

    folder.mkdir()
    columns = ("source", "target", "instruction", "source_caption", "target_caption", "edit_type")
    with (folder / "edits.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns)
        table.writeheader()
        for number, row in enumerate([row for row in rows() if row["edit_type"] == "style"][:count]):
            caption = {"source_caption": "a picture", "target_caption": row["target_caption"]}
            for name, before, after in (("a", "exemplar_before", "exemplar_after"), ("b", "source", "target")):
                files = {side: f"{number}{name}-{side}.png" for side in ("source", "target")}
                row[before].load().save(folder / files["source"])
                row[after].load().save(folder / files["target"])
                said = {"instruction": f"{row['instruction']} ({number})", "edit_type": "style"}
                table.writerow({**files, **said, **caption})
    return folder


def test_the_graph_builds_a_set_from_pairs(tmp_path):
    folder = pair_data(tmp_path / "pairs", 3)
    session = graphflow.load("data/exemplar_set", store=tmp_path / "store", device="cpu")
    done = session.run(pairs=folder, min_text=-1.0, min_image=-1.0, min_direction=-1.0, min_s_visual=-1.0)
    found = ReEdit().run(ReEdit.In(folder=done["exemplars"]), Context())
    assert len(found.name) == len(done["scores"]) == 6
    assert set(found.edit_type) == {"global_style"}
    assert len(found.target) == 6
    with pytest.raises(NodeError, match="none of 6 edits is good enough; too low: clip_text"):
        session.run(pairs=folder, min_text=0.99)


def test_the_graph_builds_a_set_from_the_pocket_world(tmp_path):
    session = graphflow.load("data/pocket_exemplar_set", store=tmp_path / "store", device="cpu")
    done = session.run(count=7, min_s_visual=0.3)
    kept = sum(row["s_visual"] >= 0.3 for row in done["scores"])
    found = ReEdit(only_with_target=True).run(ReEdit.In(folder=done["exemplars"]), Context())
    assert 1 <= len(found.name) == kept <= 7
    assert len(done["scores"]) == 7
