"""What `graphflow doctor` finds: devices by a stand-in for the driver, software, store and models; and what to do."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from fake_driver import GIB, FakeCuda, FakeManagement, install
from hub_server import Hub, running_hub

from graphflow import devices, driver, machine, registry
from graphflow.cli import run as graphflow
from graphflow.cli.findings import Finding, cuda_dtypes, findings

H100 = ("NVIDIA H100", 80 * GIB, (9, 0))
T4 = ("Tesla T4", 15 * GIB, (7, 5))


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, None)
    monkeypatch.setattr(driver, "_BUS", tmp_path / "no bus")


def found(folder: Path) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings(folder)}


def torch_is(monkeypatch: pytest.MonkeyPatch, version: str | None, build: str | None, vision: Any = None) -> None:
    """Let torch, and torchvision with (version, build), be the installed ones."""
    versions, builds = {"torch": version}, {"torch": build}
    versions["torchvision"], builds["torchvision"] = vision or (None, None)
    real = devices.package_version
    monkeypatch.setattr(devices, "package_version", lambda n: versions[n] if n in versions else real(n))
    monkeypatch.setattr(devices, "torch_build", lambda package="torch": builds[package])


def test_gpus_that_torch_can_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch_is(monkeypatch, "2.13.0", "cuda 12.8")
    free = {"0000:00:00.0": 70 * GIB, "0000:01:00.0": 14 * GIB}
    install(monkeypatch, FakeCuda([H100, T4]), FakeManagement(free))
    rows = found(tmp_path)
    assert rows["cuda:0 (default)"].found == (
        "NVIDIA H100, 80.0 GiB of memory (70.0 GiB free), compute capability 9.0: float32, bfloat16, float16"
    )
    assert rows["cuda:1"].found == (
        "Tesla T4, 15.0 GiB of memory (14.0 GiB free), compute capability 7.5: float32, float16"
    )
    assert rows["torch"].found == "2.13.0, a build for cuda 12.8"
    assert {rows[name].state for name in ("cuda:0 (default)", "cuda:1", "torch")} == {"good"}
    assert "cpu" in rows, "the CPU is not the default then"


def test_a_gpu_beside_a_torch_for_cpus_says_how_to_mend_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch_is(monkeypatch, "2.13.0+cpu", None)
    install(monkeypatch, FakeCuda([H100]))
    row = found(tmp_path)["cuda:0"]
    assert (row.state, row.found) == (
        "todo", "NVIDIA H100, 80.0 GiB of memory, compute capability 9.0: float32, bfloat16, float16",
    )  # fmt: skip
    assert row.todo == (
        "it can't be used: torch 2.13.0+cpu is a build for CPUs only: install one for CUDA, see pytorch.org/get-started"
    )


def test_an_old_driver_says_what_it_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch_is(monkeypatch, "2.13.0", "cuda 13.0")
    install(monkeypatch, FakeCuda([T4], version=12040))
    assert "needs a driver for cuda 13.0, this one runs CUDA 12.4: update the driver" in found(tmp_path)["cuda:0"].todo


def test_a_gpu_without_a_driver_is_seen_on_the_bus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, vendor, kind in (("0", "0x10de", "0x030200"), ("1", "0x10de", "0x040300"), ("2", "0x8086", "0x030000")):
        (tmp_path / "bus" / name).mkdir(parents=True)
        (tmp_path / "bus" / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / "bus" / name / "class").write_text(f"{kind}\n")
    monkeypatch.setattr(driver, "_BUS", tmp_path / "bus")
    row = found(tmp_path)["cuda"]
    assert row.found == "1 NVIDIA GPU in this machine, but the driver does not answer"
    assert "--gpus all" in row.todo


@pytest.mark.parametrize(
    ("capability", "dtypes"),
    [((9, 0), ["float32", "bfloat16", "float16"]), ((8, 0), ["float32", "bfloat16", "float16"]),
     ((7, 5), ["float32", "float16"]), ((5, 2), ["float32"])],
)  # fmt: skip
def test_types_that_a_gpu_computes_in(capability: tuple[int, int], dtypes: list[str]) -> None:
    assert cuda_dtypes(capability) == dtypes


def test_the_cpu_says_what_it_can_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "memory", lambda: machine.Memory(64 * GIB, 48 * GIB))
    monkeypatch.setattr(machine, "cores", lambda: 16)
    monkeypatch.setattr(machine, "cpu_name", lambda: "EPYC")
    monkeypatch.setattr(machine, "cpu_features", lambda: ["AVX2", "AVX-512 BF16"])
    row = found(tmp_path)["cpu (default)"]
    assert row.found == "EPYC, 16 cores, 64.0 GiB of memory (48.0 GiB free), AVX2, AVX-512 BF16"
    assert row.facts["dtypes"] == ["float32", "bfloat16"]
    monkeypatch.setattr(machine, "cpu_features", lambda: ["AVX2"])
    row = found(tmp_path)["cpu (default)"]
    assert row.found.endswith("AVX2 (bfloat16 is slow here)")
    assert row.facts["dtypes"] == ["float32"]


def test_without_torch_runs_can_not_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch_is(monkeypatch, None, None)
    assert graphflow(["doctor", "--store", str(tmp_path)]) == 1
    text = capsys.readouterr().out
    assert "✗ torch" in text
    assert "→ pip install 'graphflow-diffusion[diffusion]'" in text


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = devices.package_version
    monkeypatch.setattr(devices, "package_version", lambda n: None if n == "transformers" else real(n))
    row = found(tmp_path)["libraries"]
    assert (row.state, row.found) == ("bad", "not installed: transformers")


@pytest.mark.parametrize(
    ("torch", "vision", "state", "says"),
    [
        (("2.13.0+cpu", None), ("0.28.0", "cuda 13.0"), "note", "can't be loaded beside this torch"),
        (("2.13.0+cpu", None), ("0.28.0+cpu", None), "good", "0.28.0+cpu"),
        (("2.12.0", "cuda 13.0"), ("0.28.0", "cuda 13.0"), "todo", "0.28.0 is for torch 2.13.0, installed is 2.12.0"),
        (("2.12.0", "cuda 13.0"), None, "good", "not installed: only the metrics need it"),
    ],
)
def test_torchvision_must_fit_torch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, torch: Any, vision: Any, state: str, says: str
) -> None:
    torch_is(monkeypatch, *torch, vision)
    monkeypatch.setattr("importlib.metadata.requires", lambda package: ["numpy", "torch (==2.13.0)"])
    row = found(tmp_path)["torchvision"]
    assert (row.state, says in row.found) == (state, True), row


def test_a_store_that_can_not_be_opened_is_bad(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("no folder")
    assert graphflow(["doctor", "--store", str(tmp_path / "file")]) == 1
    assert "--store or GRAPHFLOW_STORE" in " ".join(capsys.readouterr().out.split())


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(total=100 * GIB, free=2**20))
    row = found(tmp_path)["store"]
    assert (row.state, row.facts["free"]) == ("todo", 2**20)
    assert row.todo.startswith("make room")


def test_a_broken_pack_is_named_and_runs_still_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(registry.broken_packs, "blur", "ImportError: no module")
    assert graphflow(["doctor", "--store", str(tmp_path)]) == 0
    assert "the pack blur is broken: ImportError: no module" in " ".join(capsys.readouterr().out.split())


def test_presets_tell_what_is_here_what_is_missing_and_how_to_get_it(tmp_path: Path) -> None:
    rows = found(tmp_path)
    assert rows["models pocket"].state == "good"
    assert rows["models pocket"].facts["missing"] == []
    assert min(rows["models pocket"].facts["bytes"].values()) > 0
    sd15 = rows["models sd15"]
    assert (sd15.state, sd15.todo) == ("note", "graphflow models pull sd15")
    assert "about 18 GB" in sd15.found
    assert rows["models hive"].todo == (
        "instruct_denoiser: hive.yaml says where to get what the hub does not have; "
        "graphflow models pull hive gets the others"
    )


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in ("HF_HUB_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with running_hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def preset_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Let there be one shipped preset."""
    file = tmp_path / "mine.yaml"
    file.write_text(f"graphflow-preset: 1\ntitle: Mine\nspace: mine\nmodels:\n{text}")
    monkeypatch.setattr("graphflow.models.preset.shipped_presets", lambda: {"mine": file})


