"""Inputs as people have them: every kind of picture, and clear refusals."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from graphflow import pictures
from graphflow.errors import InvalidError, MissingError, UsageError
from graphflow.inputs import Recorded, bind
from graphflow.pictures import read_image, to_rgb
from graphflow.spec import GraphSpec, parse_spec
from graphflow.store import Store, Stored

NODES = "nodes: {a: {uses: sample.shout, in: {text: inputs.text}}}\noutputs: {x: a.text}"


def spec(inputs: str, folder: Path | None = None) -> GraphSpec:
    return parse_spec(f"graphflow: 1\ninputs:\n{inputs}\n{NODES}", "g.yaml", folder)


def test_transparency_is_composited_on_white(tmp_path: Path) -> None:
    image = PIL.Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (255, 0, 0, 0))
    image.save(tmp_path / "a.png")
    assert [read_image(tmp_path / "a.png").getpixel((i, 0)) for i in (0, 1)] == [(255, 0, 0), (255, 255, 255)]


def test_palette_transparency_and_grey_with_alpha(tmp_path: Path) -> None:
    palette = PIL.Image.new("P", (1, 1), 0)
    palette.putpalette([10, 20, 30] + [0] * 765)
    palette.save(tmp_path / "p.png", transparency=0)
    assert read_image(tmp_path / "p.png").getpixel((0, 0)) == (255, 255, 255)
    assert to_rgb(PIL.Image.new("LA", (1, 1), (0, 128))).getpixel((0, 0)) == (127, 127, 127)


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    image = PIL.Image.new("RGB", (4, 2))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "r.jpg", exif=exif)
    assert read_image(tmp_path / "r.jpg").size == (2, 4)


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    levels = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    PIL.Image.fromarray(levels).save(tmp_path / "g.png")
    image = read_image(tmp_path / "g.png")
    assert [image.getpixel((i, 0))[0] for i in range(3)] == [0, 100, 255]  # type: ignore[index]


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "RGBX"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    assert to_rgb(PIL.Image.new(mode, (3, 2))).mode == "RGB"


@pytest.mark.parametrize("size", [(1, 1), (5000, 2), (2, 5000)])
def test_odd_shapes_are_pictures_too(tmp_path: Path, size: tuple[int, int]) -> None:
    PIL.Image.new("RGB", size).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").size == size


def _huge_png(path: Path) -> None:
    """A header that promises 60,000 × 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


def test_unusable_files_say_why(tmp_path: Path, store: Store) -> None:
    whole = tmp_path / "whole.jpg"
    PIL.Image.effect_noise((64, 64), 80).convert("RGB").save(whole)
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:400])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("no picture")
    _huge_png(tmp_path / "huge.png")
    declared = spec("  text: {type: Text, default: x}\n  image: {type: Image}")
    cases = {
        "cut.jpg": "truncated picture",
        "empty.png": "is empty (0 bytes)",
        "text.png": "is no picture",
        "huge.png": "too many pixels",
        ".": "is a folder",
    }
    for name, says in cases.items():
        with pytest.raises(InvalidError) as caught:
            bind(declared.inputs, {"image": tmp_path / name}, store)
        assert says in str(caught.value), name
        assert "GF130" in str(caught.value)
    with pytest.raises(MissingError, match=r"none.png does not exist"):
        bind(declared.inputs, {"image": tmp_path / "none.png"}, store)


@pytest.mark.parametrize("value", [np.zeros((4, 4, 3), "u1"), 3, None], ids=["ndarray", "int", "NoneType"])
def test_a_value_that_is_no_picture_says_its_type(value: object, request: pytest.FixtureRequest, store: Store) -> None:
    declared = spec("  image: Image\n  images: list[Image]")
    given = {"image": value, "images": [value]}
    with pytest.raises(InvalidError) as caught:
        bind(declared.inputs, given, store)
    says = f"is of type {request.node.callspec.id}, expected a file or a PIL image"
    assert [d.code for d in caught.value.diagnostics if says in d.message] == ["GF130", "GF130"]


def test_one_picture_is_no_list_of_pictures(store: Store) -> None:
    declared = spec("  images: list[Image]")
    for value in (3, PIL.Image.new("RGB", (4, 4))):
        with pytest.raises(InvalidError, match="expected a list of files or PIL images"):
            bind(declared.inputs, {"images": value}, store)


def test_a_picture_above_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_PIXELS", 10)
    PIL.Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="4 × 4 pixels; at most 10"):
        read_image(tmp_path / "a.png")


