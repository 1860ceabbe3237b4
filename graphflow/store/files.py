"""Files and folders of values: size, hash, and getting them on the disk."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from graphflow.codecs import digest_file, digest_files

_SYNC_MODE = "rb+" if os.name == "nt" else "rb"  # Windows syncs only what it may write


def file_size(path: Path) -> int:
    """Bytes of a file or of all files in a folder; -1 when there is none."""
    try:
        if path.is_dir():
            return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
        return path.stat().st_size
    except OSError:
        return -1


def sync_folder(path: Path) -> None:
    """Have the names in a folder on the disk."""
    if os.name == "nt":
        return  # Windows can't, and needs not
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync(path: Path) -> int:
    """Have a file, or a folder with all it holds, on the disk; returns its bytes."""
    total = 0
    for found in [path, *path.rglob("*")] if path.is_dir() else [path]:
        if found.is_dir():
            sync_folder(found)
        else:
            with found.open(_SYNC_MODE) as file:
                os.fsync(file.fileno())
                total += os.fstat(file.fileno()).st_size
    return total


def hash_of(path: Path) -> str:
    """The hash of a file, or of all files in a folder."""
    return digest_files(path, (p for p in path.rglob("*") if p.is_file())) if path.is_dir() else digest_file(path)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all it holds, if it is there and can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def newest(path: Path) -> float:
    """When a file, or anything in a folder, changed last; 0 when it is gone."""
    times = [0.0]
    with suppress(OSError):
        times.append(path.stat().st_mtime)
        times += [p.stat().st_mtime for p in path.rglob("*")]
    return max(times)


def identity(path: Path) -> int | None:
    """Tells a file from the one that replaces it."""
    try:
        return path.stat().st_ino
    except OSError:
        return None
