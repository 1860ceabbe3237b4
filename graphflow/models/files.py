"""Where a model's files are on this machine, which are missing, and its fingerprint. Imports no torch."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from graphflow.codecs import digest_file, digest_files, digest_json
from graphflow.errors import MissingError
from graphflow.models.refs import COMMIT, ModelRef, loaders

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
    commit = revision
    with suppress(OSError, ValueError):
        if COMMIT.fullmatch(found := pointer.read_text().strip()):
            commit = found
    snapshot = root / "snapshots" / commit
    return snapshot if snapshot.is_dir() else None


def hub_cache() -> Path:
    """The hub's cache folder, as huggingface_hub finds it."""
    if named := os.environ.get("HF_HUB_CACHE"):
        return Path(named)
    home = os.environ.get("HF_HOME") or str(Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface")
    return Path(home).expanduser() / "hub"


def endpoint() -> str:
    """The hub's address; HF_ENDPOINT names another one, such as a mirror."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids downloads."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def model_files(ref: ModelRef, folder: Path) -> list[Path]:
    """The files that the loader reads, sorted. Raises MissingError when a pattern matches none."""
    found = _matches(ref, folder)
    for pattern, paths in found.items():
        if not paths:
            raise MissingError(f"{ref.role}: {folder} has no file {readable(pattern)}")
    return sorted({path for paths in found.values() for path in paths})


def stamp(ref: ModelRef) -> Hashable:
    """Changes when the model's files do: their names, sizes and times. None for a service, and where they are not."""
    folder = local_folder(ref)
    if folder is None:
        return None
    try:
        return tuple((str(p), (s := p.stat()).st_size, s.st_mtime_ns) for p in model_files(ref, folder))
    except (MissingError, OSError):
        return None


def absent_files(ref: ModelRef) -> list[str]:
    """The files of a hub model that are not on this machine, as patterns, relative to its repository."""
    folder = local_folder(ref)
    if folder is None:
        return [readable(pattern) for pattern in loaders()[ref.loader].patterns(ref)]
    return [readable(pattern) for pattern, paths in _matches(ref, folder).items() if not paths]


def _matches(ref: ModelRef, folder: Path) -> dict[str, list[Path]]:
    names = [(p, p.relative_to(folder).as_posix()) for p in folder.rglob("*") if p.is_file()]
    patterns = loaders()[ref.loader].patterns(ref)
    return {pattern: [path for path, name in names if fnmatch(name, pattern)] for pattern in patterns}


def readable(pattern: str) -> str:
    """A loader's file pattern as people write it: ``vae/model[.-][s0]*tensors`` means ``vae/model*.safetensors``."""
    return pattern.replace("[.-][s0]*tensors", "*.safetensors").replace("*.[jt][sxi]*", "*.json")


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
    lines = {name: found for name, ref in models.items() if (found := missing({name: ref}))}
    if lines:
        listed = [f"  {line}" for found in lines.values() for line in found]
        told = [f"{len(lines)} model(s) are not on this machine:", *listed]
        by_hand = {name: models[name] for name in lines if not models[name].hub}
        if by_hand:
            told.append(f"to be put there by hand: {', '.join(by_hand)}{_where_from(by_hand)}")
        if len(by_hand) < len(lines) and preset != "inline":
            what = "the others" if by_hand else "them"
            told.append(f"get {what}: graphflow models pull {_as_argument(models, preset)}")
        raise MissingError("\n".join(told))


def _where_from(models: Mapping[str, ModelRef]) -> str:
    """The files whose comments say where to get models that the hub does not have: those of shipped presets."""
    from graphflow.models.preset import shipped_presets

    shipped = {str(path) for path in shipped_presets().values()}
    files = dict.fromkeys(ref.mark.file for ref in models.values() if ref.mark.file in shipped)
    return f"; see {', '.join(files)}" if files else ""


def _as_argument(models: Mapping[str, ModelRef], preset: str) -> str:
    """What the command line takes for a preset: its name, or the file that its models stand in."""
    from graphflow.models.preset import shipped_presets

    if preset in shipped_presets():
        return preset
    files = [ref.mark.file for ref in models.values() if Path(ref.mark.file).stem == preset]
    return files[0] if files else preset


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
