"""Peak memory of the methods: what is watched, and what the table says where nothing is known."""

from __future__ import annotations

import sys
from pathlib import Path

import bench_samples  # noqa: F401
import pytest

from graphflow.bench.memory import PeakMemory
from graphflow.bench.results import collect
from graphflow.bench.session import open_bench
from graphflow.bench.table import MISSING, table_of
from graphflow.events import NodeFinished, NodeStarted

MIB = 1 << 20
BENCH = """
graphflow-bench: 1
data: {uses: sample_bench.edits}
methods:
  nothing: {column: source}
  little: {uses: sample_bench.brighten, with: {by: 10}}
  much: {uses: sample_bench.brighten, with: {by: 35}}
metrics:
  near: {uses: sample_bench.apart, in: {reference: target}}
"""


def during(memory: PeakMemory, node: str, size: int) -> None:
    """What happens while a node runs that holds `size` bytes for a while."""
    memory(NodeStarted(node=node, kind="x"))
    held = bytearray(b"x" * size)
    del held
    memory(NodeFinished(node=node, how="ran"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_of_a_method_is_its_own() -> None:
    memory = PeakMemory("cpu")
    during(memory, "large[0]/edit/run", 128 * MIB)
    during(memory, "small[0]/edit/run", MIB)
    during(memory, "large[1]/edit/run", MIB)
    during(memory, "small[0]/scores/kept", 128 * MIB)
    if not memory.peaks:
        pytest.skip("this system does not let a process reset its peak")
    assert memory.peaks["large"] - memory.peaks["small"] > 90 * MIB
    assert set(memory.peaks) == {"large", "small"}


def test_what_came_from_the_store_has_no_peak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PeakMemory, "reset", lambda self: None)
    monkeypatch.setattr(PeakMemory, "read", lambda self: 300 * MIB)
    (tmp_path / "bench.yaml").write_text(BENCH)

    def memory_cells(*methods: str) -> dict[str, str]:
        bench = open_bench(str(tmp_path / "bench.yaml"), methods=methods, store=tmp_path / "store", device="cpu")
        ready, run = bench.run({})
        table = table_of(collect(bench.spec, ready.compiled, run, ready.memory))
        at = [head.key for head in table.heads]
        if "memory" not in at:
            return {}
        assert table.heads[-1].text == "peak memory, MiB"
        return {row.name: row.cells[-1].text(0) for row in table.rows}

    assert memory_cells("little") == {"little": "300"}
    assert memory_cells() == {"nothing": "–", "little": MISSING, "much": "300"}
    assert memory_cells() == {}, "nothing was computed"
