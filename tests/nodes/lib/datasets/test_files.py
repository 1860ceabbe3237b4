"""Only files inside the folder are opened; every refusal says what was found and what was expected."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import tiny_datasets as tiny
from PIL import Image

from graphflow.nodes.lib.datasets.files import field, inside, picture, read_json, required
from graphflow.nodes.lib.datasets.rows import choose, in_turns, number_names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.save(tiny.colour(0), tmp_path / "set" / "pictures" / "cat.png")
    tiny.save(tiny.colour(1), tmp_path / "secret.png")
    return tmp_path / "set"


def test_a_file_outside_the_folder_is_refused_whatever_it_is_called(folder: Path) -> None:
    os.symlink(folder.parent / "secret.png", folder / "link.png")
    os.symlink(folder.parent, folder / "up")
    for name in (
        "../secret.png",
        str(folder.parent / "secret.png"),
        "link.png",
        "up/secret.png",
        "pictures/../../secret.png",
    ):
        with pytest.raises(ValueError, match=r"index: row 3: '.*(secret|link).png' lies outside the folder"):
            inside(folder, name, "index: row 3")
    os.symlink(folder / "pictures", folder / "same")
    assert inside(folder, "same/cat.png", "").exists(), "a link that stays inside is fine"


def test_a_hidden_file_is_no_part_of_the_set(folder: Path) -> None:
    tiny.save(tiny.colour(0), folder / ".cache" / "cat.png")
    with pytest.raises(ValueError, match=r"x: './.cache/cat.png' is hidden"):
        inside(folder, "./.cache/cat.png", "x")
    assert inside(folder, "./pictures/cat.png", "x").exists()


def test_the_hubs_cache_is_read_through_its_links(tmp_path: Path) -> None:
    blob = tiny.save(tiny.colour(0), tmp_path / "datasets--a--b" / "blobs" / "0f1e.png")
    commit = tmp_path / "datasets--a--b" / "snapshots" / "c0ffee"
    (commit / "data").mkdir(parents=True)
    os.symlink(blob, commit / "data" / "cat.png")
    assert picture(commit, "data/cat.png", "").load().size == tiny.SIZE
    assert picture(commit / "data", "cat.png", "").load().size == tiny.SIZE


def test_a_missing_file_is_named_with_the_nearest(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"x: there is no file 'pictures/cta.png' in set; did you mean 'cat.png'\?"):
        inside(folder, "pictures/cta.png", "x")
    with pytest.raises(ValueError, match=r"x: a picture is named None, expected the name of a file"):
        picture(folder, None, "x")


def test_a_folder_one_level_too_high_is_told_so(folder: Path) -> None:
    with pytest.raises(
        ValueError, match=r"has no 'cat.png', expected a cat; found: pictures; the folder 'pictures' .* name that"
    ):
        required(folder, "cat.png", "a cat")
    with pytest.raises(ValueError, match=r"none: is no folder, expected a cat"):
        required(folder / "none", "cat.png", "a cat")


def test_bad_json_says_where(folder: Path) -> None:
    cases = {
        '{"a": 1,\n "b" 2}': r"index.json:2:6: is no JSON",
        '{"a": 1, "a": 2}': r"index.json: the key 'a' stands twice",
        "[1]": r"index.json: holds a list, expected a map",
    }
    for text, says in cases.items():
        with pytest.raises(ValueError, match=says):
            read_json(tiny.write(folder / "index.json", text), dict)
    (folder / "index.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ValueError, match=r"index.json: is no UTF-8 text"):
        read_json(folder / "index.json", dict)
    with pytest.raises(ValueError, match=r"e: has no 'prompt'; it has: promt; did you mean 'promt'\?"):
        field({"promt": "x"}, "prompt", "e")
    with pytest.raises(ValueError, match=r"e: is 'x', expected a map with 'prompt'"):
        field("x", "prompt", "e")


def test_damaged_pictures_name_their_file(folder: Path) -> None:
    noise = tiny.save(Image.effect_noise((64, 64), 80).convert("RGB"), folder / "noise.jpg")
    (folder / "cut.jpg").write_bytes(noise.read_bytes()[:1500])
    tiny.write(folder / "text.png", "no picture")
    with pytest.raises(ValueError, match=r"cut.jpg: is a damaged or truncated picture"):
        picture(folder, "cut.jpg", "x").load()
    with pytest.raises(ValueError, match=r"text.png: is no picture that Pillow can read"):
        picture(folder, "text.png", "x").load()


def test_size_is_that_of_the_upright_picture(folder: Path) -> None:
    exif = tiny.colour(0).getexif()
    exif[0x0112] = 6
    tiny.colour(0).save(folder / "turned.jpg", exif=exif)
    turned = picture(folder, "turned.jpg", "x")
    assert turned.size == turned.load().size == (8, 12)


def test_rows_are_chosen_by_type_then_place() -> None:
    rows = [{"name": str(n), "edit_type": "odd" if n % 2 else "even"} for n in range(9)]
    assert [row["name"] for row in choose(rows, 1, 2, ("odd",))] == ["3", "5"]
    assert len(choose(rows, 4)) == 5
    with pytest.raises(ValueError, match=r"set: no edit of type 'evn'; the set has: even, odd; did you mean 'even'\?"):
        choose(rows, edit_types=("evn",), where="set")
    with pytest.raises(ValueError, match=r"set: no edit is left of the 9 found; 'start' is 9"):
        choose(rows, 9, where="set")


def test_edit_types_take_turns() -> None:
    rows = [{"name": str(n), "edit_type": kind} for n, kind in enumerate(["add"] * 4 + ["style"] + ["move"] * 2)]
    assert [row["name"] for row in in_turns(rows)] == ["0", "4", "5", "1", "6", "2", "3"]
    assert [row["name"] for row in in_turns([{"name": "a"}, {"name": "b"}])] == ["a", "b"]


def test_names_become_unique() -> None:
    assert [row["name"] for row in number_names([{"name": n} for n in "abaa"])] == ["a", "b", "a-2", "a-3"]
