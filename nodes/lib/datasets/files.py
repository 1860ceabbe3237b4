"""Opening files of a data set: only those inside the folder that the user named, each with a clear refusal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .rows import FilePicture, hint, listed


def allowed_roots(folder: Path) -> tuple[Path, ...]:
    """Where a file of the set may lie: in the folder or, for a hub cache, among the blobs that its links point to."""
    root = folder.resolve()
    for parent in (root, *root.parents):
        if parent.parent.name == "snapshots" and (parent.parent.parent / "blobs").is_dir():
            return root, parent.parent.parent / "blobs"
    return (root,)


def inside(folder: Path, name: str, where: str) -> Path:
    """The path of a file that an index names.

    Raises:
        ValueError: it lies outside the folder, is hidden, or does not exist.
    """
    path = folder / name
    if any(part.startswith(".") and part not in (".", "..") for part in Path(name).parts):
        # Hidden files (a download's bookkeeping) are no part of the set, so that its digest does not cover them.
        raise ValueError(f"{where}: '{name}' is hidden; files of a data set don't begin with a dot")
    target = path.resolve()
    if not any(target.is_relative_to(root) for root in allowed_roots(folder)):
        raise ValueError(f"{where}: '{name}' lies outside the folder of the data set")
    if not target.is_file():
        near = hint(path.name, visible(path.parent)) if path.parent.is_dir() else ""
        raise ValueError(f"{where}: there is no file '{name}' in {folder.name}{near}")
    return path


def visible(folder: Path) -> list[str]:
    """Names in a folder, sorted, hidden ones left out."""
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))


def picture(folder: Path, name: Any, where: str) -> FilePicture:
    """The picture that an index names.

    Raises:
        ValueError: the name is no text, or there is no such file inside the folder.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"{where}: a picture is named {name!r}, expected the name of a file")
    return FilePicture(inside(folder, name, where), name)


def required(folder: Path, name: str, what: str) -> Path:
    """A file or folder without which the set can't be read.

    Raises:
        ValueError: it is not there; the message names what is, and a sub-folder that has it.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder.name}: is no folder, expected {what}")
    path = folder / name
    if path.exists():
        if path.is_file():
            return inside(folder, name, folder.name)
        return path
    deeper = [entry for entry in visible(folder) if (folder / entry / name).exists()]
    advice = f"; the folder '{deeper[0]}' inside it has one: name that" if deeper else ""
    raise ValueError(f"{folder.name}: has no '{name}', expected {what}; found: {listed(visible(folder))}{advice}")


def read_json(path: Path, expected: type) -> Any:
    """The contents of a JSON file; a key that stands twice in a map is refused, because one of the two would be lost.

    Raises:
        ValueError: it is no JSON, or something other than a list or map is expected.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name}: is no UTF-8 text: {error}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path.name}:{error.lineno}:{error.colno}: is no JSON: {error.msg}") from error
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    if not isinstance(data, expected):
        names = {list: "a list", dict: "a map"}
        found = names.get(type(data), repr(data)[:40])
        raise ValueError(f"{path.name}: holds {found}, expected {names[expected]}")
    return data


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key '{key}' stands twice in one map")
        found[key] = value
    return found


def field(entry: Any, key: str, where: str) -> Any:
    """A required field of a JSON map.

    Raises:
        ValueError: the entry is no map, or lacks the field.
    """
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: is {entry!r:.60}, expected a map with '{key}'")
    if key not in entry:
        raise ValueError(f"{where}: has no '{key}'; it has: {listed(entry)}{hint(key, entry)}")
    return entry[key]
