"""Which device a run uses by default, found without importing torch."""

from __future__ import annotations

import ctypes
import re

from graphflow.errors import UsageError

_DEVICE = re.compile(r"(cpu|cuda|mps|xpu)(:\d+)?")
DTYPES = ("float32", "bfloat16", "float16")


def resolve(device: str) -> str:
    """The device that a user means: ``auto`` is the first CUDA GPU if there is one, else the CPU.

    Raises:
        UsageError: the name is no device.
    """
    if device == "auto":
        return "cuda" if cuda_devices() else "cpu"
    if not _DEVICE.fullmatch(device):
        raise UsageError(f"--device {device}: expected auto, cpu, cuda, cuda:1, mps or xpu")
    return device


def cuda_devices() -> int:
    """How many CUDA GPUs this process could use; 0 when torch is a CPU build. Asks the driver, not torch."""
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            driver = ctypes.CDLL(name)
            break
        except OSError:
            continue
    else:
        return 0
    if "+cpu" in (torch_version() or "+cpu"):
        return 0
    count = ctypes.c_int()
    found = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    return count.value if found else 0


def torch_version() -> str | None:
    """The installed torch, or None."""
    from importlib.metadata import PackageNotFoundError, version  # its import takes longer than asking the driver

    try:
        return version("torch")
    except PackageNotFoundError:
        return None
