"""A stand-in for NVIDIA's two libraries, which fills the pointers that it is given as they do."""

from __future__ import annotations

from typing import Any

GIB = 2**30


class FakeCuda:
    """libcuda: `gpus` are (name, memory, capability); CUDA `version` as a number, such as 12080."""

    def __init__(
        self, gpus: list[tuple[str, int, tuple[int, int]]], version: int = 13000, broken: bool = False
    ) -> None:
        self.gpus, self.version, self.broken = gpus, version, broken

    def cuInit(self, flags: int) -> int:
        return 999 if self.broken else 0

    def cuDeviceGetCount(self, out: Any) -> int:
        out._obj.value = len(self.gpus)
        return 0

    def cuDriverGetVersion(self, out: Any) -> int:
        out._obj.value = self.version
        return 0

    def cuDeviceGet(self, out: Any, number: int) -> int:
        out._obj.value = number
        return 0

    def cuDeviceGetName(self, out: Any, length: int, device: Any) -> int:
        out.value = self.gpus[device.value][0].encode()
        return 0

    def cuDeviceTotalMem_v2(self, out: Any, device: Any) -> int:
        out._obj.value = self.gpus[device.value][1]
        return 0

    def cuDeviceGetAttribute(self, out: Any, which: int, device: Any) -> int:
        out._obj.value = self.gpus[device.value][2][which - 75]
        return 0

    def cuDeviceGetPCIBusId(self, out: Any, length: int, device: Any) -> int:
        out.value = f"0000:{device.value:02X}:00.0".encode()
        return 0


class FakeManagement:
    """libnvidia-ml: `free` by place on the bus."""

    def __init__(self, free: dict[str, int]) -> None:
        self.free, self.open = free, 0

    def nvmlInit_v2(self) -> int:
        self.open += 1
        return 0

    def nvmlShutdown(self) -> int:
        self.open -= 1
        return 0

    def nvmlDeviceGetHandleByPciBusId_v2(self, place: Any, out: Any) -> int:
        if place.value.decode() not in self.free:
            return 6
        out._obj.value = list(self.free).index(place.value.decode()) + 1
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle: Any, out: Any) -> int:
        out._obj.free = list(self.free.values())[handle.value - 1]
        return 0


def install(monkeypatch: Any, cuda: FakeCuda | None, management: FakeManagement | None = None) -> None:
    """Let `graphflow.driver` find these libraries and no others."""
    from graphflow import driver

    found = {driver.CUDA: cuda, driver.MANAGEMENT: management}
    monkeypatch.setattr(driver, "library", found.__getitem__)
