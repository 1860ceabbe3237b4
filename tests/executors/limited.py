"""A process that may use only so much memory: runs a graph and says what came of it.

    python limited.py FOLDER SPARE APPETITE

SPARE bytes are what it may take beyond what it has when torch is there, APPETITE those that a text takes in a batch.
"""

from __future__ import annotations

import json
import re
import resource
import sys
from pathlib import Path

import model_samples as ms
import samples  # noqa: F401  registers its kinds
import torch

from graphflow.check import check
from graphflow.events import Event, Logged
from graphflow.options import Options
from graphflow.session import Session
from graphflow.spec import parse_spec
from graphflow.store import Store


def used() -> int:
    """Bytes of this process's address space."""
    found = re.search(r"VmSize:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def main(folder: Path, spare: int, appetite: int) -> None:
    said: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Logged):
            said.append(event.message)

    session = Session(check(parse_spec((folder / "g.yaml").read_text(), "g.yaml", folder)), Store(folder / "store"))
    runner = session.runner({"texts": [f"text {i}" for i in range(8)]}, listen, Options(batch=8))
    ms.Hooks.appetite = appetite
    ms.numbers_of("text") @ torch.zeros(64, 64)
    resource.setrlimit(resource.RLIMIT_AS, (used() + spare, -1))
    done = runner.run()
    calls = [size for _, size in ms.CALLS]
    print(json.dumps({"status": done.record.status, "said": said, "calls": calls}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
