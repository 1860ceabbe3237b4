"""Which devices there are, and what torch can do with them: told by drivers and files, never by torch itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fake_driver import GIB, FakeCuda, FakeManagement, install

from graphflow import devices, driver, machine
from graphflow.errors import UsageError

TWO = [("NVIDIA H100", 80 * GIB, (9, 0)), ("Tesla T4", 15 * GIB, (7, 5))]


@pytest.fixture
def torch_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Lets packages with a given text of version.py be the installed ones."""

    def install(build: str, package: str = "torch") -> None:
        folder = tmp_path / package
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").write_text("raise ImportError('nobody may import this')\n")
        (folder / "version.py").write_text(build)
        monkeypatch.delitem(sys.modules, package, raising=False)
        monkeypatch.syspath_prepend(tmp_path)

    return install


CUDA_BUILD = "__version__ = '2.13.0'\ncuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n"
CPU_BUILD = "__version__ = '2.13.0'\ncuda: Optional[str] = None\nhip: Optional[str] = None\nxpu: Optional[str] = None\n"


def test_without_a_driver_the_cpu_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, None)
    assert (devices.resolve("auto"), devices.cuda_devices(), driver.gpus(), driver.cuda_version()) == (
        "cpu",
        0,
        [],
        None,
    )
    assert devices.resolve_all("all") == ["cpu"]


def test_a_driver_that_does_not_start_has_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeCuda(TWO, broken=True))
    assert (driver.count(), driver.gpus()) == (0, [])


def test_gpus_are_told_with_memory_and_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    management = FakeManagement({"0000:01:00.0": 3 * GIB, "0000:00:00.0": 70 * GIB})  # in another order than CUDA's
    install(monkeypatch, FakeCuda(TWO, version=12080), management)
    assert driver.gpus() == [
        driver.Gpu("NVIDIA H100", 80 * GIB, 70 * GIB, (9, 0)), driver.Gpu("Tesla T4", 15 * GIB, 3 * GIB, (7, 5)),
    ]  # fmt: skip
    assert driver.cuda_version() == (12, 8)
    assert management.open == 0


@pytest.mark.parametrize("management", [None, FakeManagement({})])
def test_free_memory_may_be_unknown(monkeypatch: pytest.MonkeyPatch, management: FakeManagement | None) -> None:
    install(monkeypatch, FakeCuda(TWO), management)
    assert [gpu.free for gpu in driver.gpus()] == [None, None]


def test_a_gpu_is_used_when_torch_was_built_for_it(monkeypatch: pytest.MonkeyPatch, torch_for) -> None:
    install(monkeypatch, FakeCuda(TWO, version=12040))
    torch_for(CUDA_BUILD)
    assert (devices.torch_build(), devices.cuda_problem(), devices.cuda_devices()) == ("cuda 12.8", None, 2)
    assert devices.resolve("auto") == "cuda"
    assert devices.resolve_all("auto") == ["cuda"]
    assert devices.resolve_all("all") == ["cuda:0", "cuda:1"]
    assert (devices.memory_of("cuda"), devices.memory_of("cuda:1"), devices.memory_of("cuda:2")) == (
        80 * GIB, 15 * GIB, None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("build", "version", "says"),
    [
        (CPU_BUILD, 13000, "a build for CPUs only: install one for CUDA"),
        (
            CPU_BUILD.replace("hip: Optional[str] = None", "hip: Optional[str] = '6.4.1'"),
            13000,
            "a build for rocm 6.4.1",
        ),
        (CUDA_BUILD, 11080, "needs a driver for cuda 12.8, this one runs CUDA 11.8"),
    ],
)
def test_a_gpu_that_torch_can_not_use_says_why(
    monkeypatch: pytest.MonkeyPatch, torch_for, build: str, version: int, says: str
) -> None:
    install(monkeypatch, FakeCuda(TWO, version=version))
    torch_for(build)
    assert says in (devices.cuda_problem() or "")
    assert (devices.cuda_devices(), devices.resolve("auto")) == (0, "cpu")
    with pytest.raises(UsageError, match="--device cuda:0: torch"):
        devices.check_present(["cuda:0"])


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, torch_for) -> None:
    torch_for(CUDA_BUILD)
    install(monkeypatch, FakeCuda(TWO))
    devices.check_present(["cuda:0", "cuda:1"])
    with pytest.raises(UsageError, match=r"cuda:2: this process may use only 2 CUDA"):
        devices.check_present(["cuda:1", "cuda:2"])
    install(monkeypatch, None)
    devices.check_present(["cpu", "mps"])
    with pytest.raises(UsageError, match="finds no GPU here"):
        devices.check_present(["cuda"])


def test_the_build_is_read_without_importing(torch_for) -> None:
    torch_for("__version__ = '0.28.0+cu130'\nfrom torchvision.extension import _check_cuda_version\n", "torchvision")
    assert devices.torch_build("torchvision") == "cuda 13.0"
    assert devices.torch_build("no_such_package") is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("cpu", ["cpu"]), ("cuda:1", ["cuda:1"]), ("cuda:0,cuda:1", ["cuda:0", "cuda:1"]), ("cuda, cuda:1",
        ["cuda:0", "cuda:1"]), ("cpu,cpu", ["cpu:0", "cpu:1"]), ("cuda:2,cuda:0", ["cuda:2", "cuda:0"]),
    ],
)  # fmt: skip
def test_several_devices_are_numbered(text: str, found: list[str]) -> None:
    assert devices.resolve_all(text) == found


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tpu", "expected auto, cpu"), ("cuda:0,tpu", "'tpu' is no device"), ("cuda:0,", "'' is no device"),
        ("auto,cpu", "'auto' is no device"), ("cpu,cuda:0", "devices of one kind"),
        ("cuda,cuda:0", "cuda:0 stands twice"),
    ],
)  # fmt: skip
def test_a_wrong_list_of_devices_says_why(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        devices.resolve_all(text)


def test_the_memory_of_a_cpu_is_that_of_the_container(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "_GROUP", tmp_path)
    whole = machine.memory()
    assert whole is not None
    assert whole.total > 2**27
    (tmp_path / "memory.max").write_text("67108864\n")
    (tmp_path / "memory.current").write_text("17108864\n")
    assert machine.memory() == machine.Memory(67108864, 50000000)
    assert devices.memory_of("cpu:1") == devices.memory_of("cpu") == 67108864
    (tmp_path / "memory.max").write_text("max\n")
    assert devices.memory_of("cpu") == whole.total
    assert devices.memory_of("xpu") is None


def test_what_the_cpu_can_do_is_read_from_its_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {
        "x86": "model name\t: An EPYC\nflags\t\t: fpu avx2 avx512f amx_bf16\n",
        "arm": "Features\t: fp asimd bf16\n",
    }
    for kind, features in (("x86", ["AVX2", "AVX-512", "AMX BF16"]), ("arm", ["NEON", "BF16"])):
        monkeypatch.setattr(machine, "_text", lambda path, kind=kind: texts[kind])
        assert machine.cpu_features() == features
    assert machine.cores() >= 1


def test_nothing_of_this_imports_torch() -> None:
    code = "from graphflow import devices; devices.resolve('auto'); devices.memory_of('cpu'); devices.torch_build()"
    check = f"{code}; import sys; assert 'torch' not in sys.modules and 'ctypes' in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)
