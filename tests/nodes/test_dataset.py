"""The data-set nodes: lists of one length, what each set has and nothing else, pictures one at a time."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_datasets as tiny
from harness import Harness
from PIL import Image

from graphflow import registry
from graphflow.codecs import CODECS
from graphflow.node import Context
from graphflow.nodes import dataset
from graphflow.nodes.dataset import FolderOfEdits, ImgEdit, Pictures, PieBench, Pocket, ReEdit, TEdBench
from graphflow.nodes.pocket.benchmark import Drawn
from graphflow.store import Store

MAKERS: dict[str, tuple[Callable[[Path], Path], dict[str, Any], int]] = {
    "dataset.magicbrush": (tiny.magicbrush_parquet, {}, 4),
    "dataset.magicbrush_test": (tiny.magicbrush_test, {}, 3),
    "dataset.emu_edit": (tiny.emu_edit, {}, 2),
    "dataset.pie_bench": (tiny.pie_bench, {}, 2),
    "dataset.tedbench": (tiny.tedbench, {}, 4),
    "dataset.instruct_pix2pix": (tiny.instruct_pix2pix, {}, 3),
    "dataset.reedit": (tiny.reedit, {"only_with_target": True}, 1),
    "dataset.gedit_bench": (tiny.gedit_bench, {"language": "cn"}, 2),
    "dataset.imgedit": (tiny.imgedit, {}, 2),
    "dataset.imgedit_uge": (tiny.imgedit, {}, 1),
    "dataset.folder": (tiny.own_table, {}, 3),
}
PARQUET = {"dataset.magicbrush", "dataset.emu_edit", "dataset.gedit_bench"}


def read(node: Any, folder: Path) -> Any:
    return node.run(node.In(folder=folder), Context())


def test_every_kind_of_the_family_is_tried_here() -> None:
    kinds = {kind for kind in registry.all_kinds() if kind.startswith("dataset.")}
    assert kinds == {*MAKERS, "dataset.pocket", "dataset.pocket_exemplars"}


@pytest.mark.parametrize("kind", MAKERS)
def test_outputs_are_lists_of_one_length_that_the_store_takes(kind: str, tmp_path: Path) -> None:
    if kind in PARQUET:
        pytest.importorskip("pyarrow")
    make, parameters, count = MAKERS[kind]
    cls = registry.all_kinds()[kind]
    out = read(cls(**parameters), make(tmp_path))
    for name, port in cls.outputs().items():
        values = getattr(out, name)
        assert isinstance(values, Sequence)
        assert len(values) == count, name
        codec = CODECS[port.type.codec]  # type: ignore[union-attr]
        assert [codec.check(value) for value in values] == [None] * count, name
        if port.type.name == "Mask":  # type: ignore[union-attr]
            assert all(mask.mode == "L" for mask in values)
            assert [mask.size for mask in values] == [image.size for image in out.source]
    assert len(set(out.name)) == count, "names are unique"


def test_a_stretch_and_types_can_be_taken(tmp_path: Path) -> None:
    folder = tiny.own_table(tmp_path)
    assert read(FolderOfEdits(start=1, limit=1), folder).name == ["pictures/b.png"]
    assert read(FolderOfEdits(edit_types=("style",)), folder).name == ["pictures/c.png"]
    with pytest.raises(ValueError, match=r"no edit of type 'styl'; the set has: colour, style; did you mean 'style'\?"):
        read(FolderOfEdits(edit_types=("styl",)), folder)
    bare = tiny.own_table(tmp_path / "bare", "source\npictures/a.png\n")
    with pytest.raises(ValueError, match=r"'edit_types' is given, but the table has no column 'edit_type'"):
        read(FolderOfEdits(edit_types=("style",)), bare)


def test_what_a_set_lacks_is_an_empty_list_not_made_up(tmp_path: Path) -> None:
    out = read(FolderOfEdits(), tiny.own_table(tmp_path / "own", "source,instruction\npictures/a.png,x\n"))
    assert (out.instruction, len(out.source)) == (["x"], 1)
    assert [len(v) for v in (out.target, out.mask, out.source_caption, out.edit_type)] == [0, 0, 0, 0]
    folder = tiny.reedit(tmp_path / "reedit")
    assert len(read(ReEdit(), folder).target) == 0, "one of the two edits has no ground truth"
    assert len(read(ReEdit(only_with_target=True), folder).target) == 1


def test_pictures_are_upright_rgb_and_masks_grey(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    tiny.own_table(tmp_path, "source,mask\npictures/t.jpg,m.png\n")
    tiny.colour(0).convert("L").save(tmp_path / "pictures" / "t.jpg", exif=exif)
    levels = np.full((12, 8), 257 * 100, np.uint16)
    Image.fromarray(levels).save(tmp_path / "m.png")
    out = read(FolderOfEdits(), tmp_path)
    assert (out.source[0].mode, out.source[0].size) == ("RGB", (8, 12))
    assert (out.mask[0].mode, out.mask[0].getpixel((3, 3))) == ("L", 100)


def test_a_thousand_pictures_are_never_in_memory_together() -> None:
    made: list[weakref.ref[Image.Image]] = []

    class Drawing:
        def load(self) -> Image.Image:
            image = tiny.colour(0)
            made.append(weakref.ref(image))
            return image

    most = 0
    pictures = Pictures([Drawing()] * 1000, grey=False)
    for picture in pictures:
        most = max(most, sum(ref() is not None for ref in made))
        assert picture.size == tiny.SIZE
    del picture
    gc.collect()
    assert most <= 2
    assert len(made) == 1000
    assert all(ref() is None for ref in made)
    assert len(pictures[10:]) == 990


def test_nothing_is_decoded_before_it_is_asked_for(tmp_path: Path) -> None:
    folder = tiny.tedbench(tmp_path)
    (folder / "originals" / "bird.png").write_text("damaged")
    out = read(TEdBench(), folder)
    assert out.source[0].size == tiny.SIZE
    with pytest.raises(ValueError, match=r"^originals/bird.png: is no picture that Pillow can read"):
        out.source[1]


def test_a_run_says_how_many_edits_it_reads(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "graphflow.node")
    read(ReEdit(only_with_target=True), tiny.reedit(tmp_path / "100% mine"))
    assert "1 of 2 edits left out" in caplog.text
    assert "100% mine: 1 edits" in caplog.text


def test_no_parameter_leads_out_of_the_folder(tmp_path: Path) -> None:
    tiny.imgedit(tmp_path / "secret")
    tiny.imgedit(tmp_path / "set")
    for parameters in ({"index": "../secret/basic_edit.json"}, {"pictures": "../secret/original_images"}):
        with pytest.raises(ValueError, match="lies outside the folder of the data set"):
            read(ImgEdit(**parameters), tmp_path / "set")
    with pytest.raises(ValueError, match="lies outside the folder of the data set"):
        read(FolderOfEdits(index="../secret/basic_edit.json"), tmp_path / "set")


def test_a_set_of_another_kind_is_told_what_was_expected(tmp_path: Path) -> None:
    tiny.imgedit(tmp_path)
    with pytest.raises(
        ValueError, match=r"has no 'mapping_file.json', expected the folder of PIE-Bench; found: UGE_edit"
    ):
        read(PieBench(), tmp_path)


def test_the_pocket_benchmark_is_a_data_set() -> None:
    out = Pocket(edit_types=("style", "add"), limit=5).run(Pocket.In(), Context())
    assert out.edit_type == ["add", "style", "add", "style", "add"]
    assert out.name[1] == "pocket-128-v1/style/00"
    source, target, mask = (np.asarray(column[0]).astype(int) for column in (out.source, out.target, out.mask))
    assert not (source != target).any(axis=-1)[mask == 0].any()
    assert len(Pocket().run(Pocket.In(), Context()).name) == 224


def test_their_pictures_are_not_copied_into_the_store() -> None:
    assert all(cls.cache == "never" for kind, cls in registry.all_kinds().items() if cls.__module__ == dataset.__name__)


MAPPED = """
graphflow: 1
nodes:
  set: {uses: dataset.pocket, with: {limit: 3}}
  method: {uses: sample.invert, map: {image: set.source}}
  OTHER
outputs: {images: method.image, names: set.name}
"""


def test_a_method_runs_over_a_set_and_another_reads_only_what_it_needs(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    load = Drawn.load
    monkeypatch.setattr(Drawn, "load", lambda self: drawn.append(self.where) or load(self))
    done = Harness(store, MAPPED.replace("OTHER", "")).run()
    assert len(done["images"]) == 3
    assert done["names"][2] == "pocket-128-v1/remove/00"
    assert len(drawn) == 9 + 3, "source, target and mask once for their digests, source once more for the method"
    drawn.clear()
    Harness(store, MAPPED.replace("OTHER", "")).run()
    assert drawn == [], "all is known"
    more = MAPPED.replace("OTHER", "second: {uses: sample.invert, map: {image: set.target}}").replace(
        "names: set.name", "names: set.name, more: second.image"
    )
    Harness(store, more).run()
    assert len(drawn) == 3, "the new method's pictures, once"