def test_the_hub_tells_how_much_there_is_to_download(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "saved"
    (saved / "vae").mkdir(parents=True)
    (saved / "vae" / "config.json").write_bytes(b"{}" * 512)
    (saved / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"0" * 4096)
    (saved / "README.md").write_bytes(b"what nobody needs")
    hub.add("owner/name", saved)
    preset_of(tmp_path, monkeypatch, "  vae: {loader: diffusers.vae, hub: owner/name, revision: main, part: vae}\n")
    assert graphflow(["doctor", "--online", "--json", "--store", str(tmp_path / "store")]) == 0
    row = next(r for r in json.loads(capsys.readouterr().out)["checks"] if r["name"] == "models mine")
    assert (row["found"], row["facts"]["download"]) == ("no model is here: Mine; 5.0 KiB to download", 5120)
    hub.requests.clear()
    assert "download" not in found(tmp_path / "store")["models mine"].facts
    assert hub.requests == [], "nobody is asked without --online"


def test_a_hub_that_does_not_answer_leaves_the_size_open(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset_of(tmp_path, monkeypatch, "  vae: {loader: diffusers.vae, hub: no/where, revision: main, part: vae}\n")
    rows = {finding.name: finding for finding in findings(tmp_path / "store", online=True)}
    assert rows["models mine"].facts["download"] is None
    assert "the size is not known: no/where" in rows["models mine"].found


def test_a_model_larger_than_the_device_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "memory", lambda: machine.Memory(2**20, 2**19))
    row = found(tmp_path)["models pocket"]
    assert row.state == "todo"
    assert row.todo == "the largest exceeds the memory of cpu, 1.0 MiB: --dtype bfloat16 takes half of it"


def test_json_has_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert graphflow(["doctor", "--json", "--store", str(tmp_path)]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["works"] is True
    rows = {row["name"]: row for row in data["checks"]}
    assert rows["store"]["facts"]["folder"] == str(tmp_path)
    assert rows["cpu (default)"]["facts"]["cores"] >= 1
    assert set(rows["torch"]["facts"]) == {"version", "build"}


def test_the_doctor_imports_no_torch(tmp_path: Path) -> None:
    code = f"from graphflow.cli import run; run(['doctor', '--store', {str(tmp_path)!r}]); import sys"
    check = f"{code}; assert not {{'torch', 'torchvision', 'transformers', 'diffusers'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)
