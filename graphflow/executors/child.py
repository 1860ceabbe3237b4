"""A process that serves a run: its beginning, its pipes and its end."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from graphflow.executors.wire import Message, Sink, messages

GRACE = 10.0  # seconds that a process has to end


class Child:
    """A process of `graphflow.executors.serve`.

    Args:
        hello: what it is told first.
        name: of the thread that listens.
        receive: called with each message, from that thread.
        ended: called with how the process ended, in words, from that thread.

    Attributes:
        tell: sends a message.
        over: set when the process has ended.
    """

    def __init__(
        self, hello: Message, name: str, receive: Callable[[Message], None], ended: Callable[[str], None]
    ) -> None:  # fmt: skip
        path = [part or os.getcwd() for part in sys.path]  # what this process imports, that one finds
        apart: dict[str, Any] = {"process_group": 0}  # Ctrl-C in the terminal is for the run alone
        if sys.platform == "win32":
            apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "graphflow.executors.serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)}, **apart,
        )  # fmt: skip
        assert isinstance(self.process.stdin, io.BufferedWriter)
        self.tell, self.over = Sink(self.process.stdin), threading.Event()
        self.tell({**hello, "path": path, "python_path": os.environ.get("PYTHONPATH")})
        self._receive, self._ended = receive, ended
        self._thread = threading.Thread(target=self._listen, name=f"graphflow {name}", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """End the process, by force if it does not end by itself; waits for it."""
        self.tell({"do": "end"})
        self.tell.close()
        try:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(GRACE)
        finally:
            self.process.kill()  # does nothing to one that has ended
            self._thread.join()

    def _listen(self) -> None:
        assert isinstance(self.process.stdout, io.BufferedReader)
        trouble = ""
        with self.process.stdout as pipe:
            try:
                for message in messages(pipe):
                    self._receive(message)
            except Exception as error:  # a run must not wait for what nobody listens to any more
                trouble = f"said what was not understood: {type(error).__name__}: {error}"
                self.process.kill()
        status = self.process.wait()
        self.over.set()
        self.tell.close()
        self._ended(trouble or how_ended(status))


def how_ended(status: int) -> str:
    """How a process ended, in words."""
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:  # a real-time signal has no name of its own
        return f"was ended by signal {-status}"
    hint = "; the system does that when its memory is full" if name == "SIGKILL" else ""
    return f"was ended by signal {-status} ({name}{hint})"
