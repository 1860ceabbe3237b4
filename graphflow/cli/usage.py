"""How devices were used, counted from the events of a run: loads, memory and time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from graphflow import units
from graphflow.events import Event, ModelLoaded, NodeFinished, NodeStarted
from graphflow.timeline import HOST


@dataclass
class Usage:
    """A listener that adds up.

    Attributes:
        loads: how often a model came onto a device, and `bytes` how much that was.
        peak: the most memory that a node needed beside the weights; None where no device tells.
        seconds: device → computing time.
    """

    loads: int = 0
    bytes: int = 0
    peak: int | None = None
    seconds: Counter[str] = field(default_factory=Counter)
    _devices: dict[str, str] = field(default_factory=dict)
    _models: dict[tuple[str, str], float] = field(default_factory=dict)

    def __call__(self, event: Event) -> None:
        if isinstance(event, NodeStarted):
            self._devices[event.node] = event.device
        elif isinstance(event, NodeFinished):
            device = self._devices.pop(event.node, "")
            if event.how == "ran" and device not in ("", HOST):
                self.seconds[device] += event.seconds  # type: ignore[assignment]  # Counter adds floats as well
            if event.peak is not None:
                self.peak = max(self.peak or 0, event.peak)
        elif isinstance(event, ModelLoaded) and arrived(event):
            self.loads += 1
            self.bytes += event.bytes

    def took(self, event: ModelLoaded) -> float | None:
        """Seconds from disk onto the device; None while the model is on its way, and when it has been there before."""
        key = event.name, event.device
        if not arrived(event):
            self._models[key] = event.seconds
            return None
        if key in self._models and self._models[key] < 0:
            return None
        before = self._models.get(key, 0.0)
        self._models[key] = -1.0
        return before + event.seconds

    def text(self) -> str:
        """``2 loads of 7.0 GiB · peak 2.0 GiB beside the weights · 5.50 s on cuda:0``; empty without loads."""
        if not self.loads:
            return ""
        parts = [units.plural(self.loads, "load") + (f" of {units.size(self.bytes)}" if self.bytes else "")]
        if self.peak is not None:
            parts.append(f"peak {units.size(self.peak)} beside the weights")
        parts += [f"{units.duration(seconds)} on {device}" for device, seconds in sorted(self.seconds.items())]
        return " · ".join(parts)


def arrived(event: ModelLoaded) -> bool:
    """Whether the model is on its device now, and not in host memory on the way to it."""
    return event.stage == "device" or event.device.partition(":")[0] == "cpu"
