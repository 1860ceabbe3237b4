"""What a run leaves in its out folder: the outputs, ``run.json`` and ``report.html``; of a map ``elements.csv`` too.

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

from graphflow.claim import ALWAYS, ELEMENTS, INDEX, REPORT, Claim, claim
from graphflow.codecs import CODECS
from graphflow.errors import GraphflowError, UsageError
from graphflow.ports import type_by_name
from graphflow.provenance import embed, text_of
from graphflow.record import InputRecord, RunRecord, ValueRecord
from graphflow.run import Run, Runner
from graphflow.units import headings

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


def claimed(folder: Path, runner: Runner, graph: str = "") -> Claim:
    """What the run may replace in a folder; see `graphflow.claim`. Asked before anything is computed.

    Args:
        folder: the out folder; need not exist.
        runner: the run.
        graph: what the user named as the graph.

    Raises:
        UsageError: the run would replace one of its inputs, or a file that graphflow did not write.
    """
    found = claim(folder, runner.inputs, Path(graph) if graph else None)
    names = [_file_name(n, runner.graph.output_port(ref).describe()) for n, ref in runner.outputs.items()]
    found.check([*names, *ALWAYS, *[ELEMENTS] * bool(runner.graph.spec.mapped)])
    return found


def write(run: Run, place: Claim, metadata: bool = True) -> list[Path]:
    """Write every output, and of a map the table of its elements; returns the files.

    Their names are entered into the record.
    What an earlier run left there, and this one does not write, goes.

    Args:
        run: a finished run.
        place: an existing folder; `write_index` completes it.
        metadata: embed the record into PNG outputs, cut down to what made the picture.

    Raises:
        GraphflowError: a file could not be written.
    """
    record, folder = run.record, place.folder
    for name, entry in record.outputs.items():
        entry.file = _file_name(name, entry.type)
    written: list[Path] = []
    cells: dict[str, list[Any]] = {}  # of each list its elements: names of files, or plain values
    carried = text_of(record) if metadata and _has_picture(record) else None
    try:
        place.begin([*(entry.file or "" for entry in record.outputs.values()), *[ELEMENTS] * bool(record.mapped)])
        for name, entry in record.outputs.items():
            files, cells[name] = _write_output(run, name, entry, folder, metadata, carried)
            written += files
        if record.mapped:
            replace_file(folder / ELEMENTS, partial(Path.write_text, data=_as_csv(record, cells), encoding="utf-8"))
            written.append(folder / ELEMENTS)
        names = {path.relative_to(folder).as_posix() for path in written}
        record.written = sorted(names | place.remove(names))
    except OSError as error:
        raise GraphflowError(f"{folder}: an output can't be written: {error.strerror or error}") from error
    return written


def write_index(runner: Runner, place: Claim, done: bool = True) -> None:
    """Write ``run.json`` and ``report.html``; for a run that failed or was cancelled, too.

    Args:
        runner: the run.
        place: its out folder.
        done: whether the outputs are written; else the files of an earlier run stay, and graphflow's.

    Raises:
        GraphflowError: a file could not be written.
    """
    from graphflow.report import write_report
    from graphflow.report.memory import Memory

    record, memory, folder = runner.record, Memory(runner.store), place.folder
    if not done:
        record.written = sorted(place.there())
    try:
        replace_file(folder / INDEX, lambda path: path.write_text(record.model_dump_json(indent=1), encoding="utf-8"))
        replace_file(folder / REPORT, lambda path: write_report(record, runner.stored_value, path, memory))
        place.end()
    except OSError as error:
        raise GraphflowError(f"{folder}: can't be written: {error.strerror or error}") from error


def _file_name(name: str, type_name: str) -> str:
    if type_name == "Text":
        return f"{name}.txt"
    found = type_by_name(type_name)
    assert found is not None
    suffix = CODECS[found[0].codec].suffix
    return f"{name}-*{suffix}" if found[1] and found[0].codec != "json" else f"{name}{suffix}"


def _has_picture(record: RunRecord) -> bool:
    return any(entry.type.removesuffix("?") in ("Image", "Mask") for entry in record.outputs.values())


def _write_output(
    run: Run, name: str, entry: ValueRecord, folder: Path, metadata: bool, carried: str | None
) -> tuple[list[Path], list[Any]]:
    """Write an output; returns its files, and of a list what stands for each element: its file, or a plain value.

    `carried` is what a picture carries that is no element of a list.
    """
    assert entry.file is not None
    if "*" not in entry.file:
        value = _with_gaps(run, name, entry) if entry.failed else run[name]
        _write_value(value, entry, folder / entry.file, carried)
        return [folder / entry.file], value if isinstance(value, list) else []
    written: dict[int, Path] = {}
    for position, value in run.elements(name):
        path = folder / entry.file.replace("*", f"{position:03d}")
        _write_value(value, entry, path, run.record_of(name, position) if metadata else None)
        written[position] = path
    names = {position: path.relative_to(folder).as_posix() for position, path in written.items()}
    return list(written.values()), [names.get(position) for position in range(len(names) + len(entry.failed))]


def _as_csv(record: RunRecord, cells: dict[str, list[Any]]) -> str:
    """What went into each element of a map, and what came out of it: a line an element."""
    import csv
    import io

    given = {name: _given(record.inputs[name]) for name in record.mapped}
    count = max(map(len, given.values()), default=0)
    columns = [column for name, found in cells.items() if len(found) == count for column in _columns(name, found)]
    names = headings([(output, key) for output, key, _ in columns])
    header = ["index", *given, *(f"outputs.{n}" if n in given or n == "index" else n for n in names)]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(zip(range(count), *given.values(), *(values for *_, values in columns), strict=True))
    return stream.getvalue()


def _given(entry: InputRecord) -> list[Any]:
    """The elements of a mapped input: the names of its files, or plain values."""
    if isinstance(entry.value, list):
        return entry.value
    return entry.source if isinstance(entry.source, list) else [""] * len(entry.items or ())


def _columns(name: str, values: list[Any]) -> list[tuple[str, str, list[Any]]]:
    """The column of an output, with its name and an empty key; of scores one for each key."""
    if not any(isinstance(value, dict) for value in values):
        return [(name, "", values)]
    keys = dict.fromkeys(key for value in values if value is not None for key in value)
    return [(name, key, [None if value is None else value.get(key) for value in values]) for key in keys]


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
        if path.is_dir() and temporary.is_dir():  # never a folder for a file
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)
