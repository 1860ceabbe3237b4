"""Commands about what is there: graphs, models, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphflow.cli.app import StoreFolder, app
from graphflow.errors import Mark, UsageError
from graphflow.units import size

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


@app.command()
def doctor(store: StoreFolder = None) -> None:
    """Check this machine: versions, devices, store, models."""
    import platform
    import shutil

    from graphflow import devices, registry
    from graphflow.cli.tables import checks
    from graphflow.models.files import missing
    from graphflow.models.preset import load_preset, shipped_presets
    from graphflow.store import Store, default_folder
    from graphflow.version import __version__

    opened = Store(store or default_folder())
    free = shutil.disk_usage(opened.folder).free
    torch = devices.torch_version()
    kinds = registry.all_kinds()
    broken = [f"the pack {name} is broken: {reason}" for name, reason in registry.broken_packs.items()]
    system = f"{platform.system()} {platform.machine()}"
    rows = [
        (True, "graphflow", f"{__version__}, Python {platform.python_version()}, {system}"),
        (torch is not None, "torch", torch or "not installed: pip install 'graphflow-diffusion[diffusion]'"),
        (True, "device", f"{devices.resolve('auto')} ({devices.cuda_devices()} CUDA GPUs)"),
        (free > 2**30, "store", f"{opened.folder} ({size(free)} free)"),
        (not registry.broken_packs, "kinds", ", ".join([f"{len(kinds)} kinds", *broken])),
    ]
    for name in shipped_presets():
        absent = missing(load_preset(name, Mark("doctor"), Path()).models)
        found = "ready" if not absent else f"{len(absent)} missing: graphflow models pull {name}"
        rows.append((not absent, f"models {name}", found))
    checks(rows)
    if torch is None:
        raise typer.Exit(1)
