"""`nodes new` writes packs whose tests pass and whose graphs run; `nodes` and `nodes show` say what is there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from graphflow.cli import run as command


def python(*arguments: str | Path, cwd: Path, **environment: str) -> str:
    """Run Python in a folder; returns what it printed."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


GRAPHFLOW = ("-c", "import sys; from graphflow.cli import main; main()")
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider")


def test_a_new_file_passes_its_tests_and_its_graph_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["nodes", "new", "my_nodes", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert f"graphflow run {tmp_path / 'my_nodes.yaml'} --nodes {tmp_path / 'my_nodes.py'}" in said
    assert "3 passed" in python(*PYTEST, "test_my_nodes.py", cwd=tmp_path)
    printed = python(*GRAPHFLOW, "run", "my_nodes.yaml", "--nodes", "my_nodes.py", "--out", "out", cwd=tmp_path)
    assert str(Path("out", "image.png")) in printed


def test_a_new_package_passes_its_tests_and_is_found_once_installed(tmp_path: Path) -> None:
    assert command(["nodes", "new", "my_pack", "--package", "--out", str(tmp_path)]) == 0
    assert "3 passed" in python(*PYTEST, "my_pack", cwd=tmp_path)
    options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index")
    python("-m", "pip", "install", *options, "--target", "installed", "./my_pack", cwd=tmp_path)
    path = str(tmp_path / "installed")
    python(*GRAPHFLOW, "run", "my_pack/graphs/tint.yaml", "--out", "out", cwd=tmp_path, PYTHONPATH=path)
    assert (tmp_path / "out" / "image.png").is_file()
    shown = python(*GRAPHFLOW, "nodes", "my_pack.tint", cwd=tmp_path, PYTHONPATH=path)
    assert f"Source: {Path('installed', 'my_pack', 'nodes.py')}:" in shown


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "my_nodes.yaml").write_text("mine")
    assert command(["nodes", "new", "my_nodes", "--out", str(tmp_path)]) == 2
    assert f"nothing was written, because there is already: {tmp_path / 'my_nodes.yaml'}" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["my_nodes.yaml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["My-Nodes"], "expected a Python name in small letters"),
        (["class"], "expected a Python name in small letters"),
        (["caption"], "the standard library has a family 'caption'"),
        (["json", "--package"], "there is a Python module of this name"),
    ],
)
def test_names_that_will_not_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert command(["nodes", "new", *arguments, "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_can_not_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert command(["nodes", "new", "my_nodes", "--out", str(tmp_path / "file")]) == 2
    assert "can't write in" in capsys.readouterr().err


def test_a_kind_is_shown_in_short_and_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["nodes", "invert.ddim"]) == 0
    short = capsys.readouterr().out
    assert command(["nodes", "show", "invert.ddim"]) == 0
    assert capsys.readouterr().out == short
    assert f"Source: {Path('nodes', 'invert.py')}:" in short.replace(str(Path.cwd()) + os.sep, "")
    assert command(["nodes", "invert.dim"]) == 2
    assert "there is no kind 'invert.dim'; did you mean invert.ddim?" in capsys.readouterr().err
    assert command(["nodes", "--format", "html"]) == 2


def test_the_kinds_of_a_family_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["nodes", "dataset"]) == 0
    listed = capsys.readouterr().out
    assert "dataset.pocket" in listed
    assert "invert.ddim" not in listed
