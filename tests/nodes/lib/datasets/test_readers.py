"""Each data set in its official layout: what is read, the traps, and what a broken set is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_datasets as tiny

from graphflow.nodes.lib.datasets import (
    emu_edit,
    gedit_bench,
    imgedit,
    instruct_pix2pix,
    magicbrush,
    pie_bench,
    reedit,
    tedbench,
)


@pytest.fixture
def arrow() -> Any:
    return pytest.importorskip("pyarrow")


def change(path: Path, edit: Any) -> None:
    """Rewrite a JSON file."""
    data = json.loads(path.read_text())
    edit(data)
    tiny.write(path, data)


def column(rows: list[dict[str, Any]], name: str) -> list[Any]:
    return [row[name] for row in rows]


# --- MagicBrush -----------------------------------------------------------------------------------------------------


def test_magicbrush_from_the_hub(tmp_path: Path, arrow: Any) -> None:
    rows = magicbrush.read_parquet(tiny.magicbrush_parquet(tmp_path), "dev")
    assert column(rows, "name") == ["139/1", "139/2", "139/3", "30/1"]
    assert column(rows, "instruction") == [f"edit {n}" for n in range(4)]
    assert rows[2]["source"].load().tobytes() == rows[1]["target"].load().tobytes() == tiny.colour(2).tobytes()
    mask = np.asarray(rows[0]["mask"].load())
    assert mask.shape == (8, 12), "masks are in the source's size"
    assert (mask[:, :6] == 255).all()
    assert not mask[:, 6:].any()


@pytest.mark.parametrize(
    ("turns", "names"), [("first", ["139/1", "30/1"]), ("last", ["139/3", "30/1"])]
)  # fmt: skip
def test_turns_of_a_session_can_be_chosen(tmp_path: Path, arrow: Any, turns: Any, names: list[str]) -> None:
    tiny.parquet(tmp_path, "dev", tiny.magicbrush_rows()[::-1])
    rows = magicbrush.read_parquet(tmp_path, "dev", turns)
    assert sorted(column(rows, "name")) == names, "by the turn's number, not by the order of the rows"


def test_magicbrush_test_set(tmp_path: Path) -> None:
    rows = magicbrush.read_folder(tiny.magicbrush_test(tmp_path))
    assert column(rows, "name") == ["139/1", "139/2", "30/1"]
    second = rows[1]
    assert second["source"].where == "images/139/139-output1.png"
    assert second["source_caption"] == "whole 139-output1.png"
    assert second["target_caption"] == "whole 139-output2.png"
    assert second["target_local_caption"] == "local 139-output2.png"
    (tmp_path / "local_descriptions.json").rename(tmp_path / "local_captions.json")
    assert column(magicbrush.read_folder(tmp_path, "last"), "name") == ["139/2", "30/1"]


def test_a_broken_magicbrush_test_set_is_told_so(tmp_path: Path) -> None:
    tiny.magicbrush_test(tmp_path / "MagicBrush" / "test")
    with pytest.raises(
        ValueError, match=r"MagicBrush: has no 'edit_sessions.json'.*the folder 'test' inside it has one"
    ):
        magicbrush.read_folder(tmp_path / "MagicBrush")
    folder = tmp_path / "MagicBrush" / "test"
    change(folder / "global_descriptions.json", lambda d: d["139"].pop("139-output2.png"))
    with pytest.raises(ValueError, match=r"global_descriptions.json: '139': has no '139-output2.png'; it has: 139-in"):
        magicbrush.read_folder(folder)
    change(folder / "edit_sessions.json", lambda d: d["139"][1].update(input="../../../x.png"))
    with pytest.raises(ValueError, match=r"edit_sessions.json: '139', edit 2: .* lies outside the folder"):
        magicbrush.read_folder(folder)
    (folder / "images" / "139" / "139-mask1.png").unlink()
    with pytest.raises(
        ValueError, match=r"edit_sessions.json: '139', edit 1: there is no file 'images/139/139-mask1.png'"
    ):
        magicbrush.read_folder(folder)
    (folder / "local_descriptions.json").unlink()
    with pytest.raises(
        ValueError, match=r"has no 'local_descriptions.json', expected the captions .*local_captions.json"
    ):
        magicbrush.read_folder(folder)


# --- Emu Edit -------------------------------------------------------------------------------------------------------


def test_emu_edit_leaves_out_captions_that_say_nothing(tmp_path: Path, arrow: Any) -> None:
    said: list[str] = []
    rows = emu_edit.read(tiny.emu_edit(tmp_path), "test", log=said.append)
    assert column(rows, "name") == ["test/10", "test/12"]
    assert column(rows, "target_caption") == ["a dog in the snow", "a red car"]
    assert rows[1]["source"].load().tobytes() == tiny.colour(2).tobytes(), "the picture of its own row"
    assert said == ["3 of 5 rows left out: captions that are the same, empty or a placeholder"]
    assert len(emu_edit.read(tmp_path, "test", bad_captions=True)) == 5


def test_emu_edit_knows_its_tasks(tmp_path: Path, arrow: Any) -> None:
    rows = tiny.emu_rows()
    rows[2]["task"] = "loca"
    tiny.parquet(tmp_path, "test", rows)
    with pytest.raises(ValueError, match=r"row 2: 'task' is 'loca', expected one of add, .*; did you mean 'local'\?"):
        emu_edit.read(tmp_path, "test")


# --- PIE-Bench ------------------------------------------------------------------------------------------------------


def test_pie_bench(tmp_path: Path) -> None:
    first, second = pie_bench.read(tiny.pie_bench(tmp_path))
    assert (first["name"], first["edit_type"]) == ("111000000000", "change_object")
    assert (first["source_caption"], first["target_caption"]) == ("a cat on a  bench", "a dog on a  bench")
    assert (second["blended_word"], second["edit_type"]) == ("", "random")
    mask = np.asarray(first["mask"].load())
    assert mask.shape == (512, 512)
    assert (mask[1:3, 1:4] == 255).all()
    assert int((mask == 255).sum()) == 4 * 511 + 6


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mask": [1, 2, 3]}, r"'mask' holds 3 values, expected pairs"),
        ({"mask": [1, -2]}, r"'mask' holds 2 values, expected pairs"),
        ({"mask": "1 2"}, r"'mask' holds '1 2', expected pairs"),
        ({"editing_type_id": 10}, r"'editing_type_id' is 10, expected one of 0, 1"),
        ({"image_path": "/etc/hostname"}, r"lies outside|there is no file"),
        ({"original_prompt": ""}, r"'prompt' is empty, expected text"),
    ],
)
def test_a_broken_annotation_is_named(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=rf"mapping_file.json: '111000000000': .*({says})"):
        pie_bench.read(tiny.pie_bench(tmp_path, **changes))


def test_pie_bench_needs_its_pictures(tmp_path: Path) -> None:
    tiny.write(tmp_path / "mapping_file.json", {})
    with pytest.raises(
        ValueError, match=r"has no 'annotation_images', expected the folder of PIE-Bench; found: mapping"
    ):
        pie_bench.read(tmp_path)


# --- TEdBench, ReEdit, GEdit, ImgEdit -------------------------------------------------------------------------------


def test_tedbench_names_are_those_of_the_authors_results(tmp_path: Path) -> None:
    rows = tedbench.read(tiny.tedbench(tmp_path))
    assert column(rows, "name") == [
        "bird.jpeg-A_bird_eating_a_fish",
        "bird.png-A_bird_eating_a_fish",
        "bird.png-A_flying_bird",
        "bird.jpeg-A_bird_eating_a_fish-2",
    ]
    assert rows[0]["target_caption"] == "A bird eating a fish."
    assert rows[1]["source"].load().tobytes() == tiny.colour(1).tobytes()
    change(tmp_path / "input_list.json", lambda entries: entries[2].pop("target_text"))
    with pytest.raises(ValueError, match=r"input_list.json: entry 2: has no 'target_text'; it has: img_name"):
        tedbench.read(tmp_path)


def test_reedit(tmp_path: Path) -> None:
    first, second = reedit.read(tiny.reedit(tmp_path))
    assert (first["name"], first["edit_type"], first["instruction"]) == ("add_glasses2-21", "insertion", "do edit 0")
    pictures = ("exemplar_before", "exemplar_after", "source", "target")
    assert [first[p].load().getpixel((0, 0)) for p in pictures] == [tiny.colour(n).getpixel((0, 0)) for n in range(4)]
    assert "target" not in second
    said: list[str] = []
    assert column(reedit.read(tmp_path, only_with_target=True, log=said.append), "name") == ["add_glasses2-21"]
    assert said == ["1 of 2 edits left out: they have no ground truth 1_1.png"]


def test_a_folder_that_is_no_exemplar_edit_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected folders such as 'add_butterfly-21' with .*; found: nothing"):
        reedit.read(tmp_path)
    tiny.reedit(tmp_path)
    (tmp_path / "sor_cat" / "0_1.png").unlink()
    with pytest.raises(ValueError, match=r"sor_cat: there is no file 'sor_cat/0_1.png'"):
        reedit.read(tmp_path)
    (tmp_path / "sor_cat").rename(tmp_path / "styl_cat")
    with pytest.raises(ValueError, match=r"the folder 'styl_cat' begins with no type.*did you mean 'style'\?"):
        reedit.read(tmp_path)


def test_gedit_bench_has_one_chinese(tmp_path: Path, arrow: Any) -> None:
    folder = tiny.gedit_bench(tmp_path)
    assert column(gedit_bench.read(folder), "name") == ["subject-add/en/k1", "color_alter/en/k2"]
    chinese = gedit_bench.read(folder, "cn", "input_image_raw")
    assert column(chinese, "name") == ["subject-add/cn/k1", "color_alter/cn/k2"], "'zh' is 'cn' too"
    assert column(chinese, "instruction") == ["上色 k1", "上色 k2"]
    assert chinese[0]["source"].load().tobytes() == tiny.colour(1).tobytes()
    assert column(gedit_bench.read(folder, intersection=True), "name") == ["color_alter/en/k2"]
    rows = tiny.gedit_rows()
    rows[0]["instruction_language"] = "de"
    tiny.parquet(tmp_path, "train", rows)
    with pytest.raises(ValueError, match=r"row 0: 'instruction_language' is 'de', expected cn, en, zh"):
        gedit_bench.read(tmp_path)


def test_imgedit(tmp_path: Path) -> None:
    folder = tiny.imgedit(tmp_path)
    rows = imgedit.read(folder, "basic_edit.json", "original_images", typed=True)
    assert column(rows, "name") == ["1082", "673"]
    assert column(rows, "edit_type") == ["alter", "style"]
    assert rows[0]["instruction"] == "Change the shell."
    (hard,) = imgedit.read(folder, "UGE_edit.json", "original_images", typed=False)
    assert "edit_type" not in hard
    with pytest.raises(ValueError, match=r"UGE_edit.json: '1': has no 'edit_type'; it has: id, prompt"):
        imgedit.read(folder, "UGE_edit.json", "original_images", typed=True)
    with pytest.raises(
        ValueError, match=r"has no 'singleturn', expected the folder of its pictures \(parameter 'pictures'"
    ):
        imgedit.read(folder, "basic_edit.json", "singleturn", typed=True)


# --- InstructPix2Pix ------------------------------------------------------------------------------------------------


def test_instruct_pix2pix_has_a_row_for_each_seed(tmp_path: Path) -> None:
    rows = instruct_pix2pix.read(tiny.instruct_pix2pix(tmp_path))
    assert column(rows, "name") == ["0000000/11", "0000000/12", "0000001/7"]
    assert column(rows, "instruction") == ["edit 0", "edit 0", "edit 1"]
    assert (rows[1]["source_caption"], rows[1]["target_caption"]) == ("a field", "a red field")
    assert rows[1]["target"].where == "0000000/12_1.jpg"
    red, _, blue = rows[1]["source"].load().getpixel((4, 4))
    assert blue > 200 > 60 > red


def test_broken_pairs_are_told_so(tmp_path: Path) -> None:
    tiny.instruct_pix2pix(tmp_path)
    change(tmp_path / "0000001" / "prompt.json", lambda d: d.pop("edit"))
    with pytest.raises(ValueError, match=r"0000001/prompt.json: has no 'edit'; it has: input, output"):
        instruct_pix2pix.read(tmp_path)
    (tmp_path / "0000000" / "12_1.jpg").unlink()
    with pytest.raises(ValueError, match=r"seeds.json: entry 0: there is no file '0000000/12_1.jpg'"):
        instruct_pix2pix.read(tmp_path)
    tiny.write(tmp_path / "seeds.json", [["0000000", "11"]])
    with pytest.raises(ValueError, match="expected a folder and a list of seeds"):
        instruct_pix2pix.read(tmp_path)
    tiny.write(tmp_path / "seeds.json", [["../elsewhere", [1]]])
    with pytest.raises(ValueError, match="seeds.json: entry 0"):
        instruct_pix2pix.read(tmp_path)
    with pytest.raises(ValueError, match="has no 'seeds.json'"):
        instruct_pix2pix.read(tmp_path / "0000000")
