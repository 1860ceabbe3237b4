"""Runs a benchmark of one method and eight metrics on N pictures; prints the peak memory of the process in bytes."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import bench_samples  # noqa: F401

from graphflow.bench.results import collect
from graphflow.bench.session import open_bench

METRICS = "".join(
    f"  m{n}: {{uses: sample_bench.apart, in: {{reference: {column}}}, with: {{times: {1 + n}}}}}\n"
    for n, column in enumerate(["source", "target"] * 4)
)
BENCH = f"""
graphflow-bench: 1
data: {{uses: sample_bench.edits, with: {{size: 256}}}}
methods: {{much: {{uses: sample_bench.brighten}}}}
metrics:
{METRICS}
"""

folder = Path(sys.argv[2])
folder.mkdir()
(folder / "bench.yaml").write_text(BENCH)
bench = open_bench(str(folder / "bench.yaml"), store=folder / "store", limit=int(sys.argv[1]), device="cpu")
ready, run = bench.run({})
collect(bench.spec, ready.compiled, run)
print(json.dumps({"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
