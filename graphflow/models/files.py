"""Where a model's files are on this machine, which are missing, and its fingerprint. Imports no torch."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from graphflow.codecs import digest_file, digest_files, digest_json
from graphflow.errors import MissingError, UsageError
from graphflow.models.refs import ModelRef, loaders

Remember = Callable[[Path, Callable[[Path], str]], str]


def package_folder() -> Path:
    """The folder of ``graphflow.nodes``, where packaged weights lie."""
    spec = importlib.util.find_spec("graphflow.nodes")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))


def local_folder(ref: ModelRef) -> Path | None:
    """The model's root folder on this machine (without `part`), or None when it is not here or needs none."""
    if ref.packaged:
        folder = package_folder() / ref.packaged
        return folder if folder.is_dir() else None
    if ref.path:
        return ref.path if ref.path.is_dir() else None
    if ref.hub:
        return _hub_snapshot(ref)
    return None


def _hub_snapshot(ref: ModelRef) -> Path | None:
    # The layout of the hub's cache is a documented format; reading it here spares the import of huggingface_hub,
    # which takes longer than the whole plan of a cached graph.
    root = hub_cache() / f"models--{str(ref.hub).replace('/', '--')}"
    revision = ref.revision or "main"
    pointer = root / "refs" / revision
    commit = pointer.read_text().strip() if pointer.is_file() else revision
    snapshot = root / "snapshots" / commit
    return snapshot if snapshot.is_dir() else None


def hub_cache() -> Path:
    """The hub's cache folder, as huggingface_hub finds it."""
    import os

    if named := os.environ.get("HF_HUB_CACHE"):
        return Path(named)
    home = os.environ.get("HF_HOME") or str(Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface")
    return Path(home).expanduser() / "hub"


def model_files(ref: ModelRef, folder: Path) -> list[Path]:
    """The files that the loader reads, sorted. Raises MissingError when a pattern matches none."""
    patterns = loaders()[ref.loader].patterns(ref)
    names = sorted(p for p in folder.rglob("*") if p.is_file())
    found: set[Path] = set()
    for pattern in patterns:
        matches = [p for p in names if fnmatch(p.relative_to(folder).as_posix(), pattern)]
        if not matches:
            raise MissingError(f"{ref.role}: {folder} has no file {pattern}")
        found.update(matches)
    return sorted(found)


def config_of(ref: ModelRef) -> dict[str, Any]:
    """The model's ``config.json``; empty when it has none on this machine."""
    folder = local_folder(ref)
    try:
        found = json.loads((folder / ref.part / "config.json").read_bytes()) if folder is not None else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def missing(models: Mapping[str, ModelRef]) -> list[str]:
    """A line for each model that is not on this machine."""
    out = []
    for name, ref in models.items():
        if ref.endpoint:
            continue
        folder = local_folder(ref)
        if folder is None:
            out.append(f"{name}: {ref.describe()} ({ref.loader})")
            continue
        try:
            model_files(ref, folder)
        except MissingError as error:
            out.append(f"{name}: {error}")
    return out


def require(models: Mapping[str, ModelRef], preset: str) -> None:
    """Check that all models are here, before anything runs.

    Raises:
        MissingError: with a line for each that is not.
    """
    lines = missing(models)
    if lines:
        listed = "\n".join(f"  {line}" for line in lines)
        pull = any(ref.hub for ref in models.values()) and preset != "inline"
        hint = f"\nget them: graphflow models pull {preset}" if pull else ""
        raise MissingError(f"{len(lines)} model(s) are not on this machine:\n{listed}{hint}")


def fingerprint(ref: ModelRef, remember: Remember | None = None) -> str:
    """What stands for the model in keys: loader and options, and the commit or the digests of its files.

    Args:
        ref: the model.
        remember: ``remember(path, compute)`` gives the digest of an unchanged file without reading it.
    """
    how = f"{ref.loader} {digest_json([dict(ref.options), ref.dtype])[:8]}"
    if ref.endpoint:
        return f"{how} endpoint:{ref.endpoint}"
    folder = local_folder(ref)
    if ref.hub:
        commit = folder.name if folder is not None else (ref.revision or "main")
        return f"{how} hub:{ref.hub}@{commit}/{ref.part}"
    if folder is None:
        return f"{how} missing:{ref.describe()}"
    files = model_files(ref, folder)
    if remember is None:
        return f"{how} files:{digest_files(folder, files)}"
    named = [(p.relative_to(folder).as_posix(), remember(p, digest_file)) for p in files]
    return f"{how} files:{digest_json(named)}"


def pull(ref: ModelRef) -> Path:
    """Download the files that the loader needs and return their folder.

    Raises:
        UsageError: the model does not come from the hub.
        MissingError: the hub can't be reached or lacks the repository, the revision or a file.
    """
    if not ref.hub:
        raise UsageError(f"{ref.describe()} does not come from the hub: there is nothing to pull")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = loaders()[ref.loader].patterns(ref)
    try:
        return Path(snapshot_download(ref.hub, revision=ref.revision, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise MissingError(f"{ref.hub}: can't be downloaded: {error}") from error
