"""Torch's own threads: only the thread that computes with models has a team of them.

Each thread that calls a parallel operation of torch gets a team of its own (OpenMP). As soon as the teams together have
more threads than the machine has cores, theirs no longer wait actively for the next operation, but sleep and are woken:
a denoising step of small operations takes two to three times as long. So whoever loads, checks, stores or computes
without models beside the device's thread does it alone.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()
_mine = threading.local()
_team: int | None = None  # threads that the user, or torch itself, has chosen; None until torch is there


def note_team() -> None:
    """Note, from a thread that the user may have set up, how many threads torch is to compute with."""
    global _team
    torch = _loaded()
    if torch is not None and not getattr(_mine, "alone", False):
        _team = torch.get_num_threads()


def whole_team() -> None:
    """Give the calling thread all threads, if torch has been loaded, and it is not to be alone."""
    torch = _loaded()
    if torch is None or _team is None or getattr(_mine, "alone", False):
        return
    if torch.get_num_threads() != _team:
        torch.set_num_threads(_team)


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, torch computes what the calling thread asks for without other threads, if torch has been loaded."""
    global _team
    torch = _loaded()
    if torch is None or getattr(_mine, "alone", False):
        yield
        return
    with _lock:  # before anybody sets another number: it is that of threads which begin later, too
        if _team is None:
            _team = torch.get_num_threads()
    torch.set_num_threads(1)
    _mine.alone = True
    try:
        yield
    finally:
        _mine.alone = False
        torch.set_num_threads(_team)


def _loaded() -> Any:
    """Torch, once its import is over."""
    torch = sys.modules.get("torch")
    return torch if hasattr(torch, "set_num_threads") else None
