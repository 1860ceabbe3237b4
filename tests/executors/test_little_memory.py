"""A process with little memory gets through: it halves batches, and holds one model after the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import model_samples as ms
import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux limits address space")
MIB = 2**20
RATED = """
graphflow: 1
inputs: {texts: 'list[Text]'}
nodes:
  rate: {uses: sample.rate, map: {text: inputs.texts}}
outputs: {ratings: rate.rating}
"""
MAPPED = """
graphflow: 1
inputs: {texts: 'list[Text]'}
nodes:
  one: {uses: sample.alpha, map: {text: inputs.texts}}
  two: {uses: sample.beta, map: {text: one.text}}
  three: {uses: sample.gamma, map: {text: two.text}}
outputs: {texts: three.text}
"""


def limited(folder: Path, graph: str, spare: int, appetite: int = 0) -> dict[str, Any]:
    """Run a graph in a process that may take `spare` bytes more than it needs to begin with."""
    (folder / "g.yaml").write_text(graph)
    worker = Path(__file__).with_name("limited.py")
    path = os.pathsep.join([str(worker.parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(worker), str(folder), str(spare), str(appetite)], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": path, "MALLOC_ARENA_MAX": "1"}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_batch_that_does_not_fit_is_halved(tmp_path: Path) -> None:
    found = limited(tmp_path, RATED + ms.models_line(tmp_path / "models"), 1000 * MIB, 200 * MIB)
    assert found["status"] == "done"
    assert found["calls"] in ([4, 4], [2, 2, 2, 2])
    assert any("out of memory with a batch of 8: going on with 4" in m for m in found["said"])


def test_models_that_do_not_fit_together_come_one_after_the_other(tmp_path: Path) -> None:
    models = ms.save_models(tmp_path / "models", width=lambda role: 4 * MIB // 4 if role != "delta" else 1)
    found = limited(tmp_path, f"{MAPPED}models: {json.dumps(models)}\n", 700 * MIB)
    assert found["status"] == "done"
    assert found["calls"] == [1] * 24
    assert any("moved off cpu" in m for m in found["said"])
