"""Torch's own threads: only the thread that computes with models has a team of them.

Each thread that calls a parallel operation of torch gets a team of its own (OpenMP). As soon as the teams together have
more threads than the machine has cores, theirs no longer wait actively for the next operation, but sleep and are woken:
a denoising step of small operations takes two to three times as long. So whoever loads, checks, stores or computes
without models beside the device's thread does it alone, and one core is left to them.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from graphflow.machine import cores

_lock = threading.Lock()  # of the numbers below
_mine = threading.local()
_alone = 0  # threads that compute alone at the moment
_before = 1  # torch's number for the process, before the first of them began
_team: int | None = None  # threads that models are computed with; None until torch is there


def note_team(count: int | None = None) -> None:
    """Note, from a thread that the user may have set up, how many threads models are computed with.

    Args:
        count: so many. None: as many as torch is set to, but for one core, unless OMP_NUM_THREADS says otherwise.
    """
    global _team
    torch = _loaded()
    if torch is not None and not getattr(_mine, "alone", False):
        with _lock:
            _team = count or _all_but_one(_number(torch))


def team() -> int | None:
    """How many threads models are computed with; None as long as torch is not there."""
    return _team


def whole_team() -> None:
    """Give the calling thread the threads that models are computed with, if torch is loaded, and it is not alone."""
    global _team
    torch = _loaded()
    if torch is None or getattr(_mine, "alone", False):
        return
    with _lock:
        _team = _team or _all_but_one(_number(torch))
        if torch.get_num_threads() != _team:
            torch.set_num_threads(_team)


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, torch computes what the calling thread asks for without other threads, if torch has been loaded."""
    global _alone, _before, _team
    torch = _loaded()
    if torch is None or getattr(_mine, "alone", False):
        yield
        return
    with _lock:
        before = _number(torch)
        if _alone == 0:
            _before = before
        _alone += 1
        _team = _team or _all_but_one(before)
        torch.set_num_threads(1)
    _mine.alone = True
    try:
        yield
    finally:
        _mine.alone = False
        with _lock:
            _alone -= 1
            torch.set_num_threads(before)


def _number(torch: Any) -> int:
    """The threads that the calling thread has; a new one that begins while another is alone has got its single one."""
    count: int = torch.get_num_threads()
    return _before if _alone and count == 1 else count


def _all_but_one(count: int) -> int:
    return count if "OMP_NUM_THREADS" in os.environ else max(1, min(count, cores() - 1))


def _loaded() -> Any:
    """Torch, once its import is over."""
    torch = sys.modules.get("torch")
    return torch if hasattr(torch, "set_num_threads") else None
