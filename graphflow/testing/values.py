"""Values of ports: whether they are what the port says, and what they are by content."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graphflow.codecs import CODECS
from graphflow.ports import Port, Ports, PortType

_PLAIN: dict[str, tuple[type, ...]] = {"Text": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}


def wrong_value(port: Port, value: Any, folder: Path | None = None) -> str:
    """What is wrong with a port's value; with a folder, it is also written there and read back."""
    assert isinstance(port.type, PortType)
    if port.is_list and (isinstance(value, str) or not isinstance(value, Sequence)):
        return f"it is {type(value).__name__}, expected a list"
    codec, plain = CODECS[port.type.codec], _PLAIN.get(port.type.name)
    for number, item in enumerate(value if port.is_list else [value]):
        if plain is not None and type(item) not in plain:
            return f"it is {type(item).__name__}, expected {port.type.name}"
        if problem := codec.check(item):
            return problem
        if folder is not None:
            path = folder / f"stored-{port.name}-{number}{codec.suffix}"
            codec.write(item, path)
            again = codec.read(path)
            if codec.digest(again) != codec.digest(item) or (codec.name == "json" and again != item):
                return "it comes back from the store as something else"
    return ""


def digests(ports: dict[str, Port], values: Ports) -> dict[str, str]:
    """Content digests of values, without models and values that were not given."""
    out = {}
    for name, port in ports.items():
        value = getattr(values, name)
        if isinstance(port.type, PortType) and value is not None:
            codec = CODECS[port.type.codec]
            out[name] = " ".join(codec.digest(item) for item in (value if port.is_list else [value]))
    return out
