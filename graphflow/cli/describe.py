"""Kinds in words: what the terminal's pages and the catalogue in the docs share."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from graphflow.ports import ModelRole, Port, PortType

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from graphflow.node import Node


def signature(cls: type[Node]) -> str:
    """``image: Image, model vae → latents: Latents``."""

    def side(ports: Iterable[Port]) -> str:
        return ", ".join(p.describe() if p.role else f"{p.name}: {p.describe()}" for p in ports)

    return f"{side(cls.inputs().values()) or 'nothing'} → {side(cls.outputs().values())}"


def port_doc(port: Port) -> str:
    """What travels through a port."""
    if isinstance(port.type, ModelRole):
        return "from the preset, or trained weights by an edge"
    assert isinstance(port.type, PortType)
    return port.type.doc + (f" ({port.type.shape})" if port.type.shape else "")


def type_name(hint: Any) -> str:
    """A parameter's type as an author would write it; choices as ``a | b``."""
    text = hint.__name__ if isinstance(hint, type) and not hasattr(hint, "__args__") else str(hint)
    text = text.replace("typing.", "").replace("NoneType", "None")
    if text.startswith("Literal["):
        return " | ".join(part.strip("'\" ") for part in text[8:-1].split(","))
    return text


def default_text(info: FieldInfo) -> str:
    """`` = 50`` or ``, required``."""
    if info.is_required():
        return ", required"
    default = info.get_default(call_default_factory=True, validated_data={})
    return f" = {json.dumps(default, default=str, ensure_ascii=False)}"


def bounds_text(info: FieldInfo) -> str:
    """``≥ 1, ≤ 1000``; empty without bounds."""
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "multiple_of": "multiple of"}
    lengths = {"min_length": "length ≥", "max_length": "length ≤"}
    found = [(sign, getattr(m, name, None)) for m in info.metadata for name, sign in {**signs, **lengths}.items()]
    return ", ".join(f"{sign} {value}" for sign, value in found if value is not None)


def cache_words(cls: type[Node]) -> str:
    """What the node says to the cache, as one sentence."""
    if not cls.deterministic:
        return "not deterministic: a result is never reused"
    stored = {"auto": "stored when that pays", "always": "always stored", "never": "never stored"}[cls.cache]
    parts = [stored]
    if cls.accelerated():
        parts.append("results depend on device kind and dtype")
    if cls.not_in_key:
        parts.append(f"{', '.join(sorted(cls.not_in_key))} can't change the result")
    return "; ".join(parts)
