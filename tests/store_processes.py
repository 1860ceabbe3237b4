"""Starting and ending the processes of `store_workers`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WORKERS = Path(__file__).with_name("store_workers.py")


def start(what: str, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A process; it lives on beside the test."""
    command = [sys.executable, str(_WORKERS), what, str(folder), *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finish(process: subprocess.Popen[str]) -> list[str]:
    """The lines that a process prints until its end; it must end well."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.split("\n")[:-1]


@contextmanager
def running(what: str, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has printed its first line; it is killed at the end, if it lives then."""
    process = start(what, folder, *arguments)
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL, and wait."""
    process.kill()
    process.communicate()
