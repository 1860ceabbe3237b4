"""The hook that lets a torchvision without its C++ library be imported."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest


def run(code: str, folder: Path | None = None) -> str:
    path = f"import sys; sys.path.insert(0, {str(folder)!r})\n" if folder else ""
    found = subprocess.run([sys.executable, "-c", path + code], capture_output=True, text=True)
    return found.stdout + found.stderr


def fake(tmp_path: Path, body: str) -> Path:
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(f"import torch\n{body}\n")
    (package / "part.py").write_text("")
    return tmp_path


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed")
def test_torchvision_transformers_and_its_models_are_usable():
    code = (
        "import graphflow.nodes, torch, torchvision\n"
        "from transformers import CLIPTextModel\n"
        "net = torchvision.models.squeezenet1_1(weights=None)\n"
        "print(net(torch.zeros(1, 3, 64, 64)).shape[1])"
    )
    assert run(code).endswith("1000\n")


def test_a_healthy_torchvision_is_left_alone(tmp_path):
    code = (
        "import graphflow.nodes, torch, torchvision.part, inspect\n"
        "print(torchvision.fine, hasattr(torch.ops.torchvision, 'nms'), type(torchvision.__loader__).__name__)"
    )
    assert run(code, fake(tmp_path, "fine = 1")) == "1 False SourceFileLoader\n"


def test_a_broken_one_is_imported_again_with_its_operators(tmp_path):
    body = (
        "from torchvision import part\n"
        "if not hasattr(torch.ops.torchvision, 'nms'):\n"
        "    raise RuntimeError('operator torchvision::nms does not exist')"
    )
    code = "import graphflow.nodes, torchvision, torch; print(hasattr(torch.ops.torchvision, 'qnms'))"
    assert run(code, fake(tmp_path, body)) == "True\n"


def test_other_errors_of_torchvision_are_shown(tmp_path):
    shown = run("import graphflow.nodes, torchvision", fake(tmp_path, "raise RuntimeError('no such luck')"))
    assert "RuntimeError: no such luck" in shown


def test_the_hook_is_put_in_place_once_and_imports_nothing_heavy():
    code = (
        "import sys, graphflow.nodes\n"
        "from graphflow.nodes import cpu_torchvision as c\n"
        "c.install()\n"
        "print(sum(isinstance(f, c._Finder) for f in sys.meta_path), 'torch' in sys.modules)"
    )
    assert run(code) == "1 False\n"
