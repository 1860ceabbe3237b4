"""A run's record inside the pictures it made: a compressed text chunk of the PNG, keyword ``graphflow``.

What is read back is untrusted: it is decompressed up to a limit and parsed by the record's strict schema. Nothing in
it is executed and no path in it is opened. A picture that it names is looked for by its digest, in the store and in
the record's own folder; see `graphflow.inputs.Recorded`.
"""

from __future__ import annotations

import os
import re
import secrets
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, BinaryIO

from pydantic import ValidationError

from graphflow.errors import Diagnostic, InvalidError, Mark, MissingError
from graphflow.record import RunRecord

if TYPE_CHECKING:
    import PIL.Image

KEYWORD = "graphflow"
LIMIT = 16 * 2**20  # bytes of JSON; a record of a thousand nodes has about one mebibyte
_PART = 2**19  # characters in a chunk: Pillow refuses to open a PNG with a text chunk above one mebibyte
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")


def embed(image: PIL.Image.Image, record: RunRecord | str | None, path: Path) -> None:
    """Write `image` to `path` as a PNG that carries `record`; with None (``--no-metadata``) it carries nothing.

    The file appears complete or not at all. Absolute paths of this machine are cut down to their last part.

    Args:
        image: the picture.
        record: the record, or its `text_of` when several pictures carry the same.
        path: the file.

    Raises:
        InvalidError: GF142, the record is larger than `LIMIT`.
        OSError: the folder can't be written.
    """
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    if record is not None:
        text = record if isinstance(record, str) else text_of(record)
        if len(text.encode()) > LIMIT:
            raise _invalid(path, "GF142", f"the record exceeds {LIMIT} bytes", "save with --no-metadata")
        for start in range(0, len(text), _PART):
            info.add_itxt(KEYWORD, text[start : start + _PART], zip=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        image.save(temporary, format="PNG", pnginfo=info)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def text_of(record: RunRecord) -> str:
    """The JSON that a picture carries: the record without this machine's paths."""
    return without_paths(record).model_dump_json()


def read(path: Path) -> RunRecord | None:
    """The record in a PNG, in a ``run.json`` or in the out folder that holds one; None for a PNG without a record.

    Raises:
        MissingError: there is no such file.
        InvalidError: GF140, the record is damaged; GF141, the file is neither a PNG nor a record.
    """
    if path.is_dir():
        path = path / "run.json"
    if not path.is_file():
        raise MissingError(f"{path}: there is no such file")
    with path.open("rb") as file:
        head = file.read(len(_SIGNATURE))
        if head == _SIGNATURE:
            parts = list(_parts(path, file))
            return _parse(path, b"".join(parts)) if parts else None
        if head.lstrip()[:1] == b"{":
            return _parse(path, head + file.read(LIMIT + 1))
    hint = "a record stands in run.json and in the PNGs of a run; other formats and re-encoded pictures have none"
    raise _invalid(path, "GF141", "is neither a PNG nor a run.json", hint)


def _parse(path: Path, data: bytes) -> RunRecord:
    if len(data) > LIMIT:
        raise _invalid(path, "GF140", f"the record exceeds {LIMIT} bytes", "it was not written by graphflow")
    try:
        return RunRecord.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        found = f"{place}: {first['msg']}" if place else first["msg"]
        if first["loc"] == ("format",):
            raise _invalid(
                path, "GF140", "the record has another format version", "read it with that graphflow"
            ) from None
        raise _invalid(path, "GF140", f"the record is damaged: {found}") from None


def _parts(path: Path, file: BinaryIO) -> Iterator[bytes]:
    """The record's pieces in a PNG whose signature was read; pixels are skipped, not decoded."""
    room = LIMIT + 1
    while room > 0 and len(head := file.read(8)) == 8:
        length, kind = int.from_bytes(head[:4]), head[4:]
        if kind == b"IEND":
            return
        if kind not in _TEXT_CHUNKS or length > LIMIT:
            file.seek(length + 4, os.SEEK_CUR)
            continue
        body, checksum = file.read(length), file.read(4)
        keyword, _, rest = body.partition(b"\0")
        if keyword != KEYWORD.encode():
            continue
        if len(checksum) < 4:
            raise _invalid(path, "GF140", "the PNG ends in the middle of its record")
        if zlib.crc32(kind + body) != int.from_bytes(checksum):
            raise _invalid(path, "GF140", "the record is damaged: wrong checksum")
        part = _text_of(path, kind, rest, room)
        room -= len(part)
        yield part


def _text_of(path: Path, kind: bytes, rest: bytes, room: int) -> bytes:
    """What stands behind a text chunk's keyword, decompressed up to `room` bytes."""
    if kind == b"tEXt":
        return rest
    if kind == b"zTXt":
        packed, data = True, rest[1:]
    else:  # iTXt: compression flag, method, language, translated keyword, text
        packed = rest[:1] == b"\1"
        _, _, tail = rest[2:].partition(b"\0")
        _, _, data = tail.partition(b"\0")
    if not packed:
        return data
    try:
        return zlib.decompressobj().decompress(data, room)
    except zlib.error as error:
        raise _invalid(path, "GF140", f"the record is damaged: {error}") from None


def _invalid(path: Path, code: str, message: str, hint: str = "") -> InvalidError:
    return InvalidError([Diagnostic(Mark(str(path)), code, message, hint)])


def without_paths(record: RunRecord) -> RunRecord:
    """A copy that tells nothing about the machine's folders: absolute paths keep their last part.

    Texts that the user gave as inputs stay as they are: they are what the picture was made from.
    """
    data = _scrub(record.model_dump())
    for name, given in record.inputs.items():
        if given.type in ("Text", "list[Text]"):
            data["inputs"][name]["value"] = given.value
        if given.source is not None:
            data["inputs"][name]["source"] = (
                PureWindowsPath(given.source).name
                if isinstance(given.source, str)
                else [PureWindowsPath(source).name for source in given.source]
            )
    data["written"], data["command"] = [], []  # they tell of the user's folders, and do not make the picture
    return RunRecord.model_validate(data)


def _scrub(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _scrub(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_scrub(item) for item in value]
    return _scrub_text(value) if isinstance(value, str) else value


def _scrub_text(text: str) -> str:
    if "/" not in text and "\\" not in text:
        return text  # nearly every text: a picture of a map of a thousand carries two thousand digests
    if "\n" not in text and len(PurePosixPath(text).parts) > 2 and re.match(r"/[^\s/]+/", text):
        return PurePosixPath(text).name  # the whole text is a path, spaces included
    text = _absolute_path(str(Path.home())).sub(lambda m: PurePosixPath(m[0]).name, text)
    return re.sub(r"(?<!\w)[A-Za-z]:\\[^\s'\"]+", lambda m: PureWindowsPath(m[0]).name, text)


@lru_cache(1)
def _absolute_path(home: str) -> re.Pattern[str]:
    """Matches paths with two or more parts that begin at the root; not URLs, not ``and/or``. `home` may hold spaces."""
    return re.compile(rf"(?<![\w:/.~])(?:{re.escape(home)}|/[^\s/'\"]+)(?:/[^\s/'\",;:)\]}}]+)+")
