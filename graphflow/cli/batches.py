"""What has settled of each node since it was last told: instances of a mapped node share a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from graphflow import units
from graphflow.groups import grouped, node_of, title

How = Literal["ran", "cached", "failed", "skipped"]
WORDS: dict[How, str] = {"ran": "computed", "cached": "cached", "failed": "failed", "skipped": "not run"}


@dataclass
class Batch:
    """A node, or all instances of a mapped one.

    Attributes:
        total: how many instances there are; None while a list is not known.
        settled: those that have come to an end.
        names: those that have not been told yet; failures are told at once, and do not stand here.
        began: when the first of `names` settled, in seconds since the epoch.
    """

    total: int | None
    settled: set[str] = field(default_factory=set)
    names: list[str] = field(default_factory=list)
    counts: Counter[How] = field(default_factory=Counter)
    seconds: float = 0.0
    reason: str = ""
    began: float = 0.0

    @property
    def mapped(self) -> bool:
        """Whether there may be several instances."""
        return self.total != 1

    @property
    def complete(self) -> bool:
        """Whether all instances have settled."""
        return self.total is not None and len(self.settled) >= self.total

    @property
    def title(self) -> str:
        """The instances that have not been told."""
        return title(self.names)

    @property
    def outcome(self) -> str:
        """``1.20 s``, ``cached``, or ``28 computed in 33.6 s, 2 cached``."""
        if len(self.names) > 1:
            took = {"ran": f" in {units.duration(self.seconds)}"}
            return ", ".join(f"{n} {WORDS[how]}{took.get(how, '')}" for how in WORDS if (n := self.counts[how]))
        if self.counts["skipped"]:
            return f"not run: {self.reason}"
        return "cached" if self.counts["cached"] else units.duration(self.seconds)

    def clear(self) -> None:
        """Forget what has been told."""
        self.names, self.counts, self.seconds = [], Counter(), 0.0


class Batches:
    """All nodes of a run.

    Args:
        planned: the instances of the plan; ``…`` stands for those of a list that is not known yet.
    """

    def __init__(self, planned: Mapping[str, str]) -> None:
        self.counts: Counter[How] = Counter()
        self._nodes: dict[str, Batch] = {
            node: Batch(None if any("…" in n for n in names) else len(names))
            for node, names in grouped(planned).items()
        }  # fmt: skip

    def of(self, name: str) -> Batch:
        """The batch of an instance's node."""
        return self._nodes.setdefault(node_of(name), Batch(1))

    def settle(self, name: str, how: How, seconds: float, time: float, reason: str = "") -> None:
        """Enter the end of an instance; an instance that is computed again counts once."""
        batch = self.of(name)
        if name not in batch.settled:
            batch.settled.add(name)
            self.counts[how] += 1
        if how == "failed":
            return
        if not batch.names:
            batch.began = time - seconds
        batch.names.append(name)
        batch.counts[how] += 1
        batch.seconds += seconds
        batch.reason = reason

    def waiting(self, known: bool | None = None) -> Iterator[Batch]:
        """Batches that hold something untold; with `known` those whose number of instances is known, or is not."""
        for batch in self._nodes.values():
            if batch.names and (known is None or known == (batch.total is not None)):
                yield batch

    @property
    def place(self) -> str:
        """How many nodes have come to an end: `` 3/14``; ``3/14+`` while there are lists that are not known."""
        done = sum(self.counts.values())
        total = str(sum(max(1, len(b.settled)) if b.total is None else b.total for b in self._nodes.values()))
        more = "+" if any(b.total is None for b in self._nodes.values()) else ""
        return f"{done:>{len(total)}}/{total}{more}"

    def counted(self) -> str:
        """``5 computed, 9 cached``."""
        return ", ".join(f"{self.counts[how]} {word}" for how, word in WORDS.items() if self.counts[how])
