"""Emu Edit test set (Sheynin et al. 2023): requests of seven types with captions before and after, no ground truth.

Layout of the hub: `data/<split>-00000-of-000NN-….parquet`, validation and test (2,022 and 3,589 rows).

Trap: the captions were written by a language model. Rows whose two captions are the same have no direction of change,
and others have the caption of another picture as a placeholder; evaluations leave both out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .parquet import Table, find_shards
from .rows import Row, hint, listed, number_names, text

TASKS = ("background", "global", "style", "remove", "add", "local", "texture")
PLACEHOLDERS = frozenset({"a train station in city"})
_TEXTS = ("instruction", "task", "idx", "input_caption", "output_caption")


def read(
    folder: Path, split: str, bad_captions: bool = False, log: Callable[[str], None] = lambda line: None
) -> list[Row]:
    """name, source, instruction, source_caption, target_caption and edit_type of each row of a split.

    Args:
        folder: the downloaded data set.
        split: validation or test.
        bad_captions: also the rows whose captions say nothing about the edit.
        log: told how many rows were left out.

    Raises:
        ValueError: the files are not those of the test set.
    """
    table = Table(find_shards(folder, split), (*_TEXTS, "image"))
    rows: list[Row] = []
    left_out = 0
    for number, where, values in table.rows(_TEXTS):
        captions = [values[column] or "" for column in ("input_caption", "output_caption")]
        before, after = (text(caption, where, "caption", empty=True) for caption in captions)
        if not bad_captions and not usable(before, after):
            left_out += 1
            continue
        task = text(values["task"], where, "task")
        if task not in TASKS:
            raise ValueError(f"{where}: 'task' is '{task}', expected one of {listed(TASKS)}{hint(task, TASKS)}")
        rows.append(
            {
                "name": f"{split}/{values['idx']}",
                "source": table.picture(number, "image", where),
                "instruction": text(values["instruction"], where, "instruction"),
                "source_caption": before,
                "target_caption": after,
                "edit_type": task,
            }
        )
    if left_out:
        log(f"{left_out} of {left_out + len(rows)} rows left out: captions that are the same, empty or a placeholder")
    return number_names(rows)


def usable(before: str, after: str) -> bool:
    """Whether two captions tell a picture before its edit from one after it, in the eyes of CLIP.

    Its tokenizer sees neither capitals nor spaces, so that captions which differ in these alone are the same.
    """
    plain = [" ".join(caption.lower().split()) for caption in (before, after)]
    return plain[0] != plain[1] and all(caption and caption.rstrip(".") not in PLACEHOLDERS for caption in plain)
