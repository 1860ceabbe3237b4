"""Commands about graph files as files: schema, migrate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from graphflow.cli.app import NodeFiles, app, path_option
from graphflow.errors import Diagnostic, InvalidError, Mark, UsageError


@app.command()
def schema(
    preset: Annotated[bool, typer.Option("--preset", help="the schema of presets instead of graphs")] = False,
    nodes: NodeFiles = [],  # noqa: B006  typer reads the default, nobody changes it
    out: Annotated[Path | None, path_option("--out", "write it to this file")] = None,
) -> None:
    """Print the JSON Schema of graph files: with it an editor completes kinds, ports, parameters, and marks errors."""
    from graphflow import registry

    for path in nodes:
        registry.load_file(path)
    text = json.dumps(_schema(preset), indent=1, ensure_ascii=False, allow_nan=False)
    if out is None:
        print(text)
        return
    try:
        out.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--out {out} can't be written: {error.strerror}") from error
    print(out)
    print(f"begin files beside it with: # yaml-language-server: $schema={out.name}")


def _schema(preset: bool) -> dict[str, Any]:
    from graphflow.models.preset import load_preset, shipped_presets
    from graphflow.models.refs import loaders
    from graphflow.models.schema import preset_schema
    from graphflow.registry import all_kinds
    from graphflow.schema import graph_schema, roles
    from graphflow.spec import load_spec, shipped_graphs

    kinds = all_kinds()
    presets = {name: load_preset(name, Mark("schema"), Path()).title for name in shipped_presets()}
    if preset:
        return preset_schema(roles(kinds, loaders()), presets, loaders())
    return graph_schema(kinds, {n: load_spec(p) for n, p in shipped_graphs().items()}, presets, loaders())


@app.command()
def migrate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="graph or preset files")],
    check: Annotated[bool, typer.Option("--check", help="write nothing; exit with code 3 if a file is old")] = False,
) -> None:
    """Bring graph and preset files to the format of this graphflow; an old FILE is kept beside it as FILE.bak."""
    from graphflow.migrate import migrated, rewrite, version_of, version_problem

    versions = {path: version_of(path) for path in files}
    old = {path: version for path, version in versions.items() if version.old}
    if check:
        problems = {v.mark: version_problem(v.key, v.number, str(path)) for path, v in old.items()}
        if found := [Diagnostic(mark, "GF011", *problem) for mark, problem in problems.items() if problem]:
            raise InvalidError(found)
    texts = {path: migrated(path) for path in old}  # all of them, before the first is written
    for path, version in versions.items():
        if path in texts:
            print(f"{path}: was in format {version.number}; the original is {rewrite(path, texts[path])}")
        else:
            print(f"{path}: is in the newest format, {version.number}")