def test_the_digest_is_of_the_pixels_not_of_the_file(tmp_path: Path, store: Store) -> None:
    image = PIL.Image.effect_noise((8, 8), 80).convert("RGB")
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.bmp")
    declared = spec("  text: {type: Text, default: x}\n  image: {type: Image}")
    digests = {bind(declared.inputs, {"image": tmp_path / n}, store)["image"].stored.digest for n in ("a.png", "b.bmp")}
    assert len(digests) == 1


def test_an_overwritten_picture_is_seen(tmp_path: Path, store: Store) -> None:
    declared = spec("  text: {type: Text, default: x}\n  image: {type: Image}")
    digests = []
    for colour in ("red", "blue"):
        PIL.Image.new("RGB", (4, 4), colour).save(tmp_path / "a.png")
        digests.append(bind(declared.inputs, {"image": tmp_path / "a.png"}, store)["image"].stored.digest)
    assert digests[0] != digests[1]


def test_a_picture_that_changes_meanwhile_is_never_taken_for_the_one_that_was_bound(
    tmp_path: Path, store: Store
) -> None:
    declared = spec("  text: {type: Text, default: x}\n  image: {type: Image}")
    PIL.Image.new("RGB", (4, 4), "red").save(tmp_path / "a.png")
    bound = bind(declared.inputs, {"image": tmp_path / "a.png"}, store)["image"]
    PIL.Image.new("RGB", (4, 4), "blue").save(tmp_path / "a.png")
    with pytest.raises(MissingError, match=r"a\.png has changed since the run began"):
        bound.load()
    store.put(PIL.Image.new("RGB", (4, 4), "red"), "image", is_input=True)
    assert bound.load().getpixel((0, 0)) == (255, 0, 0)
    (tmp_path / "a.png").unlink()
    assert bound.load().getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        ("int", "3", 3), ("float", "2", 2.0), ("float", "1e-4", 1e-4), ("bool", "true", True), ("Text", "12", "12"),
        ("list[Text]", "[a, b]", ["a", "b"]), ("list[int]", "[1, 2]", [1, 2]), ("Text", "", ""),
    ],
)  # fmt: skip
def test_plain_values_are_read_by_type(store: Store, kind: str, given: str, expected: object) -> None:
    bound = bind(spec(f"  text: {{type: Text, default: x}}\n  v: {{type: '{kind}'}}").inputs, {"v": given}, store)
    assert bound["v"].load() == expected


@pytest.mark.parametrize(
    ("kind", "given", "says"),
    [
        ("int", "3.5", "expected int"), ("int", "true", "expected int"), ("bool", "1", "expected bool"),
        ("float", "x", "expected float"), ("list[int]", "3", "expected a list"),
        ("float", "1e400", "GF130 .*is '1e400', which is not a finite number"), ("float", ".nan", "not a finite"),
        ("list[float]", "[1, .inf]", "is inf, which is not a finite number"),
        ("Scores", "3", "can't be used: it is int, expected named numbers"),
        ("Table", "3", "can't be used: it is int, expected rows of named values"),
        ("Latents", "3", "make it with a node"),
    ],
)  # fmt: skip
def test_wrong_values_are_refused(store: Store, kind: str, given: str, says: str) -> None:
    with pytest.raises(InvalidError, match=says):
        bind(spec(f"  text: {{type: Text, default: x}}\n  v: {{type: '{kind}'}}").inputs, {"v": given}, store)


def test_all_problems_of_the_inputs_come_at_once(store: Store) -> None:
    declared = spec("  text: {type: Text, nonempty: true}\n  n: {type: int}\n  m: {type: int, default: x}")
    with pytest.raises(InvalidError) as caught:
        bind(declared.inputs, {"text": "  "}, store)
    text = str(caught.value)
    assert "input 'text' (Text) is empty" in text
    assert "input 'n' (int) is not given" in text
    assert "input 'm' (int) is 'x', expected int" in text
    with pytest.raises(UsageError, match="did you mean text"):
        bind(declared.inputs, {"txt": "x"}, store)


def test_a_default_can_not_leave_the_graphs_folder(tmp_path: Path, store: Store) -> None:
    PIL.Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    folder = tmp_path / "graphs"
    folder.mkdir()
    declared = spec("  text: {type: Text, default: x}\n  image: {type: Image, default: ../secret.png}", folder)
    with pytest.raises(InvalidError, match="outside the graph's folder"):
        bind(declared.inputs, {}, store)
    listed = spec(
        "  text: {type: Text, default: x}\n  images: {type: 'list[Image]', default: '[../secret.png]'}", folder
    )
    with pytest.raises(InvalidError, match="outside the graph's folder"):
        bind(listed.inputs, {}, store)
    for wrong in ("null", "3", "[a.png, null]"):
        with pytest.raises(InvalidError, match="expected a file name"):
            bind(spec(f"  images: {{type: 'list[Image]', default: {wrong}}}", folder).inputs, {}, store)
    with pytest.raises(InvalidError, match="which a picture's graph can't open"):
        bind(spec("  text: {type: Text, default: x}\n  image: {type: Image, default: a.png}").inputs, {}, store)


