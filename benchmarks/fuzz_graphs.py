"""Break the shipped graphs and presets in thousands of ways and check each: a valid graph or diagnostics, never more.

    python benchmarks/fuzz_graphs.py [--count 10000] [--seed 0] [--keep FOLDER]

Prints how many were valid, the codes of the others, and the slowest; exits with 1 when anything escaped, or took
more than a second of CPU, and keeps what escaped in FOLDER.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from collections import Counter
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from mutations import Files, judge, mutants, seeds

LIMIT = 1.0  # seconds of CPU that one file may take


def main() -> None:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("out/fuzz"))
    options = parser.parse_args()
    codes: Counter[str] = Counter()
    escaped: Counter[str] = Counter()
    valid, seconds = 0, []
    with tempfile.TemporaryDirectory() as folder:
        for i, (files, name) in enumerate(islice(mutants(options.seed), options.count)):
            try:
                verdict = judge(files, Path(folder))
            except Exception as error:
                place = traceback.extract_tb(error.__traceback__)[-1]
                what = f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}: {str(error)[:100]}"
                if not escaped[what]:
                    keep(files, options.keep / f"{options.seed}-{i}", f"{name}\n{traceback.format_exc()}")
                escaped[what] += 1
                continue
            valid += not verdict.codes
            codes.update(set(verdict.codes))
            seconds.append(verdict.seconds)
    print(f"{options.count} mutants of {len(seeds())} graphs, seed {options.seed}")
    print(f"{valid} valid, {len(seconds) - valid} diagnosed, {sum(escaped.values())} escaped")
    print("diagnosed:", ", ".join(f"{code} {n}" for code, n in sorted(codes.items())))
    print(f"CPU seconds: median {sorted(seconds)[len(seconds) // 2]:.4f}, slowest {max(seconds):.3f}")
    slow = sum(s > LIMIT for s in seconds)
    print(f"{slow} took more than {LIMIT:g} s")
    for what, n in escaped.most_common():
        print(f"escaped {n} times: {what}")
    sys.exit(bool(escaped or slow))


def keep(files: Files, folder: Path, report: str) -> None:
    """Write a graph that something escaped from, with the traceback."""
    for name, text in {**files, "report.txt": report.encode("utf-8", "replace")}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)


if __name__ == "__main__":
    main()
