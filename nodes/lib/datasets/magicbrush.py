"""MagicBrush (Zhang et al. 2023): edits of photographs by people, with masks and ground truth, in sessions of turns.

Two layouts. The hub has `data/<split>-00000-of-000NN-….parquet` for train (8,807 edits) and dev (528), no captions. The
test set (and an older form of dev) is a folder:

    images/<id>/<id>-input.png, <id>-mask1.png, <id>-output1.png, <id>-mask2.png, …
    edit_sessions.json          {id: [{input, mask, output, instruction}, …]}
    global_descriptions.json    {id: {file name: caption of the whole picture}}
    local_descriptions.json     {id: {file name: caption of what was edited}}   (local_captions.json in the README)

Traps: a 'mask' is the source picture with the region cut out, possibly in another size (see `masks.marked_region`); the
source of a later turn is the ground truth of the turn before. Test pictures must not be published.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from .files import field, inside, picture, read_json, required
from .masks import RegionMask
from .parquet import Table, find_shards
from .rows import Picture, Row, number_names, text

Turns = Literal["all", "first", "last"]
_TEXTS = ("img_id", "turn_index", "instruction")
_PICTURES = ("source_img", "mask_img", "target_img")


def read_parquet(folder: Path, split: str, turns: Turns = "all") -> list[Row]:
    """name ('<id>/<turn>'), session, source, instruction, mask and target of each edit of a split.

    Raises:
        ValueError: the files are not those of MagicBrush.
    """
    table = Table(find_shards(folder, split), (*_TEXTS, *_PICTURES))
    rows: list[Row] = []
    for number, where, values in table.rows(_TEXTS):
        source, mask, target = (table.picture(number, column, where) for column in _PICTURES)
        session = text(str(values["img_id"]), where, "img_id")
        row = _row(session, values["turn_index"], source, mask, target, values["instruction"], where)
        rows.append(row)
    return _turns(rows, turns)


def read_folder(folder: Path, turns: Turns = "all") -> list[Row]:
    """What `read_parquet` gives, and source_caption, target_caption and target_local_caption.

    The captions are the whole picture's; the local one of the target is what the official CLIP-T compares with.

    Raises:
        ValueError: the folder is not laid out like the test set.
    """
    index = required(folder, "edit_sessions.json", "the folder of MagicBrush's test set")
    whole = _descriptions(folder, ("global_descriptions.json", "global_captions.json"))
    local = _descriptions(folder, ("local_descriptions.json", "local_captions.json"))
    rows: list[Row] = []
    for session, edits in read_json(index, dict).items():
        if not isinstance(edits, list):
            raise ValueError(f"{index.name}: '{session}' holds {edits!r:.60}, expected a list of edits")
        for turn, edit in enumerate(edits, 1):
            where = f"{index.name}: '{session}', edit {turn}"
            names = [field(edit, key, where) for key in ("input", "mask", "output")]
            source, mask, target = (picture(folder, f"images/{session}/{name}", where) for name in names)
            row = _row(session, turn, source, mask, target, field(edit, "instruction", where), where)
            row["source_caption"] = _caption(whole, session, names[0])
            row["target_caption"] = _caption(whole, session, names[2])
            row["target_local_caption"] = _caption(local, session, names[2])
            rows.append(row)
    return _turns(rows, turns)


def _row(
    session: str, turn: int, source: Picture, mask: Picture, target: Picture, instruction: object, where: str
) -> Row:
    return {
        "name": f"{session}/{turn}",
        "session": session,
        "turn": turn,
        "source": source,
        "instruction": text(instruction, where, "instruction"),
        "mask": RegionMask(mask, source),
        "target": target,
    }


def _turns(rows: list[Row], turns: Turns) -> list[Row]:
    if turns != "all":
        better = max if turns == "last" else min
        numbers: dict[str, list[int]] = {}
        for row in rows:
            numbers.setdefault(row["session"], []).append(row["turn"])
        rows = [row for row in rows if row["turn"] == better(numbers[row["session"]])]
    return number_names(rows)


_Descriptions = tuple[str, dict[str, dict[str, str]]]


def _descriptions(folder: Path, names: Sequence[str]) -> _Descriptions:
    for name in names:
        if (folder / name).exists():
            return name, read_json(inside(folder, name, folder.name), dict)
    required(folder, names[0], f"the captions of MagicBrush's test set ({' or '.join(names)})")
    raise AssertionError("required() raises where the file is missing")


def _caption(descriptions: _Descriptions, session: str, file: str) -> str:
    name, captions = descriptions
    where = f"{name}: '{session}'"
    return text(field(field(captions, session, name), file, where), where, file)