def test_folders_and_globs_become_lists(tmp_path: Path, store: Store) -> None:
    for name in ("b.png", "a.png", "notes.txt"):
        PIL.Image.new("RGB", (1, 1), "red" if name == "a.png" else "blue").save(tmp_path / name, format="PNG")
    declared = spec("  text: {type: Text, default: x}\n  images: {type: 'list[Image]'}")
    for given in (tmp_path, f"{tmp_path}/*.png"):
        images = bind(declared.inputs, {"images": str(given)}, store)["images"].load()
        assert [i.getpixel((0, 0)) for i in images] == [(255, 0, 0), (0, 0, 255)]
    with pytest.raises(MissingError):
        bind(declared.inputs, {"images": f"{tmp_path}/*.jpg"}, store)


def test_a_yaml_list_names_pictures_in_its_order(tmp_path: Path, store: Store) -> None:
    for name in ("a.png", "b, c.png"):
        PIL.Image.new("RGB", (1, 1), "red" if name == "a.png" else "blue").save(tmp_path / name)
    declared = spec("  text: {type: Text, default: x}\n  images: {type: 'list[Image]'}")
    found = bind(declared.inputs, {"images": '["b, c.png", a.png]'}, store, tmp_path)["images"]
    assert [i.getpixel((0, 0)) for i in found.load()] == [(0, 0, 255), (255, 0, 0)]
    assert found.record().source == ["b, c.png", "a.png"]
    assert found.paths() == [tmp_path / "b, c.png", tmp_path / "a.png"]
    many = ", ".join(["a.png"] * 1000)
    assert len(bind(declared.inputs, {"images": f"[{many}]"}, store, tmp_path)["images"].elements) == 1000
    with pytest.raises(InvalidError, match="holds 3, expected the name of a picture"):
        bind(declared.inputs, {"images": "[a.png, 3]"}, store, tmp_path)
    with pytest.raises(InvalidError, match="GF002"):
        bind(declared.inputs, {"images": "[a.png, {]"}, store, tmp_path)


def test_an_existing_file_is_itself_whatever_its_name_means_as_a_glob(tmp_path: Path, store: Store) -> None:
    for name in ("photo [1].png", "[a].png", "[b]", "ab.png"):
        PIL.Image.new("RGB", (1, 1)).save(tmp_path / name, format="PNG")
    declared = spec("  text: {type: Text, default: x}\n  images: {type: 'list[Image]'}")
    names = {"photo [1].png": ["photo [1].png"], "[a].png": ["[a].png"], "[b]": ["[b]"], "[ab]?.png": ["ab.png"]}
    for given, expected in names.items():
        assert bind(declared.inputs, {"images": given}, store, tmp_path)["images"].source == expected


def test_a_folder_without_pictures_is_called_that(tmp_path: Path, store: Store) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").write_text("a")
    declared = spec("  text: {type: Text, default: x}\n  images: {type: 'list[Image]'}")
    with pytest.raises(InvalidError, match=r"is the folder notes, which holds no pictures \(.*\.jpg, .*\.png"):
        bind(declared.inputs, {"images": "notes"}, store, tmp_path)


def test_every_broken_picture_of_a_list_is_named_and_every_missing_one(tmp_path: Path, store: Store) -> None:
    PIL.Image.new("RGB", (1, 1)).save(tmp_path / "b.png")
    for name in ("a.png", "c.png"):
        (tmp_path / name).write_text("no picture")
    declared = spec("  text: {type: Text, default: x}\n  images: {type: 'list[Image]'}")
    with pytest.raises(InvalidError) as caught:
        bind(declared.inputs, {"images": str(tmp_path)}, store)
    first, second = caught.value.diagnostics
    assert first.code == second.code == "GF130"
    assert "/a.png: is no picture" in first.message
    assert "/c.png: is no picture" in second.message
    assert str(caught.value).endswith("hint: a list is read whole: mend these pictures, or leave them out")
    with pytest.raises(MissingError) as gone:
        bind(declared.inputs, {"images": "[x.png, b.png, y.png]"}, store, tmp_path)
    assert [line.rpartition("/")[2] for line in str(gone.value).splitlines()] == [
        "x.png does not exist", "y.png does not exist",
    ]  # fmt: skip


