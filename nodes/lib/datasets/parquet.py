"""Parquet files as the hub publishes data sets: shards of rows, pictures embedded as bytes.

Needs pyarrow, which `pip install 'graphflow-diffusion[datasets]'` brings.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from .files import inside, visible
from .rows import decoded, hint, listed, size_of

BATCH = 8  # rows decoded at once: pictures of a few megabytes each
_SHARD = re.compile(r"(?P<split>[\w.]+?)-(?P<number>\d{5})-of-(?P<count>\d{5})(?:-[0-9a-f]+)?\.parquet")


def find_shards(folder: Path, split: str) -> list[Path]:
    """The files of a split, in order: `<split>-00000-of-00004….parquet`, in the folder or in its sub-folder `data`.

    Raises:
        ValueError: there are none, or a shard is missing.
    """
    for place in (folder / "data", folder):
        shards = [match for match in map(_SHARD.fullmatch, visible(place) if place.is_dir() else []) if match]
        chosen = {int(match["number"]): match for match in shards if match["split"] == split}
        if chosen:
            count = int(next(iter(chosen.values()))["count"])
            if missing := sorted(set(range(count)) - set(chosen)):
                numbers = ", ".join(f"{number:05d}" for number in missing[:5])
                raise ValueError(
                    f"{folder.name}: {len(missing)} of the {count} files of the split '{split}' are missing: {numbers}"
                    + (", …" if len(missing) > 5 else "")
                )
            return [inside(place, chosen[number].string, folder.name) for number in sorted(chosen)]
    places = [place for place in (folder, folder / "data") if place.is_dir()]
    found = {name for place in places for name in visible(place)}
    raise ValueError(
        f"{folder.name}: has no file '{split}-00000-of-….parquet', neither itself nor in 'data'; found: {listed(found)}"
    )


class Table:
    """The rows of several Parquet files, one after another.

    Raises:
        ValueError: pyarrow is missing, a file is no Parquet, or lacks one of the columns.
    """

    def __init__(self, paths: Sequence[Path], columns: Sequence[str]) -> None:
        self._paths = paths
        self._groups: list[tuple[int, int, Path, int]] = []  # first row, number of rows, file, number in the file
        self._cursors: dict[str, _Cursor] = {}
        self._lock = threading.Lock()
        first = 0
        for path in paths:
            file = _open(path)
            has = file.schema_arrow.names
            for column in columns:
                if column not in has:
                    raise ValueError(f"{path.name}: has no column '{column}'; it has: {listed(has)}{hint(column, has)}")
            for group in range(file.metadata.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                self._groups.append((first, size, path, group))
                first += size

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """Number in the table, place for messages, and values of each row; pictures have no place in `columns`."""
        number = 0
        for path in self._paths:
            in_file = 0
            for batch in _open(path).iter_batches(columns=list(columns)):
                for values in batch.to_pylist():
                    yield number, f"{path.name}: row {in_file}", values
                    number, in_file = number + 1, in_file + 1

    def picture(self, number: int, column: str, where: str) -> ParquetPicture:
        """The picture in a row."""
        return ParquetPicture(self, number, column, f"{where}, '{column}'")

    def cell(self, number: int, column: str) -> Any:
        """One value; from any thread. Reading rows in their order reads every file once."""
        with self._lock:
            cursor = self._cursors.get(column)
            if cursor is None or not cursor.reaches(number):
                cursor = self._cursors[column] = self._cursor(number, column)
            return cursor.value(number)

    def _cursor(self, number: int, column: str) -> _Cursor:
        first, size, path, group = next(g for g in reversed(self._groups) if g[0] <= number)
        # The file is opened for each row group and closed behind it, so that its mapped pages leave memory.
        batches = _open(path).iter_batches(batch_size=BATCH, row_groups=[group], columns=[column])
        return _Cursor(batches, first, first + size)


class _Cursor:
    """A place in one column of one row group; it moves forward only."""

    def __init__(self, batches: Iterator[Any], first: int, end: int) -> None:
        self._batches, self._first, self._end = batches, first, end
        self._values: list[Any] = []

    def reaches(self, number: int) -> bool:
        return self._first <= number < self._end

    def value(self, number: int) -> Any:
        while number >= self._first + len(self._values):
            self._first += len(self._values)
            self._values = next(self._batches).column(0).to_pylist()
        if self._first + len(self._values) == self._end:
            self._batches = iter(())  # lets go of the row group, which pyarrow holds decompressed
        return self._values[number - self._first]


@dataclass(frozen=True)
class ParquetPicture:
    """A picture in a cell: its bytes, or a map with 'bytes', as the hub's image type has it."""

    table: Table
    number: int
    column: str
    where: str

    @property
    def size(self) -> tuple[int, int]:
        return size_of(self._data(), self.where)

    def load(self) -> Image.Image:
        return decoded(self._data(), self.where)

    def _data(self) -> io.BytesIO:
        cell = self.table.cell(self.number, self.column)
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(data, bytes):
            named = f"only the path '{cell['path']}'" if isinstance(cell, dict) and cell.get("path") else "no picture"
            raise ValueError(f"{self.where}: holds {named}, expected the bytes of a picture")
        return io.BytesIO(data)


def _open(path: Path) -> Any:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(
            f"{path.name}: reading Parquet needs pyarrow: pip install 'graphflow-diffusion[datasets]'"
        ) from error
    try:
        return parquet.ParquetFile(path, memory_map=True)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path.name}: is no Parquet file that pyarrow can read: {error}") from error
