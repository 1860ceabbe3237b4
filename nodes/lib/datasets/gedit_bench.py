"""GEdit-Bench (Liu et al. 2025, Step1X-Edit): 606 requests of real users, each in English and in Chinese.

Layout of the hub: `data/train-00000-of-000NN….parquet`; 'train' is the only split. No captions, no ground truth.

Traps: Chinese is 'cn' in the rows and in the folders of results, 'zh' in the official statistics, which therefore miss
it; a key occurs in both languages, so an edit is named as results are: `<task>/<language>/<key>`. `input_image` is the
picture as the scorer compares it, `input_image_raw` the one that is resized for a model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from .parquet import Table, find_shards
from .rows import Row, hint, listed, number_names, text

_TEXTS = ("task_type", "key", "instruction", "instruction_language", "Intersection_exist")
LANGUAGES = {"en": "en", "cn": "cn", "zh": "cn"}


def read(
    folder: Path,
    language: Literal["en", "cn"] = "en",
    picture: Literal["input_image", "input_image_raw"] = "input_image",
    intersection: bool = False,
) -> list[Row]:
    """name, source, instruction and edit_type of each request in a language.

    Args:
        folder: the downloaded data set.
        language: of the requests.
        picture: which of the two pictures is the source.
        intersection: only the requests that every compared model answered ('Intersection subset').

    Raises:
        ValueError: the files are not those of GEdit-Bench.
    """
    table = Table(find_shards(folder, "train"), (*_TEXTS, picture))
    rows: list[Row] = []
    for number, where, values in table.rows(_TEXTS):
        if _language(values["instruction_language"], where) != language:
            continue
        if intersection and not values["Intersection_exist"]:
            continue
        task, key = (text(values[column], where, column) for column in ("task_type", "key"))
        rows.append(
            {
                "name": f"{task}/{language}/{key}",
                "source": table.picture(number, picture, where),
                "instruction": text(values["instruction"], where, "instruction"),
                "edit_type": task,
            }
        )
    return number_names(rows)


def _language(value: Any, where: str) -> str:
    if value not in LANGUAGES:
        choices = listed(LANGUAGES)
        raise ValueError(
            f"{where}: 'instruction_language' is {value!r}, expected {choices}{hint(str(value), LANGUAGES)}"
        )
    return LANGUAGES[value]
