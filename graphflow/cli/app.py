"""The command line's root, and the options that several commands share. The commands stand in the modules beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphflow.errors import UsageError
from graphflow.garbage import paused

if TYPE_CHECKING:
    from graphflow.options import CodePolicy, Options
    from graphflow.session import Session

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Node graphs for diffusion image editing: typed, checked, cached. Every command takes --debug for tracebacks.",
)

DISTRIBUTION = "graphflow-diffusion"


def _print_version(asked: bool) -> None:
    if asked:
        from graphflow.devices import package_version
        from graphflow.version import __version__

        print(f"graphflow {package_version(DISTRIBUTION) or __version__}")  # a source tree need not be installed
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Options that stand before any command."""


def path_option(option: str, help: str) -> Any:
    """An option that takes a file or folder.

    An empty one is refused: that is what an unset variable of a shell makes, and it would be the working folder.
    """

    def parsed(text: str) -> Path:
        if not text:
            raise UsageError(f"{option}: expected a name, found nothing")
        return Path(text)

    return typer.Option(option, parser=parsed, metavar="PATH", help=help)


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
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, several such as cuda:0,cuda:1, or all")]
Memory = Annotated[
    str | None,
    typer.Option("--memory", metavar="SIZE", help="what models and computing may take on each device, such as 8GiB"),
]
Batch = Annotated[
    int | None,
    typer.Option(
        "--batch", min=1, metavar="N", help="elements of a map in one call; left out: 1 on a CPU, else what fits"
    ),
]
Dtype = Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16")]
StoreFolder = Annotated[Path | None, path_option("--store", "the store's folder; also GRAPHFLOW_STORE")]
NodeFiles = Annotated[list[Path], typer.Option("--nodes", help="a Python file with further nodes; may be repeated")]


Json = Annotated[bool, typer.Option("--json", help="print JSON")]


Over = Annotated[
    list[str],
    typer.Option(
        "--map", metavar="INPUT[=FILES]", help="run once for each file of a folder or a glob; may be repeated"
    ),
]
Refresh = Annotated[list[str], typer.Option("--refresh", metavar="NODE", help="compute a node again; may be repeated")]
Until = Annotated[list[str], typer.Option("--until", metavar="NODE", help="stop at a node, and write what it gives")]
Code = Annotated[
    str, typer.Option("--code", help="results of changed source code of the same version: warn, or strict (run again)")
]


def session_of(
    graph: str,
    settings: list[str],
    models: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    store: Path | None = None,
    nodes: Sequence[Path] = (),
    over: Sequence[str] = (),
) -> Session:
    """Open a graph with the options that the commands share."""
    with paused():
        from graphflow.session import open_session  # most commands about what is there do without

        values = {name: yaml_value(text, f"--set {name}") for name, text in pairs(settings, "--set").items()}
        return open_session(graph, models, values, store, device, dtype, nodes, [o.partition("=")[0] for o in over])


def inputs_of(given: list[str], over: list[str]) -> dict[str, str]:
    """The values of ``-i name=value`` and ``--map name=files``."""
    return pairs([*given, *(o for o in over if "=" in o)], "-i")


def options_of(
    until: list[str],
    refresh: list[str],
    code: str,
    keep_going: bool = False,
    only: bool = False,
    memory: str | None = None,
    batch: int | None = None,
) -> Options:
    """How to run.

    Raises:
        UsageError: the code policy is unknown, or the memory is no size.
    """
    from graphflow.options import Options

    policies: dict[str, CodePolicy] = {"warn": "warn", "strict": "strict"}
    if code not in policies:
        raise UsageError(f"--code {code}: expected one of {', '.join(policies)}")
    return Options(tuple(until), only, frozenset(refresh), keep_going, policies[code], size_of(memory), batch)


def size_of(memory: str | None) -> int | None:
    """The bytes of ``--memory``.

    Raises:
        UsageError: it is no size, or none at all.
    """
    from graphflow.units import parse_size

    if memory is None:
        return None
    try:
        found = parse_size(memory)
    except ValueError as error:
        raise UsageError(f"--memory {memory}: expected a size such as 8GiB or 500MiB") from error
    if found <= 0:
        raise UsageError(f"--memory {memory}: expected more than nothing")
    return found


def pairs(texts: list[str], option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"{option} {text}: expected NAME=VALUE")
        if name in pairs:
            raise UsageError(f"{option} {name} stands twice")
        pairs[name] = value
    return pairs


def yaml_value(text: str, name: str) -> Any:
    """A value as a graph file would have it: ``3``, ``true``, ``[1, 2]``, ``"3"``; everything else is text."""
    from graphflow.spec import plain
    from graphflow.yamlfile import read_text, scalar

    return plain(read_text(text, name)) if text.startswith(("[", "{", '"', "'")) else scalar(text)


# Each registers its commands on `app`; help lists them in this order.
from graphflow.cli import running  # noqa: E402, F401, I001
from graphflow.cli import bench, planning, records  # noqa: E402, F401
from graphflow.cli import authors, cache, catalogue  # noqa: E402, F401
from graphflow.cli import models as _models  # noqa: E402, F401
from graphflow.cli import doctor, schema  # noqa: E402, F401
