"""Commands that look at a graph without running it: plan, why, check, dag."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphflow.cli.app import (
    Code,
    Device,
    Dtype,
    GraphName,
    Inputs,
    Json,
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
    pairs,
    session_of,
    yaml_value,
)  # fmt: skip
from graphflow.errors import InvalidError, Mark, UsageError, WouldRunError
from graphflow.groups import titles
from graphflow.units import plural

if TYPE_CHECKING:
    from graphflow.errors import Diagnostic


@app.command()
def plan(
    graph: GraphName,
    input: Inputs = [],  # noqa: B006
    set: Settings = [],  # noqa: B006
    models: Models = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    store: StoreFolder = None,
    nodes: NodeFiles = [],  # noqa: B006
    map: Over = [],  # noqa: B006
    until: Until = [],  # noqa: B006
    refresh: Refresh = [],  # noqa: B006
    code: Code = "warn",
    check: Annotated[bool, typer.Option("--check", help="exit with code 4 when something would run")] = False,
    all: Annotated[bool, typer.Option("--all", help="a line for each element of a map")] = False,
    simulate: Annotated[
        str | None,
        typer.Option(
            "--simulate",
            metavar="gpus=2,memory=24GiB",
            help="how long it would take there, with which loads; also load=2GB/s, transfer=20GB/s, speed=1, cpus=4",
        ),
    ] = None,
    assume: Annotated[
        list[str],
        typer.Option(
            "--assume", metavar="NAME=VALUE", help="length of a list that only the run will tell, or size of a model"
        ),
    ] = [],  # noqa: B006
    json_: Json = False,
) -> None:
    """Say what a run would do: cached, run or maybe, each with a reason. Nothing is computed or loaded."""
    session = session_of(graph, set, models, device, dtype, store, nodes, map)
    made = session.runner(inputs_of(input, map), options=options_of(until, refresh, code)).plan()
    for warning in (*session.store.warnings, *made.warnings):
        print(f"warning: {warning}", file=sys.stderr)
    if simulate is not None or assume:
        from graphflow.cli.simulating import show

        show(made, session, simulate, pairs(assume, "--assume"), json_)
    elif json_:
        print(json.dumps({n: vars(p) for n, p in made.nodes.items()}, indent=1))
    else:
        from graphflow.cli.tables import plan_table

        plan_table(made, session.graph, every=all)
    if check and (would := [n for n, p in made.nodes.items() if p.status != "cached"]):
        raise WouldRunError(f"{len(would)} node(s) would run: {', '.join(titles(would))}")


@app.command()
def why(
    graph: GraphName,
    node: Annotated[str, typer.Argument(help="a node of the graph")],
    input: Inputs = [],  # noqa: B006
    set: Settings = [],  # noqa: B006
    models: Models = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    store: StoreFolder = None,
    nodes: NodeFiles = [],  # noqa: B006
    map: Over = [],  # noqa: B006
) -> None:
    """Say why a node is cached or must run: which parameter, input or model changed, and where it comes from."""
    session = session_of(graph, set, models, device, dtype, store, nodes, map)
    print("\n".join(session.why(node, **inputs_of(input, map))))


@app.command()
def check(
    graph: Annotated[
        str,
        typer.Argument(
            metavar="GRAPH", help="a shipped graph, a PNG that graphflow made, or the file of a graph, preset or bench"
        ),
    ],
    set: Settings = [],  # noqa: B006
    models: Models = None,
    nodes: NodeFiles = [],  # noqa: B006
    format: Annotated[str, typer.Option("--format", help="text, json or github")] = "text",
) -> None:
    """Check a graph, a preset or a bench file completely: all errors at once, nothing is loaded."""
    printers: dict[str, Callable[[list[Diagnostic]], str]] = {
        "text": lambda found: "\n".join(map(str, found)),
        "json": lambda found: json.dumps([_diagnostic_json(d) for d in found], indent=1),
        "github": lambda found: "\n".join(_github_line(d) for d in found),
    }
    if format not in printers:
        raise UsageError(f"--format {format}: expected one of {', '.join(printers)}")
    try:
        size, found = _checked(graph, set, models, nodes)
    except InvalidError as error:
        print(printers[format](error.diagnostics))
        raise typer.Exit(error.exit_code) from error
    if found or format == "json":
        print(printers[format](found))
    if format == "text":
        print(f"{graph}: {size}, no errors")


def _checked(
    graph: str, settings: list[str], models: str | None, nodes: Sequence[Path]
) -> tuple[str, list[Diagnostic]]:  # fmt: skip
    """Check a file as what its key says that it is; returns its size in words, and warnings.

    Raises:
        InvalidError: with every problem.
        UsageError: a preset has no parameters, and no models but its own.
    """
    key = _format_key(graph)
    if key == "graphflow-preset":
        from graphflow import registry
        from graphflow.models.preset import load_preset

        if settings or models is not None:
            raise UsageError(f"{graph} is a preset: --set and --models are for graphs")
        for path in nodes:
            registry.load_file(path)
        preset = load_preset(graph, Mark(graph), Path())
        return f"a preset of {plural(len(preset.models), 'model')}", []
    if key == "graphflow-bench":
        from graphflow.bench.session import open_bench

        values = {name: yaml_value(text, f"--set {name}") for name, text in pairs(settings, "--set").items()}
        compiled = open_bench(graph, models, settings=values, device="cpu", nodes=nodes).check()
        sizes = plural(len(compiled.methods), "method"), plural(len(compiled.metrics), "metric")
        return f"a bench of {' and '.join(sizes)}", []
    session = session_of(graph, settings, models, nodes=nodes)
    return f"{len(session.graph.nodes)} nodes", session.graph.warnings


def _format_key(graph: str) -> str:
    """The key that says which format a file has; that of graphs for all that has none, or can't be read."""
    from graphflow.migrate import NEWEST
    from graphflow.yamlfile import read_file

    path = Path(graph)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        with suppress(InvalidError):  # which the check itself reports
            data = read_file(path)
            return next((key for key in NEWEST if isinstance(data, dict) and key in data), "graphflow")
    return "graphflow"


@app.command()
def dag(
    graph: GraphName,
    set: Settings = [],  # noqa: B006
    models: Models = None,
    nodes: NodeFiles = [],  # noqa: B006
    format: Annotated[str, typer.Option("--format", help="tree, mermaid or dot")] = "tree",
) -> None:
    """Draw a graph."""
    from graphflow import draw

    drawers = {"tree": draw.tree, "mermaid": draw.mermaid, "dot": draw.dot}
    if format not in drawers:
        raise UsageError(f"--format {format}: expected one of {', '.join(drawers)}")
    session = session_of(graph, set, models, nodes=nodes)
    print(drawers[format](session.graph))


def _diagnostic_json(found: Any) -> dict[str, Any]:
    mark = found.mark
    return {
        "file": mark.file, "line": mark.line, "column": mark.column, "code": found.code, "severity": found.severity,
        "message": found.message, "hint": found.hint,
    }  # fmt: skip


def _github_line(found: Any) -> str:
    """A workflow command; its properties need two more characters escaped than its text."""
    mark = found.mark
    text = f"{found.code} {found.message}" + (f" ({found.hint})" if found.hint else "")
    file = _escaped(mark.file).replace(":", "%3A").replace(",", "%2C")
    return f"::{found.severity} file={file},line={mark.line},col={mark.column}::{_escaped(text)}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
