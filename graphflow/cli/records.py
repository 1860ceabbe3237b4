"""Commands about finished runs: show, diff, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphflow.cli.app import Json, StoreFolder, app
from graphflow.errors import DamagedBlobError, UsageError
from graphflow.record import RunRecord, ValueRecord
from graphflow.units import printable

Made = Annotated[Path, typer.Argument(help="a PNG, run.json or out folder that graphflow wrote")]


@app.command()
def show(file: Made, json_: Json = False) -> None:
    """Show how a picture was made: graph, inputs, parameters, models, nodes."""
    record = read_record(file)
    if json_:
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
    out: Annotated[Path | None, typer.Option("--out", help="where to write it; default report.html beside it")] = None,
) -> None:
    """Write a run's report again, with the values that the store still has."""
    from graphflow.outputs import REPORT, replace_file
    from graphflow.ports import type_by_name
    from graphflow.report import write_report
    from graphflow.store import Store, Stored, default_folder

    record = read_record(file)
    opened = Store(store or default_folder())

    def load(value: ValueRecord) -> object:
        found = type_by_name(value.type.removesuffix("?"))
        if found is None or found[1]:
            return None
        try:
            return opened.peek(Stored(value.digest, found[0].codec))
        except DamagedBlobError:
            return None

    target = out or (file if file.is_dir() else file.parent) / REPORT
    replace_file(target, lambda path: write_report(record, load, path))
    print(target)


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
