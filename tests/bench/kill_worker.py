"""Runs a benchmark and kills itself, without a chance to tidy up, as soon as the instance of that name has finished.

It prints the name of every instance that has finished by then.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import bench_samples  # noqa: F401

from graphflow.bench.session import open_bench
from graphflow.events import Event, NodeFinished

file, store, name = sys.argv[1:]


def emit(event: Event) -> None:
    if isinstance(event, NodeFinished):
        print(event.node, flush=True)
    if isinstance(event, NodeFinished) and event.node == name:
        os.kill(os.getpid(), signal.SIGKILL)


open_bench(file, store=Path(store), device="cpu").run({}, emit)
