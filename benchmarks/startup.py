"""What a fully cached rerun of a shipped graph costs, whole process, beside starting Python and importing libraries.

    python benchmarks/startup.py
    python benchmarks/startup.py --graph prompt_swap --repeats 20

Prints CPU seconds (user and system, of the process and its children), least of all repeats, which take turns, so that a
noisy machine troubles all alike. Byte code is compiled in a folder of the benchmark's own, before the clock runs. Ends
with exit code 1 if the rerun computes anything, or imports torch or numpy.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BAR = 0.35
ENTRY = "from graphflow.cli import main; main()"
WATCHED = """
import sys
from graphflow.cli import run
code = run(sys.argv[1:])
print(*(m for m in ("torch", "numpy") if m in sys.modules), file=sys.stderr)
sys.exit(code)
"""


def main() -> None:
    """Run the benchmark and print a line for each command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", default="pix2pix_on_the_fly")
    parser.add_argument("--input", default="steps=2", help="keeps the first run short")
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        environment = own_environment(Path(folder))
        cached = [ENTRY, "run", options.graph, "-i", options.input, "--out", f"{folder}/out"]
        computing, _ = cost([sys.executable, "-c", *cached], environment)
        print(f"{'first run, computing':<40} {computing:6.2f} s CPU")
        commands = {
            "python -c pass": ["pass"],
            "python -c 'import typer, pydantic, yaml'": ["import typer, pydantic, yaml"],
            "graphflow --help": [ENTRY, "--help"],
            f"graphflow run {options.graph}, cached": cached,
        }
        found = compare({name: [sys.executable, "-c", *rest] for name, rest in commands.items()}, options, environment)
        for name, (cpu, wall) in found.items():
            print(f"{name:<40} {cpu:6.3f} s CPU  {wall:6.3f} s")
        least = found[f"graphflow run {options.graph}, cached"][0]
        libraries = found["python -c 'import typer, pydantic, yaml'"][0]
        print(f"{least / libraries:.1f} times the libraries alone; the bar is {BAR} s")
        check([sys.executable, "-c", WATCHED, *cached[1:], "--json"], environment)


def own_environment(folder: Path) -> dict[str, str]:
    """An environment with a store and a place for byte code in `folder`."""
    environment = {**os.environ, "GRAPHFLOW_STORE": str(folder / "store"), "PYTHONPYCACHEPREFIX": str(folder / "code")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def compare(
    commands: dict[str, list[str]], options: argparse.Namespace, environment: dict[str, str]
) -> dict[str, tuple[float, float]]:
    """CPU and wall seconds of each command, least of all repeats, after one to warm up."""
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for repeat in range(options.repeats + 1):
        for name, command in commands.items():
            figures = cost(command, environment)
            if repeat:
                runs[name].append(figures)
    return {name: (min(cpu for cpu, _ in found), min(wall for _, wall in found)) for name, found in runs.items()}


def cost(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """CPU and wall seconds of a command, which must end with exit code 0."""
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with exit code {process.returncode}")
    return usage.ru_utime + usage.ru_stime, wall


def check(command: list[str], environment: dict[str, str]) -> None:
    """See that a rerun computes nothing and imports no torch and no numpy."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    if '"status": "ran"' in done.stdout or done.stderr.strip():
        sys.exit(f"the rerun computed something, or imported {done.stderr.strip()}")
    print("nothing was computed; neither torch nor numpy was imported")


if __name__ == "__main__":
    main()
