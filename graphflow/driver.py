"""What the NVIDIA driver says about its GPUs, asked through its C libraries: importing torch would take seconds.

CUDA's driver library counts and names the devices that this process may use; free memory is asked of the management
library (NVML), since CUDA tells it only to a process that has set up a context on the GPU.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CUDA = ("libcuda.so.1", "nvcuda.dll")
MANAGEMENT = ("libnvidia-ml.so.1", "nvml.dll")
_BUS = Path("/sys/bus/pci/devices")
_NVIDIA, _DISPLAY = "0x10de", "0x03"  # the PCI vendor, and how the class of a display controller begins
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


@dataclass(frozen=True)
class Gpu:
    """A GPU: bytes of memory in all and free now (None: unknown), and its compute capability, such as (9, 0)."""

    name: str
    memory: int
    free: int | None
    capability: tuple[int, int]


class _Memory(ctypes.Structure):
    """nvmlMemory_t."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def library(names: tuple[str, ...]) -> Any | None:
    """The first of several libraries that is there."""
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def count() -> int:
    """How many GPUs this process may use; 0 without a driver."""
    cuda = library(CUDA)
    found = ctypes.c_int()
    if cuda is None or cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(found)):
        return 0
    return found.value


def cuda_version() -> tuple[int, int] | None:
    """The newest CUDA that the driver can run, such as (12, 8); None without a driver."""
    cuda = library(CUDA)
    found = ctypes.c_int()
    if cuda is None or cuda.cuDriverGetVersion(ctypes.byref(found)):
        return None
    return found.value // 1000, found.value % 1000 // 10


def gpus() -> list[Gpu]:
    """The GPUs that this process may use, in the order of ``cuda:0``, ``cuda:1``, …"""
    cuda = library(CUDA)
    return [_gpu(cuda, number) for number in range(count())]


def cards() -> int:
    """How many NVIDIA GPUs Linux sees on the bus, whether or not there is a driver for them."""
    return sum(_id(card, "vendor") == _NVIDIA and _id(card, "class").startswith(_DISPLAY) for card in _BUS.glob("*"))


def _id(card: Path, what: str) -> str:
    try:
        return (card / what).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _gpu(cuda: Any, number: int) -> Gpu:
    device, total, name = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(256)
    cuda.cuDeviceGet(ctypes.byref(device), number)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(total), device)
    capability = _attribute(cuda, _MAJOR, device), _attribute(cuda, _MINOR, device)
    return Gpu(name.value.decode(errors="replace"), total.value, _free(cuda, device), capability)


def _attribute(cuda: Any, which: int, device: Any) -> int:
    found = ctypes.c_int()
    cuda.cuDeviceGetAttribute(ctypes.byref(found), which, device)
    return found.value


def _free(cuda: Any, device: Any) -> int | None:
    """Free bytes; the two libraries number GPUs differently, their place on the bus is the same."""
    management = library(MANAGEMENT)
    place, handle, memory = ctypes.create_string_buffer(32), ctypes.c_void_p(), _Memory()
    if management is None or management.nvmlInit_v2() or cuda.cuDeviceGetPCIBusId(place, len(place), device):
        return None
    try:
        if management.nvmlDeviceGetHandleByPciBusId_v2(place, ctypes.byref(handle)):
            return None
        return None if management.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) else int(memory.free)
    finally:
        management.nvmlShutdown()
