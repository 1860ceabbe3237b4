"""Markup from Python, escaped unless it is markup already. A template engine would take half of a cached run's time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

_VOID = frozenset({"circle", "img", "input", "meta", "path", "rect", "wbr"})
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;"})


class Html(str):
    """Markup; every other text is escaped where it becomes part of some."""

    __slots__ = ()


Content: TypeAlias = "str | Iterable[Content] | None"
Attribute: TypeAlias = str | float | bool | None


def markup(content: Content) -> Html:
    """Text, escaped; markup as it is; of several their sequence; nothing of None."""
    if isinstance(content, Html):
        return content
    if content is None:
        return Html()
    return Html(content.translate(_ESCAPES) if isinstance(content, str) else "".join(map(markup, content)))


def tag(name: str, /, *content: Content, **attributes: Attribute) -> Html:
    """An element.

    Args:
        name: such as ``p``.
        content: what stands in it.
        attributes: ``class_`` is class, ``aria_label`` is aria-label; True stands alone, None and False are left out.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is not None and value is not False:
            shown = key.rstrip("_").replace("_", "-")
            parts.append(shown if value is True else f'{shown}="{markup(str(value))}"')
    opening = " ".join(parts)
    return Html(f"<{opening}/>" if name in _VOID else f"<{opening}>{markup(content)}</{name}>")
