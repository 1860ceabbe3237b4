"""Commands for people who write nodes: ``nodes`` (the catalogue), ``nodes show``, ``nodes new``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from graphflow.cli.app import NodeFiles, app
from graphflow.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from graphflow.node import Node


class _Nodes(TyperGroup):
    """``nodes KIND`` is short for ``nodes show KIND``; so is ``nodes FAMILY``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands:
            args = ["show", *args]
        return super().resolve_command(ctx, args)


nodes_app = typer.Typer(cls=_Nodes, rich_markup_mode=None)
app.add_typer(nodes_app, name="nodes")


@nodes_app.callback(invoke_without_command=True)
def nodes(
    ctx: typer.Context,
    nodes: NodeFiles = [],  # noqa: B006  typer reads the default, nobody changes it
    format: Annotated[str, typer.Option("--format", help="text or markdown")] = "text",
) -> None:
    """List all kinds of nodes; `nodes KIND` shows one in full, `nodes FAMILY` lists those of a family.

    `nodes new NAME` begins a pack of your own.
    """
    from graphflow.cli.markdown import catalogue
    from graphflow.cli.tables import nodes_table

    if format not in ("text", "markdown"):
        raise UsageError(f"--format {format}: expected one of text, markdown")
    if ctx.invoked_subcommand == "new":
        return
    kinds = _kinds(nodes)
    if ctx.invoked_subcommand is None:
        print(catalogue(kinds.values()), end="") if format == "markdown" else nodes_table(list(kinds.values()))


@nodes_app.command()
def show(
    kind: Annotated[str, typer.Argument(help="a kind, such as invert.ddim, or a family of kinds, such as invert")],
    nodes: NodeFiles = [],  # noqa: B006
) -> None:
    """Show one kind in full: ports, parameters, what it says to the cache, and where it is defined.

    Of a family, list the kinds.
    """
    from graphflow.cli.tables import node_page, nodes_table
    from graphflow.registry import place_of

    kinds = _kinds(nodes)
    family = [cls for name, cls in kinds.items() if name.partition(".")[0] == kind]
    if kind not in kinds and family:
        nodes_table(family)
        return
    if kind not in kinds:
        hint = did_you_mean(kind, kinds)
        raise UsageError(f"there is no kind '{kind}'" + (f"; {hint}" if hint else ""))
    node_page(kinds[kind])
    print(f"Source: {place_of(kinds[kind])}")


@nodes_app.command()
def new(
    name: Annotated[str, typer.Argument(help="the pack's name, which begins its kinds: small letters, digits and _")],
    package: Annotated[bool, typer.Option("--package", help="an installable package instead of a single file")] = False,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="where to write it")] = Path(),
) -> None:
    """Write a node of your own to begin with, a graph that uses it, and its tests. Nothing is overwritten."""
    from graphflow.scaffold import write_file, write_package

    for line in write_package(name, out) if package else write_file(name, out):
        print(line)


def _kinds(files: Sequence[Path]) -> dict[str, type[Node]]:
    """All kinds; a broken pack is named on standard error."""
    from graphflow import registry

    for path in files:
        registry.load_file(path)
    kinds = registry.all_kinds()
    for name, reason in registry.broken_packs.items():
        print(f"warning: the pack '{name}' is broken and was left out: {reason}", file=sys.stderr)
    return kinds
