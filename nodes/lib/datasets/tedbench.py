"""TEdBench (Kawar et al. 2023): 100 pairs of a picture and the caption that it shall have, no ground truth.

    originals/<picture>     input_list.json   [{img_name, target_text}, …]

Several edits share a picture, and two pictures differ only in their suffix (bird.jpeg, bird.png), so an edit is named
as the authors name their results: `<img_name>-<target_text with underscores>`.
"""

from __future__ import annotations

from pathlib import Path

from .files import field, picture, read_json, required
from .rows import Row, number_names, text


def read(folder: Path) -> list[Row]:
    """name, source and target_caption of each edit.

    Raises:
        ValueError: the folder is not laid out like TEdBench.
    """
    index = required(folder, "input_list.json", "the folder 'tedbench'")
    required(folder, "originals", "the folder 'tedbench'")
    rows = []
    for number, entry in enumerate(read_json(index, list)):
        where = f"{index.name}: entry {number}"
        image = text(field(entry, "img_name", where), where, "img_name")
        caption = text(field(entry, "target_text", where), where, "target_text")
        name = f"{image}-{caption.strip().rstrip('.').replace(' ', '_')}"
        rows.append(
            {"name": name, "source": picture(folder, f"originals/{image}", where), "target_caption": caption.strip()}
        )
    return number_names(rows)
