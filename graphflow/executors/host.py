"""Bringing what a node returned into host memory, in the device's own thread.

Values wait there for their takers: a device's memory holds models and what is being computed, as planned. They lie
there as they would if they came from the store: convolutions of tensors that lie otherwise differ in the last bits, and
a result must not depend on what has been evicted.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from graphflow.ports import Ports, ports_of

if TYPE_CHECKING:
    import torch


def to_host(out: Any) -> Any:
    """The same outputs with their tensors contiguous in host memory; waits until the device has computed them."""
    return out if "torch" not in sys.modules else with_tensors(out, _as_stored)


def _as_stored(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor as the store would give it back; itself, where that makes no difference."""
    if tensor.device.type == "cpu" and tensor.is_contiguous() and not tensor.requires_grad:
        return tensor
    return tensor.detach().cpu().contiguous()


def with_tensors(value: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    """A value with every tensor in it changed: in outputs, lists, tuples, mappings and dataclasses."""
    import torch

    def visit(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return change(value)
        if isinstance(value, Ports):
            return type(value)(**{name: visit(getattr(value, name)) for name in ports_of(type(value))})
        if type(value) in (list, tuple):
            return type(value)(visit(part) for part in value)
        if type(value) is dict:
            return {name: visit(part) for name, part in value.items()}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            changed = {f.name: visit(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
            same = all(changed[name] is getattr(value, name) for name in changed)
            return value if same else dataclasses.replace(value, **changed)
        return value

    return visit(value)
