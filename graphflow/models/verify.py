"""Whether the files of models are as they should be: all bytes are read. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from graphflow.models.files import local_folder, model_files
from graphflow.models.hub import digest_like
from graphflow.models.refs import ModelRef
from graphflow.models.weights import tensors_of


@dataclass(frozen=True)
class Damage:
    """A file that is not what it should be. `path` is where its bytes lie."""

    name: str
    path: Path
    problem: str

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}"


@dataclass(frozen=True)
class Verified:
    """What was read of a model: files, bytes, and what is damaged.

    Attributes:
        compared: how many files have a digest of the hub's to compare with; of others only the form was checked.
    """

    files: int
    bytes: int
    compared: int
    damages: list[Damage]


def verify(ref: ModelRef) -> Verified:
    """Read all files of a model that is on this machine.

    In the hub's cache a file's bytes lie under the name of their digest. Elsewhere nobody knows the digest; there
    safetensors files must be as long as their headers say.

    Raises:
        MissingError: a file is missing.
    """
    folder = local_folder(ref)
    if folder is None:
        return Verified(0, 0, 0, [])
    damages, compared, count = [], 0, 0
    files = model_files(ref, folder)
    for path in files:
        name, real = path.relative_to(folder).as_posix(), path.resolve()
        count += real.stat().st_size
        named_by_digest = path.is_symlink() and real.parent.name == "blobs" and len(real.name) in (40, 64)
        compared += named_by_digest
        problem = _differs(real) if named_by_digest else _form(real)
        if problem:
            damages.append(Damage(name, path, problem))
    return Verified(len(files), count, compared, damages)


def _differs(path: Path) -> str:
    found = digest_like(path.name, path)
    return "" if found == path.name else f"its digest is {found}, expected {path.name}"


def _form(path: Path) -> str:
    if path.suffix != ".safetensors":
        return ""
    status = path.stat()
    try:
        tensors = tensors_of(path, status.st_size, status.st_mtime_ns)
        ends = [int(entry["data_offsets"][1]) for entry in tensors.values()]
        with path.open("rb") as file:
            begin = 8 + int.from_bytes(file.read(8), "little")
    except (ValueError, KeyError, TypeError, IndexError, OSError):
        return "it is no safetensors file"
    expected = begin + max(ends, default=0)
    return "" if expected == status.st_size else f"it has {status.st_size} bytes, its header says {expected}"


def remove(damage: Damage) -> None:
    """Delete a damaged file of the hub's cache, so that a pull fetches it again."""
    real = damage.path.resolve()
    damage.path.unlink(missing_ok=True)
    real.unlink(missing_ok=True)
