"""The store: results by key, values by digest, on disk, shared by all graphs and processes of a user.

    index.sqlite    results (key → outputs, parts, seconds), blobs (digest → codec, size, hash of the file), pins, and
                    who uses the store now; small JSON values stand in it
    blobs/ab/…      one file (or folder) a value
    checkpoints/    unfinished work of long nodes, by key
    tmp/            files being written
    index.lock      held while the index is open, so that nobody sets it aside under a running process

Nothing that looks whole is not: `values` says how a file comes into the store, `index` what becomes of a damaged index,
`leases` how one process computes a key while others wait, `collect` what goes when the store exceeds its budget.
"""

from __future__ import annotations

import os
from pathlib import Path

from graphflow.store.budget import default_budget, worth_storing
from graphflow.store.collect import Collected, Collecting
from graphflow.store.leases import Lease
from graphflow.store.records import Result, Stored
from graphflow.store.results import Cost
from graphflow.store.values import Prepared

__all__ = [
    "Collected", "Cost", "Lease", "Prepared", "Result", "Store", "Stored", "default_budget", "default_folder",
    "worth_storing",
]  # fmt: skip


class Store(Collecting):
    """One store; safe to use from several threads and processes.

    Raises:
        StoreError: the folder can't be made, or its index can't be opened.
    """


def default_folder() -> Path:
    """``GRAPHFLOW_STORE``, or a folder in the user's cache."""
    named = os.environ.get("GRAPHFLOW_STORE")
    if named:
        return Path(named)
    import platformdirs

    return Path(platformdirs.user_cache_dir("graphflow", appauthor=False)) / "store"
