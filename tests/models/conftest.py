"""A pool on the CPU, and a loader that waits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pools import Gate, Watched

from graphflow.models import refs
from graphflow.models.refs import ModelRef


@pytest.fixture
def pool() -> Iterator[Watched]:
    made = Watched()
    yield made
    made.close()


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Gate, ModelRef]:
    made = Gate()
    known = dict(refs.loaders()) | {"gate": refs.Loader("gate", "vae", made, ())}
    monkeypatch.setattr(refs, "_LOADERS", known)
    return made, ModelRef("vae", "gate", "x", path=tmp_path)
