"""A folder with a graph and three pictures."""

from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest
from cli_runs import GRAPH


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "g.yaml").write_text(GRAPH)
    (tmp_path / "photos").mkdir()
    for i in range(3):
        PIL.Image.new("RGB", (8, 8), (40 * i, 0, 10)).save(tmp_path / f"photos/{i}.png")
    return tmp_path
