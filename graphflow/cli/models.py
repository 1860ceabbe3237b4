"""Commands about presets and their models: ``models list``, ``models pull``, ``models verify``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphflow.cli.app import app
from graphflow.errors import GraphflowError, Mark, MissingError, UsageError
from graphflow.units import plural, size

if TYPE_CHECKING:
    from graphflow.models.hub import Progress, RemoteFile
    from graphflow.models.refs import ModelRef

models_app = typer.Typer(no_args_is_help=True, help="Presets and their models.", rich_markup_mode=None)
app.add_typer(models_app, name="models")

PresetName = Annotated[str, typer.Argument(help="a preset's name or file")]
Role = Annotated[str | None, typer.Argument(help="only this model")]


@models_app.command("list")
def models_list(
    preset: Annotated[str | None, typer.Argument(help="show one preset's models")] = None,
) -> None:
    """List the presets, or one preset's models: whether they are on this machine, and their size on disk."""
    from graphflow.models.files import missing
    from graphflow.models.preset import load_preset, shipped_presets

    if preset is not None:
        for name, ref in load_preset(preset, Mark(f"models list {preset}"), Path()).models.items():
            state = "missing" if missing({name: ref}) else "ready"
            print(f"{name:<17}  {state:<8}  {_size_of({name: ref}):>10}  {ref.loader:<24}  {ref.describe()}")
        return
    for name in shipped_presets():
        found = load_preset(name, Mark("models list"), Path())
        absent = len(missing(found.models))
        state = "ready" if not absent else f"{absent} of {len(found.models)} missing"
        print(f"{name:<16}  {state:<16}  {_size_of(found.models):>10}  {found.title}")


def _size_of(models: Mapping[str, ModelRef]) -> str:
    """What the files of those models take that are here; each counts once."""
    from graphflow.models.files import local_folder, model_files

    found: dict[Path, int] = {}
    for ref in models.values():
        folder = local_folder(ref)
        try:
            paths = model_files(ref, folder) if folder is not None else []
        except MissingError:
            continue
        found |= {path.resolve(): path.stat().st_size for path in paths}
    return size(sum(found.values())) if found else "–"


@models_app.command("pull")
def models_pull(
    preset: PresetName,
    role: Role = None,
    offline: Annotated[bool, typer.Option("--offline", help="download nothing: name what is missing")] = False,
) -> None:
    """Download what a preset's models need from the hub, at their pinned revisions; checks every file's digest.

    A download that was cut goes on where it was. HF_ENDPOINT names another hub, HF_HOME another place for the files.
    """
    from graphflow.models.files import missing
    from graphflow.models.files import offline as forbidden
    from graphflow.models.hub import pull, repositories

    models = _models("pull", preset, role)
    for name, ref in models.items():
        if not ref.hub:
            where = "is a service" if ref.endpoint else "is here"
            print(f"{name}: {ref.describe()} {'is to be put there by hand' if missing({name: ref}) else where}")
    if offline or forbidden():
        _all_here(models)
        return
    with _progress() as progress:
        folders = pull(models.values(), progress)
    for repository, folder in zip(repositories(models.values()), folders, strict=True):
        print(f"{repository.name}: {folder}")


@models_app.command("verify")
def models_verify(
    preset: PresetName,
    role: Role = None,
    repair: Annotated[bool, typer.Option("--repair", help="fetch damaged files of the hub again")] = False,
) -> None:
    """Read all files of a preset's models, compare them with the hub's digests, and name those that are damaged."""
    from graphflow.models.files import fingerprint, require
    from graphflow.models.verify import Damage, remove, verify

    models = _models("verify", preset, role)
    require(models, preset)
    damaged: list[tuple[str, Damage]] = []
    for name, ref in models.items():
        found = verify(ref)
        damaged += [(name, damage) for damage in found.damages]
        state = f"{len(found.damages)} damaged" if found.damages else "sound"
        read = f"{plural(found.files, 'file')}, {size(found.bytes)}, {found.compared} with a known digest"
        print(f"{name:<17}  {state:<10}  {read}  {fingerprint(ref)}")
    if repair and damaged:
        for name, damage in damaged:
            if models[name].hub:
                remove(damage)
        models_pull(preset, role)
        damaged = [(name, damage) for name, ref in models.items() for damage in verify(ref).damages]
    if damaged:
        lines = "\n".join(f"  {name}: {damage}" for name, damage in damaged)
        hint = "" if repair else f"\nfetch them again: graphflow models verify {preset} --repair"
        raise GraphflowError(f"{plural(len(damaged), 'damaged file')}:\n{lines}{hint}")


def _models(command: str, preset: str, role: str | None) -> Mapping[str, ModelRef]:
    from graphflow.models.preset import load_preset

    found = load_preset(preset, Mark(f"models {command} {preset}"), Path()).models
    if role is None:
        return found
    if role not in found:
        raise UsageError(f"preset '{preset}' has no model '{role}'; it has: {', '.join(found)}")
    return {role: found[role]}


def _all_here(models: Mapping[str, ModelRef]) -> None:
    from graphflow.models.files import absent_files

    lines = [f"  {name}: {ref.hub}/{file}" for name, ref in models.items() if ref.hub for file in absent_files(ref)]
    if lines:
        listed = "\n".join(lines)
        raise MissingError(f"{plural(len(lines), 'file')} missing, and nothing is downloaded offline:\n{listed}")
    print("all files are on this machine")


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """A bar on a terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as RichProgress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # its warnings about connections that it takes up again would tear the bar
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True))
    with RichProgress(*columns, TransferSpeedColumn(), TimeRemainingColumn(), console=console) as bars:
        yield _Bars(bars)


class _Bars:
    """Shows a download as one bar, and each file that has come as a line."""

    def __init__(self, bars: object) -> None:
        from rich.progress import Progress as RichProgress

        assert isinstance(bars, RichProgress)
        self.bars, self.task = bars, bars.add_task("asking the hub", total=None)
        self.files = self.done = 0

    def begin(self, files: int, total: int) -> None:
        self.files = files
        self.bars.update(self.task, total=total, description=f"0 of {plural(files, 'file')}")

    def advance(self, count: int) -> None:
        self.bars.update(self.task, advance=count)

    def finish(self, file: RemoteFile) -> None:
        self.done += 1
        self.bars.update(self.task, description=f"{self.done} of {plural(self.files, 'file')}")
        self.bars.console.print(f"{file.name}  {size(file.size)}", highlight=False)
