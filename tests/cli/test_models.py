"""`graphflow models`: from an empty machine to a graph that runs offline."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoints import save_clip, save_sd
from hub_server import Hub, running_hub
from PIL import Image

from graphflow.cli import run as graphflow

WEIGHTS = "vae/diffusion_pytorch_model.safetensors"
PRESET = """graphflow-preset: 1
title: tiny
space: tiny
models:
  vae: {{loader: diffusers.vae, hub: owner/sd, revision: {sd}, part: vae}}
  denoiser: {{loader: diffusers.unet, hub: owner/sd, revision: {sd}, part: unet}}
  text_encoder:
    loader: transformers.clip_text
    hub: owner/sd
    revision: {sd}
    part: text_encoder
    options: {{tokenizer: tokenizer}}
  clip: {{loader: transformers.clip, hub: owner/clip, revision: {clip}, space: tiny-clip}}
"""
GRAPH = """graphflow: 1
inputs: {image: {type: Image}, text: {type: Text, default: a cat}}
models: tiny.yaml
nodes:
  encode: {uses: vae.encode, in: {image: inputs.image}}
  source: {uses: text.encode, in: {text: inputs.text}}
  invert: {uses: invert.ddim, in: {latents: encode.latents, cond: source.cond}, with: {num_inference_steps: 2}}
  edit:
    uses: denoise.ddim
    in: {noise: invert.noise, cond: source.cond}
    with: {num_inference_steps: 2, guidance_scale: 1}
  decode: {uses: vae.decode, in: {latents: edit.latents}}
outputs: {image: decode.image}
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("saved")
    save_sd(root / "sd")
    save_clip(root / "clip")
    return root


class Machine:
    """A user's machine: a folder with a preset and a graph, and a hub that it can reach."""

    def __init__(self, folder: Path, hub: Hub) -> None:
        self.folder, self.hub = folder, hub
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        self.env |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hf"), "GRAPHFLOW_STORE": str(folder / "store")}

    def __call__(self, *arguments: str, **env: str) -> Any:
        command = [sys.executable, "-c", "from graphflow.cli import main; main()", *arguments]
        return subprocess.run(command, cwd=self.folder, env=self.env | env, capture_output=True, text=True, timeout=300)

    @property
    def cache(self) -> Path:
        return self.folder / "hf" / "hub"


@pytest.fixture
def machine(tmp_path: Path, saved: Path) -> Iterator[Machine]:
    with running_hub() as hub:
        commits = {name: hub.add(f"owner/{name}", saved / name).commit for name in ("sd", "clip")}
        (tmp_path / "tiny.yaml").write_text(PRESET.format(**commits))
        (tmp_path / "graph.yaml").write_text(GRAPH)
        Image.effect_noise((64, 64), 60).convert("RGB").save(tmp_path / "cat.png")
        yield Machine(tmp_path, hub)


def test_pull_and_then_run_offline(machine: Machine) -> None:
    run = ("run", "graph.yaml", "-i", "image=cat.png", "--device", "cpu", "--out", "out")
    refused = machine(*run)
    assert refused.returncode == 5
    assert "graphflow models pull tiny.yaml" in refused.stderr
    pulled = machine("models", "pull", "tiny.yaml")
    assert pulled.returncode == 0, pulled.stderr
    assert pulled.stderr == "", "without a terminal nothing is drawn"
    commits = [machine.hub.repos[f"owner/{name}"].commit for name in ("sd", "clip")]
    assert pulled.stdout.splitlines() == [
        f"owner/{name}: {machine.cache}/models--owner--{name}/snapshots/{commit}"
        for name, commit in zip(("sd", "clip"), commits, strict=True)
    ]
    machine.hub.status = 503
    done = machine(*run, HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    assert Image.open(machine.folder / "out" / "image.png").size == (64, 64)
    assert machine("models", "pull", "tiny.yaml", "--offline").stdout == "all files are on this machine\n"
    listed = machine("models", "list", "tiny.yaml").stdout.splitlines()
    assert [line.split()[:2] for line in listed] == [
        [role, "ready"] for role in ("vae", "denoiser", "text_encoder", "clip")
    ]


@pytest.mark.parametrize("how", [["--offline"], []])
def test_offline_the_missing_files_are_listed(machine: Machine, how: list[str]) -> None:
    machine.hub.status = 500
    env = {} if how else {"HF_HUB_OFFLINE": "1"}
    refused = machine("models", "pull", "tiny.yaml", "vae", *how, **env)
    assert refused.returncode == 5
    assert refused.stderr.splitlines() == [
        "error: 2 files missing, and nothing is downloaded offline:",
        "  vae: owner/sd/vae/config.json",
        "  vae: owner/sd/vae/diffusion_pytorch_model*.safetensors",
    ]
    assert machine.hub.requests == []


def test_a_damaged_file_is_named_and_repaired(machine: Machine) -> None:
    assert machine("models", "pull", "tiny.yaml", "vae").returncode == 0
    (path,) = machine.cache.rglob(WEIGHTS)
    real = path.resolve()
    data = real.read_bytes()
    real.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    found = machine("models", "verify", "tiny.yaml", "vae")
    assert found.returncode == 1
    assert f"vae: {WEIGHTS}: its digest is " in found.stderr
    assert f"expected {real.name}" in found.stderr
    repaired = machine("models", "verify", "tiny.yaml", "vae", "--repair")
    assert repaired.returncode == 0, repaired.stderr
    assert real.read_bytes() == data
    sound = machine("models", "verify", "tiny.yaml", "vae")
    assert sound.returncode == 0
    assert "sound" in sound.stdout
    assert "2 with a known digest" in sound.stdout


def test_what_the_hub_refuses_is_said_in_a_line(machine: Machine) -> None:
    machine.hub.gated.add("owner/sd")
    refused = machine("models", "pull", "tiny.yaml", "vae")
    assert refused.returncode == 5
    assert refused.stderr.count("\n") == 1
    assert refused.stderr.startswith("error: owner/sd: vae/")
    assert "is gated: accept its terms" in refused.stderr


@pytest.mark.parametrize("command", ["pull", "verify", "list"])
def test_a_preset_that_is_not_there_is_named_as_typed(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert graphflow(["models", command, "nope"]) == 3
    assert capsys.readouterr().err.startswith(f"models {command} nope:1:1: GF120 there is no preset 'nope'")


def test_models_that_come_by_other_ways(machine: Machine) -> None:
    own = (
        "  vae: {loader: diffusers.vae, path: mine}\n  clip: {loader: transformers.clip, packaged: pocket/weights/clip}"
    )
    own += "\n  llm: {loader: openai, endpoint: 'http://localhost:8000/v1', options: {model: m}}"
    (machine.folder / "own.yaml").write_text(f"graphflow-preset: 1\nmodels:\n{own}\n")
    done = machine("models", "pull", "own.yaml")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"vae: {machine.folder / 'mine'} is to be put there by hand",
        "clip: pocket/weights/clip is here",
        "llm: http://localhost:8000/v1 is a service",
    ]
    unknown = machine("models", "pull", "own.yaml", "vaee")
    assert unknown.returncode == 2
    assert "it has: vae, clip, llm" in unknown.stderr
