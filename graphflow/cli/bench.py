"""The command that compares methods on a data set: a table, plots, and a page of pictures."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphflow.cli.app import (
    Batch,
    Device,
    Dtype,
    Inputs,
    Memory,
    Models,
    NodeFiles,
    StoreFolder,
    app,
    pairs,
    path_option,
    size_of,
    yaml_value,
)  # fmt: skip
from graphflow.errors import GraphflowError, UsageError

if TYPE_CHECKING:
    from graphflow.bench.session import Ready
    from graphflow.bench.table import Table
    from graphflow.plan import Plan

FORMATS = ("terminal", "md", "csv", "tex")


@app.command()
def bench(
    bench: Annotated[str, typer.Argument(metavar="BENCH", help="a shipped benchmark, such as pocket, or a bench file")],
    input: Inputs = [],  # noqa: B006
    out: Annotated[Path | None, path_option("--out", "folder for tables, scores, plots and report.html")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="at most so many pictures")] = None,
    methods: Annotated[str, typer.Option("--methods", metavar="A,B", help="only these methods")] = "",
    plan: Annotated[bool, typer.Option("--plan", help="say what would be computed, and compute nothing")] = False,
    keep_going: Annotated[
        bool, typer.Option("--keep-going/--stop", help="a picture that fails does not stop the others")
    ] = True,
    models: Models = None,
    set: Annotated[
        list[str],
        typer.Option(
            "--set", metavar="METHOD.PARAM=VALUE", help="also METHOD/NODE.PARAM, METRIC.PARAM, data.PARAM; repeatable"
        ),
    ] = [],  # noqa: B006
    device: Device = "auto",
    dtype: Dtype = "float32",
    memory: Memory = None,
    batch: Batch = None,
    store: StoreFolder = None,
    nodes: NodeFiles = [],  # noqa: B006
    format: Annotated[
        str, typer.Option("--format", help=f"the table on the terminal: {', '.join(FORMATS)}")
    ] = "terminal",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False,
) -> None:
    """Compare methods on a data set: a table of means with intervals. Nothing is computed twice."""
    from graphflow import outputs
    from graphflow.bench.session import open_bench

    if format not in FORMATS:
        raise UsageError(f"--format {format}: expected one of {', '.join(FORMATS)}")
    settings = {name: yaml_value(text, f"--set {name}") for name, text in pairs(set, "--set").items()}
    chosen = [name for name in methods.split(",") if name]
    found = open_bench(bench, models, chosen, limit, settings, store, device, dtype, nodes)
    given = pairs(input, "-i")
    if plan:
        print_plan(*found.plan(given))
        return
    if out is not None:
        from graphflow.bench.outputs import claim_folder

        claim_folder(out)
    with outputs.out_folder(out) if out is not None else nullcontext():
        from graphflow.bench.results import collect
        from graphflow.bench.table import table_of
        from graphflow.cli.bench_view import bench_progress

        with bench_progress(quiet) as display:
            ready, run = found.run(given, display, keep_going, size_of(memory), batch)
        results = collect(found.spec, ready.compiled, run, ready.memory)
        table = table_of(results)
        print_table(table, format)
        if out is not None:
            from graphflow.bench.outputs import write_bench

            written, warnings = write_bench(results, table, ready.compiled, run, out)
            for warning in warnings:
                print(f"warning: {warning}", file=sys.stderr)
            for path in written:  # in other forms the table alone goes to standard output
                print(path, file=sys.stdout if format == "terminal" else sys.stderr)
    empty = [row.title for row in table.rows if row.made == 0 and row.name in results.seconds]
    if empty:
        why = next(iter(results.failures.values()), "")
        raise GraphflowError(f"no picture was made by {', '.join(empty)}: {why}")


def print_table(table: Table, format: str) -> None:
    """The table in the form that was asked for."""
    from graphflow.bench.text import FORMATS

    if format == "terminal":
        from graphflow.cli.bench_view import print_bench

        print_bench(table)
    else:
        print(FORMATS[format](table), end="")


def print_plan(ready: Ready, plan: Plan) -> None:
    """What a run would compute, a line a method and metric."""
    from graphflow.bench.names import owner_of
    from graphflow.cli.tables import plan_summary, rows_table

    counts: dict[tuple[str, str], list[int]] = {}
    for entry in plan.nodes.values():
        owner = owner_of(entry.node)
        if owner[0]:
            line = counts.setdefault(owner, [0, 0])
            line[entry.status != "cached"] += 1
    body = [[name, what, str(there), str(todo)] for (what, name), (there, todo) in counts.items()]
    body += [[name, "not available", why, ""] for name, why in ready.compiled.missing.items()]
    rows_table(["name", "", "steps cached", "to compute"], body)
    print(plan_summary(plan))
    if any(entry.index is None for entry in plan.nodes.values()):
        print("the data set has not been read yet: how many pictures it has is not known")
