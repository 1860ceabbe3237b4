"""A second picture edited as one pair shows, and another pair for one picture, against edits from scratch (ReEdit).

    python benchmarks/exemplar_again.py

All runs are in one process, so that the ratio is of the methods, not of imports. Everything that depends on the pair
alone (its description, its embeddings) is found in the store, and so is the picture's inversion for another pair. On
the pocket models describing takes no time, so that only the inversion shows; a describer of 13B takes longer.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import graphflow
from graphflow.spec import shipped_graphs

GRAPH = "reedit"
PICTURES = ("cat", "rabbit", "dog")


def seconds(store: Path, picture: str, models: str | None, backwards: bool = False) -> float:
    """Seconds of one run, models included, as they load once a run."""
    session = graphflow.load(GRAPH, store=store, device="cpu", models=models)
    folder = shipped_graphs()[GRAPH].parent / "pictures"
    pair = [folder / f"exemplar_{name}.png" for name in ("before", "after")]
    before, after = reversed(pair) if backwards else pair
    began = time.perf_counter()
    session.run(image=folder / f"{picture}.png", before=before, after=after)
    return time.perf_counter() - began


def main() -> None:
    """Print what is reused, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--models", help="preset instead of the graph's own")
    arguments = parser.parse_args()
    scratch, again, other = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        seconds(Path(folder) / "warm-up", PICTURES[0], arguments.models)
        for repeat in range(arguments.repeats):
            store = Path(folder) / str(repeat)
            first, second = PICTURES[repeat % 3], PICTURES[(repeat + 1) % 3]
            seconds(store, first, arguments.models)
            if repeat == 0:
                session = graphflow.load(GRAPH, store=store, device="cpu", models=arguments.models)
                image = shipped_graphs()[GRAPH].parent / "pictures" / f"{second}.png"
                cached = [name for name, node in session.plan(image=image).nodes.items() if node.status == "cached"]
                print("found in the store:", ", ".join(cached))
            again.append(seconds(store, second, arguments.models))
            other.append(seconds(store, second, arguments.models, backwards=True))
            scratch.append(seconds(Path(folder) / f"fresh-{repeat}", second, arguments.models))
    a, b, c = (statistics.median(values) for values in (scratch, again, other))
    print(f"from scratch {a:.2f} s   second picture {b:.2f} s, ratio {a / b:.2f}")
    print(f"another pair for the same picture {c:.2f} s, ratio {a / c:.2f}")


if __name__ == "__main__":
    main()
