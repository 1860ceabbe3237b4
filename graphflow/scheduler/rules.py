"""Rules by which a look-ahead chooses, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

ENDLESS, SOME = float("inf"), 10.0


Urgency = Literal["path", "graph", "element"]


class Rule(NamedTuple):
    """How to choose.

    Attributes:
        urgency: which ready task goes first: that with the longest ``path`` behind it, that which stands first in the
            ``graph``, all elements of a map together, or that of the first ``element``, with its longest path.
        switch: which models come when no ready task has its own: those that no task will miss later (``closed``),
            those of the most ``urgent`` task, or those with the most ready ``work`` for the time that they take.
        patience: a device waits for work that is coming for its models, rather than to exchange them, unless the work
            that is ready for others takes so many times as long as the exchange.
    """

    urgency: Urgency = "path"
    switch: Literal["closed", "urgent", "work"] = "closed"
    patience: float = ENDLESS


RULES = [  # for one device
    *(Rule("path", switch) for switch in ("closed", "urgent", "work")),
    *(Rule("graph", switch) for switch in ("closed", "urgent", "work")),
    *(Rule("element", switch) for switch in ("closed", "urgent", "work")),
    *(Rule("path", switch, SOME) for switch in ("closed", "work")),
]
SEVERAL_RULES = [  # for several
    Rule("path", "closed", SOME), Rule("path", "work", SOME), Rule("graph", "closed", SOME), Rule("path", "closed"),
    Rule("element", "closed", SOME),
]  # fmt: skip


@dataclass
class Order:
    """What was found.

    Attributes:
        sequences: for each device its tasks, in order; together all that are left.
        seconds: how long it takes.
        loads: how many models are brought onto devices.
    """

    sequences: list[list[int]]
    begun: list[tuple[int, int]] = field(default_factory=list)  # task and device, in the order in which they begin
    seconds: float = 0.0
    loads: int = 0
    evictions: int = 0
