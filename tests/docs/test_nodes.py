"""docs/nodes.md is what `graphflow nodes --format markdown` prints of the standard library."""

from __future__ import annotations

import re
from pathlib import Path

from graphflow import registry
from graphflow.cli.markdown import catalogue
from graphflow.source import STANDARD

PAGE = Path(__file__).parents[2] / "docs" / "nodes.md"
STANDARD_KINDS = [cls for cls in registry.all_kinds().values() if cls.__module__.startswith(STANDARD + ".")]


def test_the_catalogue_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == catalogue(STANDARD_KINDS), "run `make docs`"


def test_it_names_every_kind_port_and_parameter() -> None:
    sections = dict(re.findall(r"^### (\S+)\n(.*?)(?=^##|\Z)", catalogue(STANDARD_KINDS), re.MULTILINE | re.DOTALL))
    assert sorted(sections) == sorted(cls.kind for cls in STANDARD_KINDS)
    for cls in STANDARD_KINDS:
        for name in (*cls.inputs(), *cls.outputs(), *cls.model_fields):
            assert f"\n| `{name}` | " in sections[cls.kind], f"{cls.kind}.{name}"


def test_what_markdown_would_eat_is_written_out() -> None:
    text = catalogue([registry.all_kinds()["image.prepare"]])
    assert '| `fit` | `crop \\| stretch \\| pad` | `"crop"` |  | crop cuts' in text
