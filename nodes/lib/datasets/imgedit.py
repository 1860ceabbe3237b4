"""ImgEdit-Bench (Ye et al. 2025): requests with pictures, judged by a model that sees and reads; no ground truth.

    basic_edit.json   {key: {id: path of the picture, prompt, edit_type}}     the basic suite, nine types
    UGE_edit.json     {key: {id, prompt}}                                     understanding-grounding-editing
    <pictures>/<id>

The authors publish index and pictures apart, so the name of each is a parameter. Results are named by the key.
"""

from __future__ import annotations

from pathlib import Path

from .files import field, picture, read_json, required
from .rows import Row, text


def read(folder: Path, index: str, pictures: str, typed: bool) -> list[Row]:
    """name, source and instruction of each request, and edit_type where they are `typed`.

    Args:
        folder: the folder with both.
        index: the JSON file, relative to it.
        pictures: the folder that the index's paths begin in, relative to it; '.' for the folder itself.
        typed: whether the requests have a type.

    Raises:
        ValueError: index or pictures are not those of ImgEdit-Bench.
    """
    path = required(folder, index, "the index of ImgEdit-Bench (parameter 'index')")
    required(folder, pictures, "the folder of its pictures (parameter 'pictures')")
    rows = []
    for key, entry in read_json(path, dict).items():
        where = f"{path.name}: '{key}'"
        image = text(field(entry, "id", where), where, "id")
        row: Row = {
            "name": key,
            "source": picture(folder, f"{pictures}/{image}", where),
            "instruction": text(field(entry, "prompt", where), where, "prompt").strip(),
        }
        if typed:
            row["edit_type"] = text(field(entry, "edit_type", where), where, "edit_type")
        rows.append(row)
    return rows
