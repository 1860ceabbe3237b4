"""What all parts of a store share: its folder, its index, and who it is among the processes that use it."""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path

from graphflow.errors import StoreError
from graphflow.store.index import Index
from graphflow.store.owners import Owner
from graphflow.store.records import Result, Row

FOLDERS = ("blobs", "tmp", "checkpoints")
GRAIN = 60.0  # seconds; the time of last use is not kept more exactly, so that a rerun writes nothing
CLOCK = "SELECT value FROM meta WHERE name = 'clock'"


class Base:
    """An open store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        try:
            for name in FOLDERS:
                (self.folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"the store {self.folder} can't be opened: {error}") from error
        self.index = Index(self.folder)
        self.owner = Owner(self.index)
        self.asking = threading.Lock()
        self.held: set[str] = set()  # keys that a thread of this process computes
        self.uses = 0  # grows whenever something is recorded, used or pinned through this object
        self.fetched: dict[str, Row | Result] = {}
        self._close = weakref.finalize(self, _close, self.owner, self.index)

    @property
    def warnings(self) -> list[str]:
        """What was found damaged and set aside, for the user to know."""
        return self.index.warnings

    def close(self) -> None:
        """Close the store: its leases and runs end. Closing twice does nothing."""
        if self._close.alive:
            self.owner.leave()
            self._close()

    def meta(self, name: str) -> float:
        """A number that the index keeps about itself; 0 when it is lost."""
        row = self.index.row("SELECT value FROM meta WHERE name = ?", (name,))
        return float(row[0]) if row is not None and isinstance(row[0], int | float) else 0.0

    def new_temporary(self, suffix: str = "") -> Path:
        """A path in tmp/ that nobody has. Its name tells whose it is: what a dead process left is removed at once."""
        self.owner.register()
        return self.folder / "tmp" / f"{self.owner.id}-{os.urandom(8).hex()}{suffix}"


def _close(owner: Owner, index: Index) -> None:
    # A store that is forgotten is closed wherever Python collects garbage, perhaps in the middle of a transaction of
    # another store on this folder, for which it must not wait.
    index.hurry()
    owner.leave()
    index.close()
