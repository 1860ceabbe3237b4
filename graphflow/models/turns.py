"""One load at a time in a process, and those that a node waits for before those that are only foreseen."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A lock that lets the urgent go first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._busy, self._urgent = False, 0

    @contextmanager
    def turn(self, urgent: bool) -> Iterator[None]:
        """Nobody else is inside. Who is not urgent waits for all who are."""
        with self._changed:
            self._urgent += urgent
            try:
                while self._busy or (self._urgent and not urgent):
                    self._changed.wait()
                self._busy = True
            finally:
                self._urgent -= urgent
        try:
            yield
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
