"""Who uses the store right now: one row for each open `Store`, kept fresh by a heartbeat."""

from __future__ import annotations

import os
import platform
import sqlite3
import threading
import time
import weakref
from contextlib import suppress
from functools import cache
from pathlib import Path

from graphflow.errors import StoreError
from graphflow.store.index import Index

TTL = 30.0  # seconds after which an owner that does not beat has lost its leases
BEAT = 5.0
_BEAT_SQL = """INSERT INTO owners VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET beat = excluded.beat"""


class Owner:
    """This process's entry among the owners, made when it first needs one and removed when the store is closed."""

    def __init__(self, index: Index) -> None:
        self.id = os.urandom(8).hex()
        self._index = index
        self._stop: threading.Event | None = None
        self._lock = threading.Lock()
        self._generation = index.generation

    def register(self) -> None:
        """Enter the row, and begin to beat.

        Raises:
            StoreError: the index can't be written.
        """
        if self._stop is None or self._generation != self._index.generation:
            with self._lock:
                self._generation = self._index.generation
                self.beat()
                if self._stop is None:
                    self._stop = threading.Event()
                    # The thread must not keep a forgotten store alive: its lease has to end.
                    arguments = (weakref.ref(self), self._stop)
                    threading.Thread(target=_keep_beating, args=arguments, name="graphflow-store", daemon=True).start()

    def beat(self) -> None:
        """Say that this owner lives.

        Raises:
            StoreError: the index can't be written.
        """
        row = (self.id, this_host(), os.getpid(), started(os.getpid()), time.time())
        self._index.statement("noting that a run lives", _BEAT_SQL, row)

    def leave(self) -> None:
        """Stop beating and remove the row with all that hangs on it."""
        if self._stop is not None:
            self._stop.set()
            self._stop = None
            with suppress(StoreError):
                self._index.write("ending a run", lambda db: remove_owner(db, self.id))


def _keep_beating(reference: weakref.ref[Owner], stop: threading.Event) -> None:
    while not stop.wait(BEAT):
        owner = reference()
        if owner is None:
            return
        with suppress(StoreError):  # the disk may be full for a while; the next beat tries again
            owner.beat()
        del owner


def remove_owner(db: sqlite3.Connection, owner: str) -> None:
    """Remove an owner, its leases and its runs."""
    for table, column in (("leases", "owner"), ("runs", "owner"), ("owners", "id")):
        db.execute(f"DELETE FROM {table} WHERE {column} = ?", (owner,))


def lives(host: str, pid: int, start: str, beat: float) -> bool:
    """Whether an owner is alive: it beat lately and, where this machine can see its process, that process runs.

    A beat in the future counts as old: the clock was set back, and it would never expire.
    """
    if not isinstance(beat, float) or abs(time.time() - beat) > TTL:
        return False
    return host != this_host() or _runs(pid, start)


def exists(host: str, pid: int, start: str, beat: float) -> bool:
    """Whether an owner's process is there: as `lives`, but one that this machine can see need not have beaten lately.

    It may be stopped, or unable to write to a full disk. It loses its leases, but not its files.
    """
    return lives(host, pid, start, beat) or (
        host == this_host() and bool(start) and os.name != "nt" and _runs(pid, start)
    )


def _runs(pid: int, start: str) -> bool:
    if os.name == "nt":
        return True  # os.kill would end the process; here only the beat tells
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, TypeError, OverflowError):
        return False
    except PermissionError:
        pass
    return started(pid) == start


def started(pid: int) -> str:
    """When a process began, in ticks of this machine; empty where the system does not tell, or for a zombie.

    It tells a process from a later one with the same number.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


@cache
def this_host() -> str:
    """Names the set of processes among which a pid has a meaning: machine, boot and pid namespace."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)
