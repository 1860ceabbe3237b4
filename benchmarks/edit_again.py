"""The same picture with another instruction, against the same edit from scratch; and a rerun that computes nothing.

    python benchmarks/edit_again.py

Both edits run in one process with loaded models, so that the ratio is of the methods, not of imports. `--process`
measures whole processes instead: the cached rerun as a user types it, with imports and report.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import graphflow

GRAPH = "pix2pix_on_the_fly"
INSTRUCTIONS = ("turn the cat into a dog", "turn the cat into a panda", "turn the cat into a frog")


def seconds(store: Path, instruction: str) -> float:
    """Seconds of one run, models included, as they load once a run."""
    session = graphflow.load(GRAPH, store=store, device="cpu")
    began = time.perf_counter()
    session.run(instruction=instruction)
    return time.perf_counter() - began


def in_process(repeats: int) -> None:
    """From scratch, again with another instruction, and cached; median of repeats, taking turns."""
    scratch, again, cached = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        seconds(Path(folder) / "warm-up", INSTRUCTIONS[0])
        for repeat in range(repeats):
            store = Path(folder) / str(repeat)
            first, second = INSTRUCTIONS[repeat % 3], INSTRUCTIONS[(repeat + 1) % 3]
            seconds(store, first)
            again.append(seconds(store, second))
            scratch.append(seconds(Path(folder) / f"fresh-{repeat}", second))
            cached.append(seconds(store, second))
    a, b, c = (statistics.median(values) for values in (scratch, again, cached))
    print(f"from scratch {a:.2f} s   edit again {b:.2f} s   ratio {a / b:.2f}   cached {c * 1000:.0f} ms")


def whole_process(repeats: int) -> None:
    """A fully cached rerun of a shipped graph, beside `python -c 'import torch'` in the same run."""
    with tempfile.TemporaryDirectory() as folder:
        run = [sys.executable, "-c", "from graphflow.cli import main; main()", "run", GRAPH, "--quiet"]
        run += ["--out", f"{folder}/out", "--device", "cpu"]
        environment = {**os.environ, "GRAPHFLOW_STORE": f"{folder}/store"}
        subprocess.run(run, env=environment, check=True, capture_output=True)
        ours, torch = [], []
        for _ in range(repeats):
            for command, times in ((run, ours), ([sys.executable, "-c", "import torch"], torch)):
                began = time.perf_counter()
                subprocess.run(command, env=environment, check=True, capture_output=True)
                times.append(time.perf_counter() - began)
    a, b = statistics.median(ours), statistics.median(torch)
    print(f"cached rerun, whole process {a:.2f} s   import torch alone {b:.2f} s   ratio {b / a:.1f}")


def main() -> None:
    """Print one line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--process", action="store_true", help="only the whole-process measurement")
    arguments = parser.parse_args()
    whole_process(arguments.repeats)
    if not arguments.process:
        in_process(arguments.repeats)


if __name__ == "__main__":
    main()
