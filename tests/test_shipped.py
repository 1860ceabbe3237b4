"""Shipped editing graphs run offline on the pocket models; a rerun computes nothing, without torch and numpy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest

import graphflow
from graphflow.cli import run as command
from graphflow.errors import NodeError
from graphflow.nodes.pocket.catalogue import SHIPPED
from graphflow.spec import shipped_graphs

EDITING = [name for name in shipped_graphs() if "/" not in name]
# What takes long by default, besides sampling.
QUICK: dict[str, dict[str, int]] = {
    "visii": {"prompt_steps": 5, "learning_steps": 3},
    "visii_text": {"prompt_steps": 5, "learning_steps": 3},
}
PICTURE = shipped_graphs()["pix2pix_on_the_fly"].parent / "pictures" / "cat.png"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.mark.parametrize("name", EDITING)
def test_every_graph_runs_as_it_stands(name: str, store: Path) -> None:
    done = graphflow.load(name, store=store, device="cpu").run(steps=4, **QUICK.get(name, {}))
    assert done["image"].size == (SHIPPED.size, SHIPPED.size)
    assert done["image"].mode == "RGB"
    assert done.record.status == "done"


def test_a_rerun_computes_nothing_and_imports_neither_torch_nor_numpy(tmp_path: Path, store: Path) -> None:
    arguments = ["run", "pix2pix_on_the_fly", "-i", "steps=4", "--store", str(store), "--out", str(tmp_path), "-q"]
    assert command(arguments) == 0
    watch = "print([m for m in ('torch', 'numpy', 'jinja2', 'rich') if m in sys.modules], code)"
    code = f"import sys; from graphflow.cli import run; code = run(sys.argv[1:]); {watch}"
    found = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[] 0"
    record = json.loads((tmp_path / "run.json").read_text())
    assert {n["status"] for n in record["nodes"].values()} == {"cached"}
    assert "<img" in (tmp_path / "report.html").read_text()


def test_another_instruction_reuses_the_inversion(store: Path) -> None:
    session = graphflow.load("pix2pix_on_the_fly", store=store, device="cpu")
    session.run(steps=4)
    statuses = {n: p.status for n, p in session.plan(steps=4, instruction="turn the cat into a frog").nodes.items()}
    assert [n for n, s in statuses.items() if s == "cached"] == ["prepare", "caption", "encode", "source", "invert"]
    assert statuses["captions"] == "run"
    assert "instruction comes from inputs.instruction: 'turn the cat into a dog' → 'make it a frog'" in "\n".join(
        session.why("captions", steps=4, instruction="make it a frog")
    )


def test_the_same_seed_gives_the_same_bytes_in_another_store(tmp_path: Path, store: Path) -> None:
    images = [
        graphflow.load("pix2pix_on_the_fly", store=where, device="cpu").run(steps=4)["image"]
        for where in (store, tmp_path / "fresh")
    ]
    assert images[0].tobytes() == images[1].tobytes()


@pytest.mark.parametrize("size", [(1, 1), (700, 5), (3, 900), (1500, 1100)])
def test_pictures_of_any_shape_are_edited(tmp_path: Path, store: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "odd.png"
    PIL.Image.open(PICTURE).resize(size).convert("RGBA").save(path)
    done = graphflow.load("prompt_swap", store=store, device="cpu").run(image=path, steps=2)
    assert done["image"].size == (SHIPPED.size, SHIPPED.size)


def test_missing_models_are_listed_before_anything_runs(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    arguments = ["run", "pix2pix_on_the_fly", "--models", "sd15", "--store", str(store), "--out", str(tmp_path / "out")]
    assert command(arguments) == 5
    said = capsys.readouterr().err
    for role in ("vae", "denoiser", "text_encoder", "captioner", "llm"):
        assert f"  {role}: " in said
    assert "  clip: " not in said, "scores can do without it: they are not available then"
    assert "graphflow models pull sd15" in said
    assert not (tmp_path / "out" / "image.png").exists()


def test_an_instruction_that_means_nothing_fails_with_words(store: Path) -> None:
    session = graphflow.load("pix2pix_on_the_fly", store=store, device="cpu")
    try:
        done = session.run(steps=2, instruction="colourless green ideas sleep furiously")
    except NodeError as error:
        assert "captions" in str(error)  # noqa: PT017  either outcome is honest, a traceback or a blank is not
    else:
        assert all(text.strip() for text in [*done["before"], *done["after"]])
