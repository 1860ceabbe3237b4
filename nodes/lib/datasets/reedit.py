"""ReEdit's exemplar-based edits (Srivastava et al. 2025): a pair shows an edit, which is to be done to a third picture.

A folder an edit, `<type>_<what>` or `<type>_<what>-<ij>` (exemplar pair i applied to picture j):

    0_0.png  0_1.png    exemplar before and after
    1_0.png             the picture to edit
    1_1.png             its ground truth, where there is one
    ins.txt             the edit in words

`concat.png` and results beside them are passed over.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .files import inside, picture, visible
from .rows import Picture, Row, hint, listed, text

TYPES = {
    "add": "insertion",
    "bg": "background",
    "poc": "local_style",
    "sor": "object_replacement",
    "style": "global_style",
    "mot": "motion",
}
_LAYOUT = "folders such as 'add_butterfly-21' with 0_0.png, 0_1.png and 1_0.png"


def read(folder: Path, only_with_target: bool = False, log: Callable[[str], None] = lambda line: None) -> list[Row]:
    """name, exemplar_before, exemplar_after, source, instruction and edit_type of each edit; target where it has one.

    Args:
        folder: the folder that holds the edits' folders.
        only_with_target: leave out edits without ground truth.
        log: told how many were left out.

    Raises:
        ValueError: a folder is no edit, or lacks a picture.
    """
    edits = [name for name in visible(folder) if (folder / name).is_dir()] if folder.is_dir() else []
    if not edits:
        found = listed(visible(folder)) if folder.is_dir() else "no folder"
        raise ValueError(f"{folder.name}: expected {_LAYOUT}; found: {found}")
    rows = [_edit(folder, name) for name in edits]
    chosen = [row for row in rows if "target" in row or not only_with_target]
    if len(chosen) < len(rows):
        log(f"{len(rows) - len(chosen)} of {len(rows)} edits left out: they have no ground truth 1_1.png")
    return chosen


def _edit(folder: Path, name: str) -> Row:
    prefix = name.partition("_")[0]
    if "_" not in name or prefix not in TYPES:
        raise ValueError(
            f"{folder.name}: the folder '{name}' begins with no type of edit; expected {_LAYOUT}, the types being "
            f"{listed(TYPES)}{hint(prefix, TYPES)}"
        )
    row: Row = {
        "name": name,
        "exemplar_before": _picture(folder, name, "0_0"),
        "exemplar_after": _picture(folder, name, "0_1"),
        "source": _picture(folder, name, "1_0"),
        "instruction": _instruction(folder, name),
        "edit_type": TYPES[prefix],
    }
    if any((folder / name / f"1_1{suffix}").exists() for suffix in (".png", ".jpg")):
        row["target"] = _picture(folder, name, "1_1")
    return row


def _picture(folder: Path, name: str, stem: str) -> Picture:
    suffix = ".jpg" if (folder / name / f"{stem}.jpg").exists() else ".png"
    return picture(folder, f"{name}/{stem}{suffix}", name)


def _instruction(folder: Path, name: str) -> str:
    path = inside(folder, f"{name}/ins.txt", name)
    try:
        return text(path.read_text(encoding="utf-8-sig").strip(), f"{name}/ins.txt", "instruction")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}/ins.txt: is no UTF-8 text: {error}") from error
