"""What a run leaves in its out folder: the outputs, ``run.json`` and ``report.html``.

Every file is written beside its place and renamed, so that a killed run leaves no partial file that looks whole.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from graphflow.codecs import CODECS
from graphflow.errors import GraphflowError, UsageError
from graphflow.ports import type_by_name
from graphflow.provenance import embed, text_of
from graphflow.record import RunRecord, ValueRecord
from graphflow.run import Run, Runner

INDEX = "run.json"
REPORT = "report.html"
TRACE = "trace.json"


def next_folder(parent: Path, name: str) -> Path:
    """The first of ``name-001``, ``name-002``, … that does not exist."""
    number = 1
    while (parent / f"{name}-{number:03d}").exists():
        number += 1
    return parent / f"{name}-{number:03d}"


@contextmanager
def out_folder(folder: Path) -> Iterator[None]:
    """Make a folder for outputs and see that it can be written, before anything is computed.

    If nothing has been written into it in the end, what was made goes away again.

    Raises:
        UsageError: it can't be made or written.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        _prepare(folder)
        yield
    finally:
        with suppress(OSError):  # it holds something
            for path in made:
                path.rmdir()


def _prepare(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{uuid.uuid4().hex}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise UsageError(f"--out: {folder} can't be written: {error.strerror or error}") from error


def write(run: Run, folder: Path, metadata: bool = True) -> list[Path]:
    """Write every output; returns the files. Their names are entered into the record.

    Args:
        run: a finished run.
        folder: an existing folder.
        metadata: embed the record into PNG outputs, cut down to what made the picture.

    Raises:
        GraphflowError: a file could not be written.
    """
    for name, entry in run.record.outputs.items():
        entry.file = _file_name(name, entry)
    written = []
    carried = text_of(run.record) if metadata and _has_picture(run.record) else None
    try:
        for name, entry in run.record.outputs.items():
            written += _write_output(run, name, entry, folder, metadata, carried)
    except OSError as error:
        raise GraphflowError(f"{folder}: an output can't be written: {error.strerror or error}") from error
    return written


def write_index(runner: Runner, folder: Path) -> None:
    """Write ``run.json`` and ``report.html``; also for a run that failed or was cancelled.

    Raises:
        GraphflowError: a file could not be written.
    """
    from graphflow.report import write_report
    from graphflow.report.memory import Memory

    record, memory = runner.record, Memory(runner.store)
    try:
        replace_file(folder / INDEX, lambda path: path.write_text(record.model_dump_json(indent=1), encoding="utf-8"))
        replace_file(folder / REPORT, lambda path: write_report(record, runner.stored_value, path, memory))
    except OSError as error:
        raise GraphflowError(f"{folder}: can't be written: {error.strerror or error}") from error


def _file_name(name: str, entry: ValueRecord) -> str:
    if entry.type == "Text":
        return f"{name}.txt"
    found = type_by_name(entry.type)
    assert found is not None
    suffix = CODECS[found[0].codec].suffix
    return f"{name}-*{suffix}" if found[1] and found[0].codec != "json" else f"{name}{suffix}"


def _has_picture(record: RunRecord) -> bool:
    return any(entry.type.removesuffix("?") in ("Image", "Mask") for entry in record.outputs.values())


def _write_output(
    run: Run, name: str, entry: ValueRecord, folder: Path, metadata: bool, carried: str | None
) -> list[Path]:
    """Write an output; `carried` is what a picture carries that is no element of a list."""
    assert entry.file is not None
    if "*" not in entry.file:
        value = _with_gaps(run, name, entry) if entry.failed else run[name]
        _write_value(value, entry, folder / entry.file, carried)
        return [folder / entry.file]
    written = []
    for position, value in run.elements(name):
        path = folder / entry.file.replace("*", f"{position:03d}")
        _write_value(value, entry, path, run.record_of(name, position) if metadata else None)
        written.append(path)
    return written


def _with_gaps(run: Run, name: str, entry: ValueRecord) -> list[Any]:
    """A list with null for each element that failed, so that the others keep their positions."""
    found = dict(run.elements(name))
    return [found.get(position) for position in range(len(found) + len(entry.failed))]


def _write_value(value: Any, entry: ValueRecord, path: Path, record: RunRecord | str | None) -> None:
    found = type_by_name(entry.type)
    assert found is not None
    codec_name = found[0].codec
    path.parent.mkdir(parents=True, exist_ok=True)  # of a node inside a sub-graph: each/encode.latents
    if codec_name == "json":
        text = value if path.suffix == ".txt" else json.dumps(value, indent=1, ensure_ascii=False)
        replace_file(path, partial(Path.write_text, data=text + "\n", encoding="utf-8"))
    elif codec_name == "image" and record is not None:
        embed(value, record, path)
    else:
        replace_file(path, partial(CODECS[codec_name].write, value))


def replace_file(path: Path, write_to: Callable[[Path], Any]) -> None:
    """Write a file (or folder) beside its place and rename it, so that it appears whole or not at all.

    Raises:
        OSError: it can't be written.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        write_to(temporary)
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)
