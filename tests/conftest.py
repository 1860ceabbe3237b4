"""Shared fixtures. Every test has a store of its own and can't reach the user's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import samples

import graphflow.nodes  # noqa: F401  before transformers: it lets a torchvision without its C++ library be imported
from graphflow.store import Store


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHFLOW_STORE", str(tmp_path / "user-store"))
    samples.RUNS.clear()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def graph_file(tmp_path: Path) -> Callable[[str], Path]:
    """Write a graph file; returns its path."""

    def write(text: str, name: str = "graph.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write
