"""PIE-Bench (Ju et al. 2024): 700 pictures, ten types of edits, captions, requests and masks, no ground truth.

    annotation_images/<type>/…/<key>.jpg
    mapping_file.json   {key: {image_path, original_prompt, editing_prompt, editing_instruction, editing_type_id,
                               blended_word, mask}}

Traps: brackets in the captions mark what changes and are no part of them; `editing_type_id` is a number or its text;
the mask is run-length coded and its border is set (see `masks.decode_runs`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .files import field, picture, read_json, required
from .masks import RunLengthMask
from .rows import Row, listed, text

TYPES = (
    *("random", "change_object", "add_object", "delete_object", "change_content", "change_pose"),
    *("change_color", "change_material", "change_background", "change_style"),
)


def read(folder: Path) -> list[Row]:
    """name, source, instruction, source_caption, target_caption, blended_word, mask and edit_type of each edit.

    Raises:
        ValueError: the folder is not laid out like PIE-Bench.
    """
    index = required(folder, "mapping_file.json", "the folder of PIE-Bench")
    pictures = required(folder, "annotation_images", "the folder of PIE-Bench")
    rows = []
    for key, entry in read_json(index, dict).items():
        where = f"{index.name}: '{key}'"
        source = picture(folder, f"{pictures.name}/{field(entry, 'image_path', where)}", where)
        captions = [field(entry, name, where) for name in ("original_prompt", "editing_prompt")]
        before, after = (text(c, where, "prompt").replace("[", "").replace("]", "") for c in captions)
        rows.append(
            {
                "name": key,
                "source": source,
                "instruction": text(field(entry, "editing_instruction", where), where, "editing_instruction"),
                "source_caption": before,
                "target_caption": after,
                "blended_word": text(field(entry, "blended_word", where), where, "blended_word", empty=True),
                "mask": RunLengthMask(_runs(field(entry, "mask", where), where), source, where),
                "edit_type": _type(field(entry, "editing_type_id", where), where),
            }
        )
    return rows


def _type(number: Any, where: str) -> str:
    known = [str(n) for n in range(len(TYPES))]
    if str(number) not in known:
        raise ValueError(f"{where}: 'editing_type_id' is {number!r}, expected one of {listed(known)}")
    return TYPES[int(number)]


def _runs(mask: Any, where: str) -> tuple[int, ...]:
    if not isinstance(mask, list) or len(mask) % 2 or any(type(n) is not int or n < 0 for n in mask):
        found = f"{len(mask)} values" if isinstance(mask, list) else f"{mask!r:.40}"
        raise ValueError(f"{where}: 'mask' holds {found}, expected pairs of whole numbers: start, length, …")
    return tuple(mask)
