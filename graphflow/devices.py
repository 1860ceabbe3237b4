"""Which devices a run uses, and what torch can do with them, found without importing torch."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

from graphflow import driver, machine
from graphflow.errors import UsageError

_DEVICE = re.compile(r"(cpu|cuda|mps|xpu)(:\d+)?")
DTYPES = ("float32", "bfloat16", "float16")
EXPECTED = "expected auto, cpu, cuda, cuda:1, mps or xpu"


def resolve(device: str) -> str:
    """The device that a user means: ``auto`` is the first CUDA GPU if there is one, else the CPU.

    Raises:
        UsageError: the name is no device.
    """
    if device == "auto":
        return "cuda" if cuda_devices() else "cpu"
    if not _DEVICE.fullmatch(device):
        raise UsageError(f"--device {device}: {EXPECTED}")
    return device


def resolve_all(text: str) -> list[str]:
    """The devices that a user means: one, several separated by commas, or ``all`` CUDA GPUs.

    ``auto`` is one device, as of `resolve`. Of several each has a number; ``cpu,cpu`` are ``cpu:0`` and ``cpu:1``, two
    workers on one CPU.

    Raises:
        UsageError: a name is no device, stands twice, or the devices are not of one kind, whose results could differ.
    """
    if text == "all":
        return [f"cuda:{number}" for number in range(cuda_devices())] or ["cpu"]
    names = [name.strip() for name in text.split(",")]
    if len(names) == 1:
        return [resolve(names[0])]
    kinds = set()
    for name in names:
        if not _DEVICE.fullmatch(name):
            raise UsageError(f"--device {text}: '{name}' is no device of a list; expected such as cuda:0,cuda:1")
        kinds.add(name.partition(":")[0])
    if len(kinds) > 1:
        raise UsageError(f"--device {text}: expected devices of one kind, since results depend on it")
    if kinds == {"cpu"}:
        return [f"cpu:{number}" for number in range(len(names))]
    numbered = [name if ":" in name else f"{name}:0" for name in names]
    if twice := [name for name in numbered if numbered.count(name) > 1]:
        raise UsageError(f"--device {text}: {twice[0]} stands twice")
    return numbered


def several(text: str) -> str:
    """`resolve_all` as one text, with commas."""
    return ",".join(resolve_all(text))


def check_present(devices: Sequence[str]) -> None:
    """Check that the GPUs which a run is to use are there, as far as the driver tells.

    Raises:
        UsageError: one is not, and why.
    """
    wanted = [device for device in devices if device.startswith("cuda")]
    if not wanted:
        return
    there = cuda_devices()
    for device in wanted:
        if int(device.partition(":")[2] or 0) >= there:
            raise UsageError(f"--device {device}: {cuda_problem() or f'this process may use only {there} CUDA GPU(s)'}")


def cuda_devices() -> int:
    """How many CUDA GPUs this process could use; 0 when torch can't. Asks the driver, not torch."""
    there = driver.count()
    return there if there and cuda_problem(there) is None else 0


def cuda_problem(there: int | None = None) -> str | None:
    """Why torch can use no CUDA GPU here, and what to do about it; None when it can.

    Args:
        there: how many the driver has, if that is known.
    """
    if not (driver.count() if there is None else there):
        return "the NVIDIA driver finds no GPU here"
    version, build = torch_version(), torch_build()
    if version is None:
        return "torch is not installed: pip install 'graphflow-diffusion[diffusion]'"
    if build is None or not build.startswith("cuda"):
        what = f"a build for {build}" if build else "a build for CPUs only"
        return f"torch {version} is {what}: install one for CUDA, see pytorch.org/get-started"
    newest = driver.cuda_version()
    if newest is not None and newest[0] < int(build.removeprefix("cuda ").partition(".")[0]):
        told = ".".join(map(str, newest))
        return f"torch {version} needs a driver for {build}, this one runs CUDA {told}: update the driver"
    return None


def memory_of(device: str) -> int | None:
    """Bytes of memory that a device has; of a CPU, what this process may use. None when nobody tells."""
    kind, _, number = device.partition(":")
    if kind == "cuda":
        found = driver.gpus()
        return found[int(number or 0)].memory if int(number or 0) < len(found) else None
    if kind == "xpu":
        return None
    memory = machine.memory()
    return memory.total if memory is not None else None


def torch_version() -> str | None:
    """The installed torch, or None."""
    return package_version("torch")


def package_version(name: str) -> str | None:
    """The version of an installed package, or None."""
    from importlib.metadata import PackageNotFoundError, version  # its import takes longer than asking the driver

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def torch_build(package: str = "torch") -> str | None:
    """What torch was built for: ``cuda 12.8``, ``rocm 6.4`` or ``xpu``; None for CPUs only, or when it is not there.

    Read in its file ``version.py``, as torchvision has one, too: a version alone tells it on some systems only.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    try:
        text = (Path(next(iter(spec.submodule_search_locations))) / "version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    for name, kind in (("cuda", "cuda "), ("hip", "rocm "), ("xpu", "xpu ")):
        if found := re.search(rf"(?m)^{name}\b[^=\n]*=\s*['\"]([\d.]+)", text):
            return kind + found[1]
    tag = re.search(r"(?m)^__version__\s*=\s*['\"][^'\"]*\+cu(\d+)(\d)['\"]", text)
    return f"cuda {tag[1]}.{tag[2]}" if tag else None
