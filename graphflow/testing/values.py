"""Values of ports: whether they are what the port says, and what they are by content."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graphflow.codecs import CODECS
from graphflow.ports import SCALARS, Port, Ports, PortType, plain_problem

CLOSE = 1e-5
"""How far a batch may be from its elements alone, as a part of the largest value: kernels add up in other orders."""


def wrong_value(port: Port, value: Any, folder: Path | None = None) -> str:
    """What is wrong with a port's value; with a folder, it is also written there and read back."""
    assert isinstance(port.type, PortType)
    if port.is_list and (isinstance(value, str) or not isinstance(value, Sequence)):
        return f"it is {type(value).__name__}, expected a list"
    codec, plain = CODECS[port.type.codec], SCALARS.get(port.type.name)
    for number, item in enumerate(value if port.is_list else [value]):
        if plain is not None and type(item) not in plain:
            return f"it is {type(item).__name__}, expected {port.type.name}"
        if problem := codec.check(item) or plain_problem(port.type, item):
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


def close(port: Port, a: Any, b: Any) -> bool:
    """Whether two values of a port differ by rounding at most: numbers by `CLOSE`, pixels by one level."""
    assert isinstance(port.type, PortType)
    if port.is_list:
        return len(a) == len(b) and all(_close(port.type.codec, *pair) for pair in zip(a, b, strict=True))
    return _close(port.type.codec, a, b)


def _close(codec: str, a: Any, b: Any) -> bool:
    if codec == "json":
        return _json_close(a, b)
    if codec == "tensor":
        return _tensors_close(a, b)
    if codec == "text_cond":
        pooled = (a.pooled is None and b.pooled is None) or _tensors_close(a.pooled, b.pooled)
        return _tensors_close(a.embeds, b.embeds) and pooled
    if codec == "trajectory":
        return list(a.timesteps) == list(b.timesteps) and _tensors_close(a.latents, b.latents)
    if codec == "image":
        return (a.mode, a.size) == (b.mode, b.size) and _largest_difference(a, b) <= 1
    if codec == "series":
        return _series_close(a, b)
    return CODECS[codec].digest(a) == CODECS[codec].digest(b)


def _series_close(a: Any, b: Any) -> bool:
    if (a.timesteps, a.notes) != (b.timesteps, b.notes):
        return False
    pairs = [(a.shared, b.shared), *((a[timestep], b[timestep]) for timestep in a.timesteps)]
    return all(x.keys() == y.keys() and all(_tensors_close(x[name], y[name]) for name in x) for x, y in pairs)


def _tensors_close(a: Any, b: Any) -> bool:
    if a is None or b is None or a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.numel() == 0:
        return True
    largest = float(b.abs().max().clamp(min=1)) if b.is_floating_point() else 1.0
    return float((a - b).abs().max()) <= CLOSE * largest


def _json_close(a: Any, b: Any) -> bool:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_json_close(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(_json_close(*pair) for pair in zip(a, b, strict=True))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=CLOSE, abs_tol=CLOSE)
    return bool(a == b)


def _largest_difference(a: Any, b: Any) -> int:
    from PIL import ImageChops

    extrema = ImageChops.difference(a, b).getextrema()
    return max(int(band[1]) for band in (extrema if isinstance(extrema[0], tuple) else (extrema,)))
