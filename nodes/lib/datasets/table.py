"""Edits of one's own: a folder of pictures and a table, CSV or JSON lines, with a row an edit.

    source            picture to edit, a path inside the folder (required; 'file_name' is read too)
    name              stable name of the edit; the source's path if there is no such column
    instruction  source_caption  target_caption  edit_type        texts
    target  mask      pictures: ground truth, and the region to edit in white

A column that is there must be filled in every row. Other columns are passed over.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .files import inside, picture, visible
from .masks import GreyMask
from .rows import Row, hint, listed, number_names, text

TEXTS = ("name", "instruction", "source_caption", "target_caption", "edit_type")
PICTURES = ("source", "target", "mask")
COLUMNS = (*PICTURES, *TEXTS)
_ALIASES = {"file_name": "source"}  # of the hub's image folders


def read(folder: Path, index: str = "", log: Callable[[str], None] = lambda line: None) -> list[Row]:
    """The rows of a table, with the columns that it has and a name.

    Args:
        folder: pictures and table.
        index: the table, relative to the folder; empty: the only CSV or JSON lines file in it.
        log: told which columns were passed over.

    Raises:
        ValueError: there is no table, or it breaks the rules above.
    """
    path = inside(folder, index, folder.name) if index else _only_table(folder)
    entries = list(_csv(path) if path.suffix.lower() in (".csv", ".tsv") else _json_lines(path))
    if not entries:
        raise ValueError(f"{path.name}: holds no rows")
    columns = list(dict.fromkeys(column for _, entry in entries for column in entry))
    known = [column for column in columns if column in COLUMNS]
    if "source" not in known:
        raise ValueError(f"{path.name}: has no column 'source'; it has: {listed(columns)}{hint('source', columns)}")
    others = [column for column in columns if column not in COLUMNS]
    for column in others:  # a slip of the pen would silently be a column that the set lacks
        if advice := hint(column, [c for c in COLUMNS if c not in known]):
            raise ValueError(f"{path.name}: unknown column '{column}'{advice}")
    if others:
        log(f"{path.name}: columns passed over: {listed(others)}")
    return number_names(_row(folder, entry, known, f"{path.name}:{line}") for line, entry in entries)


def _row(folder: Path, entry: dict[str, Any], columns: list[str], where: str) -> Row:
    row: Row = {column: text(entry.get(column), where, column) for column in columns if column in TEXTS}
    for column in columns:
        if column in PICTURES:
            row[column] = picture(folder, text(entry.get(column), where, column), where)
    if "mask" in row:
        row["mask"] = GreyMask(row["mask"], row["source"])
    return {"name": row["source"].where, **row}


def _only_table(folder: Path) -> Path:
    names = visible(folder) if folder.is_dir() else []
    tables = [name for name in names if Path(name).suffix.lower() in (".csv", ".tsv", ".jsonl")]
    if len(tables) != 1:
        found = f"found {listed(tables)}: name one with 'index'" if tables else f"found: {listed(names)}"
        raise ValueError(f"{folder.name}: expected one table (.csv, .tsv or .jsonl); {found}")
    return inside(folder, tables[0], folder.name)


def _csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    dialect = {"delimiter": "\t" if path.suffix.lower() == ".tsv" else ","}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True, **dialect)
            for entry in reader:
                where = f"{path.name}:{reader.line_num}"
                if None in entry or None in entry.values():
                    cells = sum(v is not None for k, v in entry.items() if k) + len(entry.get(None) or ())
                    raise ValueError(f"{where}: has {cells} cells, expected {len(reader.fieldnames or ())}")
                yield reader.line_num, _named(entry, where)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name}: is no UTF-8 text: {error}") from error
    except csv.Error as error:
        raise ValueError(f"{path.name}: is no CSV: {error}") from error


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # splitlines() also splits inside JSON strings
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name}: is no UTF-8 text: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path.name}:{number}"
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: is no JSON: {error.msg}") from error
        if not isinstance(entry, dict):
            raise ValueError(f"{where}: holds {line!r:.40}, expected a map in each line")
        yield number, _named(entry, where)


def _named(entry: dict[str, Any], where: str) -> dict[str, Any]:
    """The entry with its columns' one name each."""
    named: dict[str, Any] = {}
    for column, value in entry.items():
        name = _ALIASES.get(column.strip(), column.strip())
        if name in named:
            raise ValueError(f"{where}: has two columns '{name}'")
        named[name] = value
    return named
