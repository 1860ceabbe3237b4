"""The catalogue of kinds as Markdown: ``docs/nodes.md``."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from graphflow.cli.describe import bounds_text, cache_words, default_text, port_doc, type_name

if TYPE_CHECKING:
    from graphflow.node import Node

_HEAD = """# All kinds of nodes

<!-- made by `make docs`; a test holds it to the code -->
"""


def catalogue(classes: Iterable[type[Node]]) -> str:
    """Every kind with its ports, its parameters and what it says to the cache, by family, under a table of contents."""
    found = sorted(classes, key=lambda cls: cls.kind)
    contents = _table(("kind", ""), [(_link(cls.kind), _cell(cls.summary())) for cls in found])
    parts = [_HEAD, contents]
    for family, members in groupby(found, key=lambda cls: cls.kind.partition(".")[0]):
        parts += [f"## {family}", *(part for cls in members for part in _kind(cls))]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _kind(cls: type[Node]) -> list[str]:
    parts = [f"### {cls.kind}", _prose(inspect.getdoc(cls) or "")]
    for title, ports in (("input", cls.inputs()), ("output", cls.outputs())):
        if ports:
            rows = [(_code(p.name), _code(p.describe()), _cell(port_doc(p))) for p in ports.values()]
            parts.append(_table((title, "type", ""), rows))
    parameters = [
        (
            _code(name), _code(type_name(info.annotation)), _code(default_text(info).removeprefix(" = ").lstrip(", ")),
            _cell(bounds_text(info)), _cell(info.description or ""),
        )
        for name, info in cls.model_fields.items()
    ]  # fmt: skip
    if parameters:
        parts.append(_table(("parameter", "type", "default", "bounds", ""), parameters))
    return [*parts, f"Version {cls.version}; {cache_words(cls)}."]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _link(kind: str) -> str:
    return f"[`{kind}`](#{kind.replace('.', '')})"


def _code(text: str) -> str:
    return f"`{_bars(text)}`" if text else ""


def _cell(text: str) -> str:
    return _bars(_prose(text)).replace("\n", " ")


def _bars(text: str) -> str:
    return text.replace("|", "\\|")


def _prose(text: str) -> str:
    """Text that Markdown shows as it stands."""
    for sign in ("\\", "<", "*", "[", "]"):
        text = text.replace(sign, f"\\{sign}")
    return text
