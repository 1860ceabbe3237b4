"""The command that runs a graph, once or over a sweep."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphflow.cli.app import (
    Batch,
    Code,
    Device,
    Dtype,
    GraphName,
    Inputs,
    Json,
    Memory,
    Models,
    NodeFiles,
    Over,
    Refresh,
    Settings,
    StoreFolder,
    Until,
    app,
    inputs_of,
    options_of,
    path_option,
    session_of,
)  # fmt: skip
from graphflow.errors import GraphflowError, NodeError, UsageError
from graphflow.garbage import paused
from graphflow.groups import node_of, position
from graphflow.units import printable

if TYPE_CHECKING:
    from graphflow.claim import Claim
    from graphflow.run import Run, Runner


MOST_FILES = 20  # of a list that are named one by one


@app.command()
def run(
    context: typer.Context,
    graph: GraphName,
    input: Inputs = [],  # noqa: B006  typer reads the default, nobody changes it
    set: Settings = [],  # noqa: B006
    models: Models = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    memory: Memory = None,
    batch: Batch = None,
    store: StoreFolder = None,
    nodes: NodeFiles = [],  # noqa: B006
    map: Over = [],  # noqa: B006
    sweep: Annotated[
        list[str],
        typer.Option("--sweep", metavar="TARGET=A,B", help="run every combination of values; may be repeated"),
    ] = [],  # noqa: B006
    until: Until = [],  # noqa: B006
    only: Annotated[
        list[str],
        typer.Option(
            "--only", metavar="NODE", help="run nothing but a node: what it needs must be cached, else exit code 4"
        ),
    ] = [],  # noqa: B006
    refresh: Refresh = [],  # noqa: B006
    keep_going: Annotated[
        bool, typer.Option("--keep-going", "-k", help="go on with what does not need a node or element that failed")
    ] = False,
    code: Code = "warn",
    out: Annotated[Path | None, path_option("--out", "out folder; default runs/GRAPH-001, -002, …")] = None,
    metadata: Annotated[bool, typer.Option("--metadata/--no-metadata", help="embed provenance in PNG outputs")] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False,
    json_: Json = False,
) -> None:
    """Run a graph; finished intermediates come from the store."""
    from graphflow import outputs
    from graphflow.claim import REPORT

    if only and until:
        raise UsageError("--only and --until exclude each other")
    if sweep and json_:
        raise UsageError("--sweep has no --json: its table is sweep.csv in the out folder")
    options = options_of(only or until, refresh, code, keep_going, bool(only), memory, batch)
    given = inputs_of(input, map)
    typed: Sequence[str] = context.obj or ()
    session = session_of(graph, set, models, device, dtype, store, nodes, map)
    if sweep:
        from graphflow.cli.sweep import Sweeper

        Sweeper(session, given, options, sweep, out, metadata, quiet, graph, typed).run()
        return
    runner = session.runner(given, options=options)
    folder = out or outputs.next_folder(Path("runs"), session.graph.name)
    place = outputs.claimed(folder, runner, graph)
    for warning in session.graph.warnings:
        print(warning, file=sys.stderr)
    with outputs.out_folder(folder):
        done, written = run_into(runner, place, metadata, quiet or json_, typed)
    if json_:
        print(done.record.model_dump_json(indent=1))
    else:
        for line in [*listed(written), folder / REPORT]:
            print(line)
    if done.failures:
        raise GraphflowError(failure_text({with_file(runner, n): text for n, text in done.failures.items()}))


def listed(paths: Sequence[Path]) -> list[str]:
    """A line a file; one for the files of a long list: ``out/image-*.png  600 files``."""
    lists: dict[str, list[Path]] = {}
    for path in paths:
        lists.setdefault(str(path.with_stem(re.sub(r"-\d{3,}$", "-*", path.stem))), []).append(path)
    lines: list[str] = []
    for name, found in lists.items():
        lines += [f"{name}  {len(found)} files"] if len(found) > MOST_FILES else map(str, found)
    return lines


def run_into(
    runner: Runner, place: Claim, metadata: bool, quiet: bool, typed: Sequence[str] = ()
) -> tuple[Run, list[Path]]:
    """Run, and write outputs, record and report into an existing folder; record and report also when it fails.

    `typed` is the command line that does the run again, which the report tells.
    """
    from graphflow import outputs
    from graphflow.claim import EVENTS
    from graphflow.cli.progress import progress
    from graphflow.events import Bus, JsonLines

    with ExitStack() as stack:
        log = stack.enter_context(JsonLines(place.folder / EVENTS))
        display = stack.enter_context(progress(quiet))
        runner.emit = Bus(log, display)
        try:
            done = runner.run()
        except BaseException as error:
            if isinstance(error, NodeError):
                error.file = file_of(runner, error.node)
            if runner.begun:
                runner.record.command = list(typed)
                outputs.write_index(runner, place, done=False)
                if place.there():
                    print(f"note: the outputs in {place.folder} are of an earlier run", file=sys.stderr)
            raise
    with paused():
        done.record.command = list(typed)
        written = outputs.write(done, place, metadata)
        outputs.write_index(runner, place)
    return done, written


def with_file(runner: Runner, name: str) -> str:
    """An instance's name; of a map over files the file stands behind it: ``each[2]/caption (photo.jpg)``."""
    file = file_of(runner, name)
    return f"{name} ({file})" if file else name


def file_of(runner: Runner, name: str) -> str:
    """The user's file that an instance works on; empty where it is not one of a map over files."""
    node, outermost = runner.graph.nodes.get(node_of(name)), position(name).partition(",")[0]
    return file_at(runner, node.axes[0], int(outermost)) if node is not None and outermost.isdigit() else ""


def file_at(runner: Runner, axis: str, index: int) -> str:
    """The user's file that stands at a position of an axis; several where several lists of files are zipped."""
    files: dict[str, None] = {}
    for edge in runner.graph.axes[axis].lists.values():
        ref = edge[index] if isinstance(edge, tuple) else edge
        if ref.node != "inputs":
            above = runner.graph.nodes[ref.node].axes
            found = file_at(runner, above[0], index) if len(above) == 1 and ref is edge else ""
        else:
            source = runner.inputs[ref.port].source
            found = (source[index] if isinstance(source, list) else source) or ""
        if found:
            files[found] = None
    return printable(", ".join(files))


def failure_text(failures: dict[str, str]) -> str:
    """The failures of a run that went on: how many, and each by name."""
    lines = [f"  {name}: {message}" for name, message in failures.items()]
    return "\n".join([f"{len(failures)} of the nodes failed, the others are done:", *lines])
