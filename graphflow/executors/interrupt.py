"""Ending a call that another thread makes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from graphflow.errors import Cancelled

T = TypeVar("T")


class Interruptible:
    """Makes calls, one after the other, that another thread can end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: int | None = None  # that of the call
        self._fired = False  # an exception is on its way to it

    def call(self, function: Callable[[], T]) -> T:
        """What `function` returns. Raises Cancelled once `interrupt` is called meanwhile."""
        with self._lock:
            self._thread, self._fired = threading.get_ident(), False
        try:
            return function()
        finally:
            self._end()

    def interrupt(self) -> None:
        """End the call: where its thread runs Python next. Without a call nothing happens."""
        with self._lock:
            if self._thread is not None and not self._fired:
                self._fired = True
                _raise_in(self._thread, Cancelled)

    def _end(self) -> None:
        """From here on nothing arrives any more: it would hit whatever the thread does after the call."""
        while True:
            try:
                with self._lock:
                    thread, self._thread = self._thread, None
                if self._fired and thread is not None:
                    _raise_in(thread, None)
                return
            except Cancelled:  # it came after the call had ended
                self._fired = False


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Let an exception be raised in a thread; None takes back one that has not been raised yet."""
    import ctypes  # rarely needed, and slow to import

    wanted = ctypes.py_object(error) if error is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), wanted)
