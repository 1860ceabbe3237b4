"""Peak memory: of a GPU's allocator, or of the process (Linux)."""

from __future__ import annotations

import re
import sys
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Peak:
    """The highest use of memory since `reset`.

    On a GPU what was allocated there; on the CPU the resident memory of the process. Other systems don't tell.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self._known = device.startswith(("cuda", "cpu"))

    def reset(self) -> None:
        """Forget the peak so far."""
        if self.device.startswith("cuda"):
            if torch := sys.modules.get("torch"):
                torch.cuda.reset_peak_memory_stats(self.device)
            return
        try:
            _RESET.write_text("5")  # resets VmHWM, see proc(5)
        except OSError:
            self._known = False  # a peak that can't be reset is another node's

    def read(self) -> int | None:
        """The peak since the last reset in bytes; None when this system does not tell."""
        return self._read("VmHWM", "max_memory_allocated")

    def now(self) -> int | None:
        """What is in use at this moment."""
        return self._read("VmRSS", "memory_allocated")

    def _read(self, line: str, function: str) -> int | None:
        if not self._known:
            return None
        if self.device.startswith("cuda"):
            torch = sys.modules.get("torch")
            return int(getattr(torch.cuda, function)(self.device)) if torch else None
        found = re.search(rf"{line}:\s*(\d+) kB", _STATUS.read_text(encoding="ascii"))
        return int(found[1]) * 1024 if found else None
