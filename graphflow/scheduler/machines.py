"""The devices of a look-ahead: which models lie where, and what it takes to bring others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from graphflow.scheduler.board import Board
from graphflow.scheduler.tasks import Device, ModelSpec

Distance = Callable[[int], tuple[int, int]]  # how far away the next use of a model is


@dataclass
class Machine:
    """A device: bit set and bytes of its models, and the tasks that run there."""

    spec: Device
    mask: int = 0
    used: int = 0
    running: list[int] = field(default_factory=list)


class Machines:
    """All devices of a look-ahead, with one disk and the host memory that they share.

    Attributes:
        several: whether there is more than one device that is no host.
        loads, evictions: how many so far.
    """

    def __init__(
        self,
        board: Board,
        devices: Sequence[Device],
        resident: Mapping[str, Mapping[str, None]],
        models: Mapping[str, ModelSpec],
        on_host: Collection[str],
    ) -> None:
        bits = board.model_bits
        self.board = board
        self.specs = [models.get(m, ModelSpec(0)) for m in bits]
        self.machines = [Machine(d, sum(1 << bits[m] for m in resident[d.name] if m in bits)) for d in devices]
        for machine in self.machines:
            machine.used = self.bytes_of(machine.mask)
        self.several = sum(d.kind == "device" for d in devices) > 1
        self.loads = self.evictions = 0
        self._masks = Counter(m.mask for m in self.machines)
        self._on_host = sum(1 << bits[m] for m in on_host if m in bits)
        self._disk_free = 0.0
        self._any_host = any(d.kind == "host" for d in devices)
        self._any_device = any(d.kind == "device" for d in devices)

    def specs_of(self, mask: int) -> list[ModelSpec]:
        """The models of a bit set."""
        return [self.specs[bit] for bit in bits_of(mask)]

    def bytes_of(self, mask: int) -> int:
        """Their bytes together."""
        return sum(spec.bytes for spec in self.specs_of(mask))

    def cost(self, machine: Machine, mask: int) -> float:
        """Seconds to bring models to a device once they have been read; where memory is shared, reading included."""
        from_disk = machine.spec.shares_host
        return sum(s.transfer_seconds + (s.load_seconds if from_disk else 0.0) for s in self.specs_of(mask))

    def servers(self, group: int) -> int:
        """How many devices have all models of a group."""
        needed = self.board.group_mask[group]
        return sum(count for mask, count in self._masks.items() if not needed & ~mask)

    def takes(self, machine: Machine, group: int) -> bool:
        """Whether tasks of a group may run there."""
        if self.board.group_host[group]:
            return machine.spec.kind == "host" or not self._any_host
        return machine.spec.kind == "device" or not self._any_device

    def has_room(self, machine: Machine, group: int, memory: int) -> bool:
        """Whether a task can run with no model moved: also where the step alone exceeds the budget."""
        if memory == 0 or machine.spec.memory is None or machine.used + memory <= machine.spec.memory:
            return True
        return not machine.mask & ~self.board.group_mask[group]

    def victims(self, machine: Machine, group: int, memory: int, distance: Distance) -> list[int]:
        """The models that would have to go for a task of a group with so many bytes of activations."""
        if machine.spec.memory is None:
            return []
        keep = self.board.group_mask[group]
        lack = machine.used + self.bytes_of(keep & ~machine.mask) + memory - machine.spec.memory
        if lack <= 0:
            return []
        for number in machine.running:
            keep |= self.board.group_mask[self.board.group[number]]
        going = []
        for bit in sorted(bits_of(machine.mask & ~keep), key=distance, reverse=True):
            if lack <= 0:
                break
            going.append(bit)
            lack -= self.specs[bit].bytes
        return going

    def bring(self, machine: Machine, group: int, memory: int, distance: Distance, now: float) -> float:
        """Bring a group's models onto a device; returns when they are there."""
        self._masks[machine.mask] -= 1
        for bit in self.victims(machine, group, memory, distance):
            machine.mask &= ~(1 << bit)
            self.evictions += 1
            if machine.spec.shares_host:
                self._on_host &= ~(1 << bit)
        for bit in bits_of(self.board.group_mask[group] & ~machine.mask):
            if not self._on_host >> bit & 1:
                self._disk_free += self.specs[bit].load_seconds  # read ahead, one model after another
                now = max(now, self._disk_free)
                self._on_host |= 1 << bit
            now += self.specs[bit].transfer_seconds
            machine.mask |= 1 << bit
            self.loads += 1
        machine.used = self.bytes_of(machine.mask)
        self._masks[machine.mask] += 1
        return now


def bits_of(mask: int) -> list[int]:
    """The positions of the bits that are set."""
    out = []
    while mask:
        low = mask & -mask
        out.append(low.bit_length() - 1)
        mask ^= low
    return out
