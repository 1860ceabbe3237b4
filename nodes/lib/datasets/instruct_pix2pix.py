"""InstructPix2Pix's training data (Brooks et al. 2023): generated pairs of pictures, several for each instruction.

seeds.json                         [[folder, [seed, …]], …]
<folder>/prompt.json               {input, edit, output}: caption before, instruction, caption after
<folder>/<seed>_0.jpg  _1.jpg      the picture before and after
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .files import field, picture, read_json, required
from .rows import Row, text

_TEXTS = {"source_caption": "input", "instruction": "edit", "target_caption": "output"}


def read(folder: Path) -> list[Row]:
    """name ('<folder>/<seed>'), source, target, instruction, source_caption and target_caption of each pair.

    Raises:
        ValueError: the folder is not laid out like the published one.
    """
    index = required(folder, "seeds.json", "the folder that the authors' script downloads")
    rows: list[Row] = []
    for number, entry in enumerate(read_json(index, list)):
        where = f"{index.name}: entry {number}"
        if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], list)):
            raise ValueError(f"{where}: is {entry!r}, expected a folder and a list of seeds")
        rows += _edit(folder, text(entry[0], where, "folder"), entry[1], where)
    return rows


def _edit(folder: Path, name: str, seeds: list[Any], where: str) -> list[Row]:
    prompt = read_json(required(folder, f"{name}/prompt.json", f"the captions of {where}"), dict)
    said = f"{name}/prompt.json"
    texts = {column: text(field(prompt, key, said), said, key).strip() for column, key in _TEXTS.items()}
    return [
        {
            "name": f"{name}/{seed}",
            "source": picture(folder, f"{name}/{seed}_0.jpg", where),
            "target": picture(folder, f"{name}/{seed}_1.jpg", where),
            **texts,
        }
        for seed in map(str, seeds)
    ]
