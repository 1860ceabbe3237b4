"""Another process with another hash seed: reads graph files, runs them on a store of its own, and tells the keys.

A line on standard input is a JSON object: the folder of ``g.yaml``, the inputs (a picture by its colour), the settings.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import random_graphs as rg
import samples  # noqa: F401  registers its kinds

from graphflow.session import open_session


def given(value: Any, folder: Path) -> Any:
    """An input; a picture is written into the folder, and named by its path."""
    if isinstance(value, list):
        return [given(v, folder) for v in value]
    if not isinstance(value, dict):
        return value
    path = folder / f"picture {value['colour']}.png"
    rg.picture(tuple(value["colour"])).save(path)
    return path


def main() -> None:
    for line in sys.stdin:
        task = json.loads(line)
        folder = Path(task["folder"])
        session = open_session(str(folder / rg.MAIN), None, task["settings"], folder / "store", "cpu")
        done = session.run(**{name: given(value, folder) for name, value in task["given"].items()})
        print(json.dumps({name: node.key for name, node in done.record.nodes.items()}), flush=True)
        session.store.close()


if __name__ == "__main__":
    main()
