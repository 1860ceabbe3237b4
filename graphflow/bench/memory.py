"""Peak memory of each method, watched while its pictures are computed."""

from __future__ import annotations

import re

from graphflow.bench.names import owner_of
from graphflow.events import Event, NodeFinished, NodeStarted
from graphflow.executors.peak import Peak

_INDEX = re.compile(r"\[[^\]]*\]")


class PeakMemory(Peak):
    """Listens to a run. On a GPU: memory that was allocated there; on the CPU: resident memory of the process (Linux).

    Loaded models are part of both. Nothing is known of methods whose pictures all came from the store, nor on other
    systems.

    Attributes:
        peaks: method → bytes.
    """

    def __init__(self, device: str) -> None:
        super().__init__(device)
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
