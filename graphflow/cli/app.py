"""Commands that work on one graph: run, plan, why, check, dag, show."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from graphflow.errors import InvalidError, UsageError, WouldRunError
from graphflow.session import Session, open_session
from graphflow.yamlfile import read_text, scalar

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Node graphs for diffusion image editing: typed, checked, cached. Every command takes --debug for tracebacks.",
)

GraphName = Annotated[
    str, typer.Argument(metavar="GRAPH", help="a shipped graph, a YAML file, or a PNG that graphflow made")
]
Inputs = Annotated[
    list[str], typer.Option("-i", "--input", metavar="NAME=VALUE", help="a graph input; may be repeated")
]
Settings = Annotated[
    list[str], typer.Option("--set", metavar="NODE.PARAM=VALUE", help="a node's parameter; may be repeated")
]
Models = Annotated[str | None, typer.Option("--models", help="preset that replaces the graph's own: a name or a file")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, …")]
Dtype = Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16")]
StoreFolder = Annotated[Path | None, typer.Option("--store", help="the store's folder; also GRAPHFLOW_STORE")]
NodeFiles = Annotated[list[Path], typer.Option("--nodes", help="a Python file with further nodes; may be repeated")]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]


def session_of(
    graph: str, settings: list[str], models: str | None, device: str, dtype: str, store: Path | None, nodes: list[Path]
) -> Session:
    """Open a graph with the options that the commands share."""
    values = {name: _yaml_value(text, f"--set {name}") for name, text in _pairs(settings, "--set").items()}
    return open_session(graph, models, values, store, device, dtype, nodes)


def _pairs(texts: list[str], option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"{option} {text}: expected NAME=VALUE")
        if name in pairs:
            raise UsageError(f"{option} {name} stands twice")
        pairs[name] = value
    return pairs


def _yaml_value(text: str, name: str) -> Any:
    """A value as a graph file would have it: ``3``, ``true``, ``[1, 2]``, ``"3"``; everything else is text."""
    from graphflow.spec import plain

    return plain(read_text(text, name)) if text.startswith(("[", "{", '"', "'")) else scalar(text)


@app.command()
def run(
    graph: GraphName,
    input: Inputs = [],  # noqa: B006  typer reads the default, nobody changes it
    set: Settings = [],  # noqa: B006
    models: Models = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    store: StoreFolder = None,
    nodes: NodeFiles = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option("--out", help="out folder; default runs/GRAPH-001, -002, …")] = None,
    metadata: Annotated[bool, typer.Option("--metadata/--no-metadata", help="embed provenance in PNG outputs")] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False,
    json_: Json = False,
) -> None:
    """Run a graph; finished intermediates come from the store."""
    from graphflow import outputs
    from graphflow.cli.progress import progress
    from graphflow.events import Bus, JsonLines

    session = session_of(graph, set, models, device, dtype, store, nodes)
    runner = session.runner(_pairs(input, "-i"))
    folder = out or outputs.next_folder(Path("runs"), session.graph.name)
    outputs.prepare(folder)
    for warning in session.graph.warnings:
        print(warning, file=sys.stderr)
    with ExitStack() as stack:
        log = stack.enter_context(JsonLines(folder / "events.jsonl"))
        display = stack.enter_context(progress(quiet or json_))
        runner.emit = Bus(log, display)
        try:
            done = runner.run()
        except BaseException:
            if runner.begun:
                outputs.write_index(runner.record, folder, runner.stored_value)
            raise
    written = outputs.write(done, folder, metadata)
    outputs.write_index(done.record, folder, runner.stored_value)
    if json_:
        print(done.record.model_dump_json(indent=1))
    else:
        for path in [*written, folder / outputs.REPORT]:
            print(path)


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
    check: Annotated[bool, typer.Option("--check", help="exit with code 4 when something would run")] = False,
    json_: Json = False,
) -> None:
    """Say what a run would do: cached, run or maybe, each with a reason. Nothing is computed or loaded."""
    session = session_of(graph, set, models, device, dtype, store, nodes)
    made = session.runner(_pairs(input, "-i")).plan()
    if json_:
        print(json.dumps({n: vars(p) for n, p in made.nodes.items()}, indent=1))
    else:
        from graphflow.cli.tables import plan_table

        plan_table(made, session.graph)
    if check and (would := [n for n, p in made.nodes.items() if p.status != "cached"]):
        raise WouldRunError(f"{len(would)} node(s) would run: {', '.join(would)}")


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
) -> None:
    """Say why a node is cached or must run: which parameter, input or model changed, and where it comes from."""
    session = session_of(graph, set, models, device, dtype, store, nodes)
    print("\n".join(session.why(node, **_pairs(input, "-i"))))


@app.command()
def check(
    graph: GraphName,
    set: Settings = [],  # noqa: B006
    models: Models = None,
    nodes: NodeFiles = [],  # noqa: B006
    format: Annotated[str, typer.Option("--format", help="text, json or github")] = "text",
) -> None:
    """Check a graph completely: all errors at once, nothing is loaded."""
    from graphflow.errors import Diagnostic

    printers: dict[str, Callable[[list[Diagnostic]], str]] = {
        "text": lambda found: "\n".join(map(str, found)),
        "json": lambda found: json.dumps([_diagnostic_json(d) for d in found], indent=1),
        "github": lambda found: "\n".join(_github_line(d) for d in found),
    }
    if format not in printers:
        raise UsageError(f"--format {format}: expected one of {', '.join(printers)}")
    try:
        session = session_of(graph, set, models, "cpu", "float32", None, nodes)
    except InvalidError as error:
        print(printers[format](error.diagnostics))
        raise typer.Exit(error.exit_code) from error
    found = session.graph.warnings
    if found or format == "json":
        print(printers[format](found))
    if format == "text":
        print(f"{graph}: {len(session.graph.nodes)} nodes, no errors")


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
    session = session_of(graph, set, models, "cpu", "float32", None, nodes)
    print(drawers[format](session.graph))


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="a PNG or run.json that graphflow wrote")],
    json_: Json = False,
) -> None:
    """Show how a picture was made: graph, inputs, parameters, models, nodes."""
    from graphflow.provenance import read

    record = read(file)
    if record is None:
        raise UsageError(f"{file} was not made by graphflow: it holds no record")
    if json_:
        print(record.model_dump_json(indent=1))
    else:
        from graphflow.cli.tables import record_page

        record_page(record)


def _diagnostic_json(found: Any) -> dict[str, Any]:
    mark = found.mark
    return {
        "file": mark.file, "line": mark.line, "column": mark.column, "code": found.code, "severity": found.severity,
        "message": found.message, "hint": found.hint,
    }  # fmt: skip


def _github_line(found: Any) -> str:
    text = f"{found.code} {found.message}" + (f" ({found.hint})" if found.hint else "")
    escaped = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return f"::{found.severity} file={found.mark.file},line={found.mark.line},col={found.mark.column}::{escaped}"


from graphflow.cli import authors, cache, catalogue  # noqa: E402, F401  register their commands on `app`
from graphflow.cli import schema as _schema  # noqa: E402, F401
