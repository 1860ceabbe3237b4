"""When Python's cyclic garbage collector runs.

Planning and passing over cached nodes make many small objects that all stay, and no cycles. Each full collection in
between looks at every object of the process for nothing: at 10,000 nodes that takes longer than the work itself.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """No collection inside the block, unless `resumed`."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@contextmanager
def resumed(when: bool) -> Iterator[None]:
    """Collections inside a block that itself is paused; with `when` false nothing changes."""
    if not when:
        yield
        return
    gc.enable()
    try:
        yield
    finally:
        gc.disable()
