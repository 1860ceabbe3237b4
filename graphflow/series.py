"""A long series of tensors on the disk: what belongs to one timestep lies in one file, and is read when it is wanted.

Features that are captured along a trajectory are gigabytes. A node writes them one timestep after the other with a
`SeriesWriter`; the node that uses them walks through the timesteps of the `TensorSeries`, of which memory holds one.

The folder holds ``series.json`` (timesteps in order, and the writer's notes), ``t00981.safetensors`` for each timestep,
and ``shared.safetensors`` with what belongs to all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphflow.tensors import write_tensors

if TYPE_CHECKING:
    from torch import Tensor

INDEX = "series.json"
SHARED = "shared"


class TensorSeries(Mapping[int, dict[str, "Tensor"]]):
    """Named tensors by timestep, each read from its file, memory-mapped, whenever it is asked for.

    Attributes:
        folder: where the files lie.
        timesteps: in the order in which they were written.
        notes: what the writer says about the series; JSON.
    """

    def __init__(self, folder: Path) -> None:
        """Open a folder; only the index is read.

        Raises:
            ValueError: the folder holds no series, or one whose files are not all there.
        """
        self.folder = folder
        try:
            index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            self.timesteps: list[int] = index["timesteps"]
            self.notes: dict[str, Any] = index["notes"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{folder} holds no series of tensors: {error}") from error
        if lost := [path.name for path in self.files() if not path.is_file()]:
            raise ValueError(f"{folder} lacks {', '.join(lost[:3])}")

    def files(self) -> list[Path]:
        """The files of tensors: the shared ones, then those of each timestep."""
        return [self.folder / f"{SHARED}.safetensors", *map(self._file, self.timesteps)]

    @property
    def shared(self) -> dict[str, Tensor]:
        """The tensors that belong to all timesteps."""
        return _read(self.folder / f"{SHARED}.safetensors")

    @property
    def bytes(self) -> int:
        """Size on the disk."""
        return sum(path.stat().st_size for path in self.files())

    def __getitem__(self, timestep: int) -> dict[str, Tensor]:
        if timestep not in self.timesteps:
            raise KeyError(timestep)
        return _read(self._file(timestep))

    def __contains__(self, timestep: object) -> bool:
        return timestep in self.timesteps

    def __iter__(self) -> Iterator[int]:
        return iter(self.timesteps)

    def __len__(self) -> int:
        return len(self.timesteps)

    def __repr__(self) -> str:
        return f"TensorSeries({len(self)} timesteps)"

    def _file(self, timestep: int) -> Path:
        return self.folder / f"t{timestep:05d}.safetensors"


class SeriesWriter:
    """Writes a series into an empty folder, a timestep at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._timesteps: list[int] = []

    def add(self, timestep: int, tensors: Mapping[str, Tensor]) -> None:
        """Write the tensors of one timestep.

        Raises:
            ValueError: one holds NaN or infinity, or the timestep was written already.
        """
        if timestep in self._timesteps:
            raise ValueError(f"timestep {timestep} was written already")
        self._save(f"t{timestep:05d}", tensors)
        self._timesteps.append(timestep)

    def finish(self, notes: Mapping[str, Any], shared: Mapping[str, Tensor]) -> TensorSeries:
        """Write the tensors of all timesteps and the index; the series is whole.

        Raises:
            ValueError: a tensor holds NaN or infinity.
        """
        self._save(SHARED, shared)
        index = {"timesteps": self._timesteps, "notes": dict(notes)}
        (self.folder / INDEX).write_text(json.dumps(index, sort_keys=True), encoding="utf-8")
        return TensorSeries(self.folder)

    def _save(self, stem: str, tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise ValueError(f"{stem}: '{name}' holds NaN or infinity")
        here = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
        write_tensors(here, self.folder / f"{stem}.safetensors")


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = load_file(path)
    return tensors