# --- what a record names ----------------------------------------------------------------------------------------------


def recorded(folder: Path, digest: str, name: str) -> Recorded:
    return Recorded.of(Stored(digest, "image"), name, folder)


def test_a_recorded_picture_is_found_beside_the_record(tmp_path: Path, store: Store) -> None:
    inputs = spec("  p: Image").inputs
    folder = tmp_path / "sent"
    folder.mkdir()
    PIL.Image.new("RGB", (2, 2), "red").save(folder / "red.png")
    digest = bind(inputs, {"p": str(folder / "red.png")}, store)["p"].stored.digest
    found = bind(inputs, {"p": recorded(folder, digest, "red.png")}, store)["p"]
    assert found.stored.digest == digest
    assert found.source == "red.png"
    assert found.load().getpixel((0, 0)) == (255, 0, 0)
    assert found.paths() == [folder / "red.png"], "no run may replace it"
    (folder / "inside.png").symlink_to("red.png")
    assert bind(inputs, {"p": recorded(folder, digest, "inside.png")}, store)["p"].source == "inside.png"
    PIL.Image.new("RGB", (2, 2), "blue").save(folder / "red.png")
    with pytest.raises(MissingError, match=rf"has red.png \(picture {digest[:12]}\); give it with -i p=FILE$"):
        bind(inputs, {"p": recorded(folder, digest, "red.png")}, store)


@pytest.mark.parametrize(
    "name",
    ["../red.png", "./red.png", "{root}/red.png", "link.png", "sub/red.png", "up/red.png", "..", ".", "", "sub",
     "a" * 300, "a\0b.png", "\x1b[31m.png", "C:red.png", "sub\\red.png", "pipe.png"],
)  # fmt: skip
def test_a_record_opens_nothing_outside_its_own_folder(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    inputs = spec("  p: Image").inputs
    folder = tmp_path / "sent"
    (folder / "sub").mkdir(parents=True)
    for place in (tmp_path, folder / "sub"):
        PIL.Image.new("RGB", (2, 2), "red").save(place / "red.png")
    (folder / "link.png").symlink_to(tmp_path / "red.png")
    (folder / "up").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.png")
    digest = bind(inputs, {"p": str(tmp_path / "red.png")}, store)["p"].stored.digest
    monkeypatch.setattr("graphflow.inputs.read_image", lambda path: pytest.fail(f"{path} is opened"))
    monkeypatch.setattr(type(store), "file_digest", lambda self, path, *_: pytest.fail(f"{path} is opened"))
    with pytest.raises(MissingError, match=digest[:12]) as caught:
        bind(inputs, {"p": recorded(folder, digest, name.format(root=tmp_path))}, store)
    assert str(caught.value).isprintable()


def test_pictures_of_a_recorded_list_are_found_one_by_one(tmp_path: Path, store: Store) -> None:
    inputs = spec("  p: list[Image]").inputs
    for i in range(6):
        PIL.Image.new("RGB", (2, 2), (i, 0, 0)).save(tmp_path / f"{i}.png")
    stored = bind(inputs, {"p": str(tmp_path)}, store)["p"].stored
    names = [f"{i}.png" for i in range(6)]
    store.put(PIL.Image.new("RGB", (2, 2), (1, 0, 0)), "image", is_input=True)
    (tmp_path / "1.png").unlink()
    found = bind(inputs, {"p": Recorded.of(stored, names, tmp_path)}, store)["p"]
    assert found.stored == stored
    assert found.source == names
    assert [found.element(i).getpixel((0, 0)) for i in range(6)] == [(i, 0, 0) for i in range(6)]
    assert [picture.getpixel((0, 0))[0] for picture in found.load()] == list(range(6))
    for i in range(2, 6):
        (tmp_path / f"{i}.png").unlink()
    with pytest.raises(MissingError, match=r"2.png \(.*, 4.png \(picture .* and 1 more; give it with -i p=FOLDER"):
        bind(inputs, {"p": Recorded.of(stored, names, tmp_path)}, store)
    for source in (names[:2], ", ".join(names), None):
        with pytest.raises(MissingError, match="folder has the picture"):
            bind(inputs, {"p": Recorded.of(stored, source, tmp_path)}, store)
    with pytest.raises(InvalidError, match=r"input 'p' \(Image\) has another type in the record"):
        bind(spec("  p: Image").inputs, {"p": Recorded.of(stored, names, tmp_path)}, store)
