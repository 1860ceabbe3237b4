"""Commands about what is there: graphs, models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphflow.cli.app import app
from graphflow.errors import Mark, UsageError

models_app = typer.Typer(no_args_is_help=True, help="Presets and their models.", rich_markup_mode=None)
app.add_typer(models_app, name="models")


@app.command()
def graphs() -> None:
    """List the shipped graphs."""
    from graphflow.spec import load_spec, shipped_graphs

    found = shipped_graphs()
    width = max(map(len, found), default=0)
    for name, path in found.items():
        print(f"{name:<{width}}  {load_spec(path).title}")


@models_app.command("list")
def models_list(
    preset: Annotated[str | None, typer.Argument(help="show one preset's models")] = None,
) -> None:
    """List the presets, or one preset's models and whether they are on this machine."""
    from graphflow.models.files import missing
    from graphflow.models.preset import load_preset, shipped_presets

    if preset is None:
        for name in shipped_presets():
            found = load_preset(name, Mark("models list"), Path())
            absent = len(missing(found.models))
            state = "ready" if not absent else f"{absent} of {len(found.models)} missing"
            print(f"{name:<14}  {state:<16}  {found.title}")
        return
    found = load_preset(preset, Mark("models list"), Path())
    for name, ref in found.models.items():
        state = "missing" if missing({name: ref}) else "ready"
        print(f"{name:<14}  {state:<8}  {ref.loader:<24}  {ref.describe()}")


@models_app.command("pull")
def models_pull(
    preset: Annotated[str, typer.Argument(help="a preset's name or file")],
    role: Annotated[str | None, typer.Argument(help="only this model")] = None,
) -> None:
    """Download a preset's models from the hub, at their pinned revisions."""
    from graphflow.models.files import pull
    from graphflow.models.preset import load_preset

    found = load_preset(preset, Mark("models pull"), Path()).models
    if role is not None and role not in found:
        raise UsageError(f"preset '{preset}' has no model '{role}'; it has: {', '.join(found)}")
    for name, ref in found.items():
        if role in (None, name):
            if ref.hub:
                print(f"{name}: {pull(ref)}")
            else:
                print(f"{name}: {ref.describe()} needs no download")


@models_app.command("verify")
def models_verify(preset: Annotated[str, typer.Argument(help="a preset's name or file")]) -> None:
    """Check that all files of a preset are here; print each model's fingerprint."""
    from graphflow.models.files import fingerprint, require
    from graphflow.models.preset import load_preset

    found = load_preset(preset, Mark("models verify"), Path()).models
    require(found, preset)
    for name, ref in found.items():
        print(f"{name:<14}  {fingerprint(ref)}")
