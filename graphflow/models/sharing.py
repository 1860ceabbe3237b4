"""Parts that several models have in common are held once: CLIP's image tower serves both `clip` and `image_encoder`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakValueDictionary

Parts = WeakValueDictionary[tuple[object, ...], Any]

_parts: ContextVar[Parts | None] = ContextVar("parts", default=None)


@contextmanager
def sharing(parts: Parts) -> Iterator[None]:
    """Loaders that run inside share the parts of models that are still alive; a pool has one collection of them."""
    token = _parts.set(parts)
    try:
        yield
    finally:
        _parts.reset(token)


def shared(key: tuple[object, ...], make: Callable[[], Any]) -> Any:
    """The living part that was loaded under this key, or else what `make` gives, for those who ask later."""
    parts = _parts.get()
    if parts is None:
        return make()
    found = parts.get(key)
    if found is None:
        found = parts[key] = make()
    return found
