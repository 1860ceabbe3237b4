"""Peak memory of each method, watched while its pictures are computed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from graphflow.bench.names import owner_of
from graphflow.events import Event, NodeFinished, NodeStarted

_INDEX = re.compile(r"\[[^\]]*\]")
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Listens to a run. On a GPU: memory that was allocated there; on the CPU: resident memory of the process (Linux).

    Loaded models are part of both. Nothing is known of methods whose pictures all came from the store, nor on other
    systems.

    Attributes:
        peaks: method → bytes.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.peaks: dict[str, int] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, NodeStarted | NodeFinished):
            what, method = owner_of(_INDEX.sub("", event.node))
            if what != "method":
                return
            if isinstance(event, NodeStarted):
                self.reset()
            elif event.how == "ran" and (peak := self.read()) is not None:
                self.peaks[method] = max(self.peaks.get(method, 0), peak)

    def reset(self) -> None:
        """Forget the peak so far."""
        if self.device.startswith("cuda"):
            if torch := sys.modules.get("torch"):
                torch.cuda.reset_peak_memory_stats(self.device)
            return
        try:
            _RESET.write_text("5")  # resets VmHWM, see proc(5)
        except OSError:
            self.device = ""  # unknown from here on: a peak that can't be reset is not this method's

    def read(self) -> int | None:
        """The peak since the last reset; None when this system does not tell."""
        if self.device.startswith("cuda"):
            torch = sys.modules.get("torch")
            return int(torch.cuda.max_memory_allocated(self.device)) if torch else None
        if not self.device:
            return None
        found = re.search(r"VmHWM:\s*(\d+) kB", _STATUS.read_text(encoding="ascii"))
        return int(found[1]) * 1024 if found else None
