"""Provenance: what is embedded comes back, what is damaged or hostile is refused."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image
from records import node, picture, record

from graphflow import provenance
from graphflow.errors import InvalidError, MissingError
from graphflow.record import InputRecord, ModelRecord


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with(path: Path, *chunks: bytes) -> Path:
    """A real picture with raw chunks put in front of its pixels."""
    picture("red").save(path, format="PNG")
    data = path.read_bytes()
    path.write_bytes(data[:33] + b"".join(chunks) + data[33:])  # signature and IHDR take 33 bytes
    return path


def code(path: Path) -> str:
    with pytest.raises(InvalidError) as caught:
        provenance.read(path)
    return caught.value.diagnostics[0].code


def test_a_record_comes_back_and_the_pixels_are_untouched(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    image = Image.effect_noise((40, 30), 80).convert("RGB")
    provenance.embed(image, record(), path)
    assert provenance.read(path) == record()
    with Image.open(path) as found:
        assert found.convert("RGB").tobytes() == image.tobytes()
    assert [p.name for p in tmp_path.iterdir()] == ["out.png"]  # no temporary file is left


def test_without_a_record_the_picture_carries_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    image = picture("red")
    image.info["comment"] = "from the camera"
    provenance.embed(image, None, path)
    assert provenance.read(path) is None
    with Image.open(path) as found:
        assert not found.info


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    provenance.embed(picture("red"), None, path)
    before = path.read_bytes()
    with pytest.raises(OSError, match="F"):
        provenance.embed(Image.new("F", (2, 2)), None, path)  # PNG has no floats
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["out.png"]


def test_a_large_record_comes_back_and_pillow_opens_the_picture(tmp_path: Path) -> None:
    nodes = {f"n{i}": node("k.ü", {}, {}, parameters={"text": f"{i} ü" * 500}) for i in range(2000)}
    large = record(nodes=nodes)
    assert len(large.model_dump_json()) > 2 * 2**20
    path = tmp_path / "out.png"
    provenance.embed(picture("red"), large, path)
    assert provenance.read(path) == large
    with Image.open(path) as found:
        found.load()


def test_a_run_json_and_its_folder_are_read(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(record().model_dump_json(indent=1), encoding="utf-8")
    assert provenance.read(tmp_path / "run.json") == record()
    assert provenance.read(tmp_path) == record()


@pytest.mark.parametrize(
    ("value", "left"),
    [
        ("/home/ann/pictures/cat.png", "cat.png"),
        ("/Users/Ann Lee/my cat.png", "my cat.png"),
        ("C:\\Users\\Ann\\cat.png", "cat.png"),
        ("[Errno 2] No such file: '/home/ann/x/cat.png'", "[Errno 2] No such file: 'cat.png'"),
        ("models: {vae: {path: /data/weights/vae}}", "models: {vae: {path: vae}}"),
        ("https://example.org/a/b and and/or, 24/7/365", "https://example.org/a/b and and/or, 24/7/365"),
        ("/imagine a cat / a dog", "/imagine a cat / a dog"),
    ],
)
def test_paths_of_the_machine_are_cut(tmp_path: Path, value: str, left: str) -> None:
    told = record(
        text=value,
        preset={"vae": {"path": value}},
        overrides={"n.p": [value]},
        models={"vae": ModelRecord(loader="l", source=value, space="s", fingerprint="f")},
        nodes={"n": node("k", {}, {}, status="failed", reason=value)},
    )
    provenance.embed(picture("red"), told, tmp_path / "out.png")
    found = provenance.read(tmp_path / "out.png")
    assert found is not None
    texts = [found.text, found.preset["vae"]["path"], found.overrides["n.p"][0], found.models["vae"].source]
    assert [*texts, found.nodes["n"].reason] == [left] * 5


def test_the_home_folder_is_cut_even_with_a_space_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/Users/Ann Lee"))
    told = record(text="see /Users/Ann Lee/models/vae, please")
    assert provenance.without_paths(told).text == "see vae, please"


def test_sources_are_names_and_the_users_own_texts_stay(tmp_path: Path) -> None:
    given = {
        "image": InputRecord(type="Image", digest="d", source="../private/cat.png"),
        "photo": InputRecord(type="Image", digest="d", source="..\\private\\cat.png"),
        "photos": InputRecord(type="list[Image]", digest="d", source=["/private/a.png", "..\\b.png"]),
        "words": InputRecord(type="Text", value="draw /etc/passwd as a poster"),
    }
    found = provenance.without_paths(record(inputs=given))
    assert found.inputs["image"].source == found.inputs["photo"].source == "cat.png"
    assert found.inputs["photos"].source == ["a.png", "b.png"]
    assert found.inputs["words"].value == "draw /etc/passwd as a poster"


def test_plain_compressed_and_international_text_are_read(tmp_path: Path) -> None:
    text = record().model_dump_json().encode()
    packed = zlib.compress(text)
    for body in (
        chunk(b"tEXt", b"graphflow\0" + text),
        chunk(b"zTXt", b"graphflow\0\0" + packed),
        chunk(b"iTXt", b"graphflow\0\0\0en\0\0" + text),
        chunk(b"iTXt", b"graphflow\0\1\0\0\0" + packed),
    ):
        assert provenance.read(png_with(tmp_path / "a.png", body)) == record()


def test_a_text_bomb_is_refused(tmp_path: Path) -> None:
    bomb = zlib.compress(b" " * (4 * provenance.LIMIT), 9)
    once = chunk(b"zTXt", b"graphflow\0\0" + bomb)
    assert code(png_with(tmp_path / "a.png", once)) == "GF140"
    half = zlib.compress(b" " * (provenance.LIMIT // 2), 9)
    assert code(png_with(tmp_path / "b.png", *[chunk(b"zTXt", b"graphflow\0\0" + half)] * 100)) == "GF140"


def test_decompression_stops_at_the_limit(tmp_path: Path) -> None:
    body = b"\0" + zlib.compress(b" " * (4 * provenance.LIMIT), 9)
    found = provenance._text_of(tmp_path, b"zTXt", body, 1000)
    assert len(found) == 1000


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"{}",
        b"[" * 100_000,
        json.dumps({**json.loads(record().model_dump_json()), "exec": "rm"}).encode(),
        json.dumps({**json.loads(record().model_dump_json()), "seconds": "soon"}).encode(),
        json.dumps({**json.loads(record().model_dump_json()), "format": 2}).encode(),
        b"\xff\xfe",
    ],
)
def test_a_record_that_breaks_the_schema_is_refused(tmp_path: Path, body: bytes) -> None:
    assert code(png_with(tmp_path / "a.png", chunk(b"tEXt", b"graphflow\0" + body))) == "GF140"


def test_an_unknown_format_says_so(tmp_path: Path) -> None:
    newer = json.dumps({**json.loads(record().model_dump_json()), "format": 2})
    (tmp_path / "run.json").write_text(newer)
    with pytest.raises(InvalidError, match="another format version"):
        provenance.read(tmp_path / "run.json")


def test_damage_is_told_from_absence(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    provenance.embed(picture("red"), record(), path)
    data = bytearray(path.read_bytes())
    place = data.index(b"graphflow") + 40
    data[place] ^= 1
    path.write_bytes(data)
    assert code(path) == "GF140"
    path.write_bytes(data[: place + 5])  # cut off in the middle of the record
    assert code(path) == "GF140"


def test_another_programs_damaged_text_does_not_matter(tmp_path: Path) -> None:
    broken = chunk(b"tEXt", b"Comment\0hello")[:-4] + b"\0\0\0\0"
    assert provenance.read(png_with(tmp_path / "a.png", broken)) is None


def test_other_files_are_refused(tmp_path: Path) -> None:
    jpeg = tmp_path / "a.jpg"
    picture("red").save(jpeg)
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    assert code(jpeg) == code(empty) == "GF141"
    with pytest.raises(MissingError):
        provenance.read(tmp_path / "none.png")
    with pytest.raises(MissingError):
        provenance.read(tmp_path)
