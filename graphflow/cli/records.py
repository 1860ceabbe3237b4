"""Commands about finished runs: show, diff, report, trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphflow.cli.app import Json, StoreFolder, app, path_option
from graphflow.errors import DamagedBlobError, UsageError
from graphflow.groups import grouped
from graphflow.units import printable

if TYPE_CHECKING:
    from graphflow.record import RunRecord, ValueRecord
    from graphflow.store import Store, Stored

Made = Annotated[Path, typer.Argument(help="a PNG, run.json or out folder that graphflow wrote")]


@app.command()
def show(
    file: Made,
    graph: Annotated[bool, typer.Option("--graph", help="print the graph as it ran, and nothing else")] = False,
    json_: Json = False,
) -> None:
    """Show how a picture was made: inputs, parameters, models, nodes; or its graph."""
    if graph and json_:
        raise UsageError("--graph and --json exclude each other")
    record = read_record(file)
    if graph:
        print(printable(record.text).rstrip("\n"))
    elif json_:
        print(record.model_dump_json(indent=1))
    else:
        from graphflow.cli.tables import record_page

        record_page(record)


@app.command()
def diff(first: Made, second: Made) -> None:
    """Say what differs between two runs, and at which node the difference begins."""
    from graphflow.diff import differences

    found = differences(read_record(first), read_record(second))
    print(printable("\n".join(found)) or "no difference")


@app.command()
def report(
    file: Made,
    store: StoreFolder = None,
    out: Annotated[Path | None, path_option("--out", "a file or folder; default report.html beside it")] = None,
) -> None:
    """Write a run's report again, with the values that the store still has."""
    from graphflow.claim import REPORT
    from graphflow.report import write_report
    from graphflow.report.memory import Memory
    from graphflow.store import Store, default_folder

    record = read_record(file)
    opened = Store(store or default_folder())
    lists = _lists(record, opened)

    def load(value: ValueRecord) -> object:
        found = lists.get(value.digest) or _stored(value.type, value.digest)
        try:
            return opened.peek(found) if found is not None else None
        except DamagedBlobError:
            return None

    _write(_target(out, file, REPORT), lambda path: write_report(record, load, path, Memory(opened)))


@app.command()
def trace(
    file: Made,
    out: Annotated[Path | None, path_option("--out", "a file or folder; default trace.json beside it")] = None,
) -> None:
    """Write when each device computed, loaded and waited in a run, for ui.perfetto.dev or chrome://tracing."""
    from graphflow.outputs import TRACE
    from graphflow.trace import write_trace

    record = read_record(file)
    _write(_target(out, file, TRACE), lambda path: write_trace(record, path))


def _target(out: Path | None, file: Path, name: str) -> Path:
    """Where a page about a run is written: what the user says, a file or a folder; else beside the run's record."""
    place = out or (file if file.is_dir() else file.parent)
    return place / name if place.is_dir() else place


def _write(target: Path, write: Callable[[Path], object]) -> None:
    """Write a page about a run, and print where it is."""
    from graphflow.outputs import replace_file

    try:
        replace_file(target, write)
    except OSError as error:
        raise UsageError(f"{target} can't be written: {error.strerror or error}") from error
    print(target)


def _lists(record: RunRecord, store: Store) -> dict[str, Stored]:
    """The lists of a run by digest, with the digests of their elements, which a record has only for inputs."""
    from graphflow.codecs import digest_json

    found = [_stored(i.type, i.digest or "", i.items) for i in record.inputs.values() if i.items is not None]
    for node in record.nodes.values():
        result = store.result(node.key) if node.key else None
        found += result.outputs.values() if result is not None else ()
    for names in grouped(record.nodes).values():
        nodes = [record.nodes[name] for name in names]
        for port, value in nodes[0].outputs.items():
            items = [n.outputs[port].digest for n in nodes if port in n.outputs]
            found.append(_stored(f"list[{value.type}]", digest_json(items), items))
    return {stored.digest: stored for stored in found if stored is not None and stored.items is not None}


def _stored(type_name: str, digest: str, items: Sequence[str] | None = None) -> Stored | None:
    from graphflow.ports import type_by_name
    from graphflow.store import Stored

    found = type_by_name(type_name.removesuffix("?"))
    if found is None or found[1] != (items is not None):
        return None
    return Stored(digest, found[0].codec, 0, tuple(items) if items is not None else None)


def read_record(file: Path) -> RunRecord:
    """The record in a file.

    Raises:
        UsageError: it holds none.
    """
    from graphflow.provenance import read

    record = read(file)
    if record is None:
        raise UsageError(f"{file} was not made by graphflow: it holds no record")
    return record
