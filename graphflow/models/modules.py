"""The networks inside a loaded model, whatever wraps them: found, measured and moved."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

# Their objects hold vocabularies and settings, and no weights outside of modules.
_FOREIGN = ("transformers", "diffusers", "tokenizers", "torch", "torchvision", "PIL", "numpy", "builtins", "httpx")


def roots_of(value: Any) -> list[nn.Module]:
    """The modules that a loaded model holds: itself, in its attributes, in containers, in wrappers inside wrappers."""
    return [found for found in _held(value) if isinstance(found, nn.Module)]


def _held(value: Any) -> Iterator[Any]:
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, nn.Module | Tensor):
            yield value
        elif isinstance(value, list | tuple | set):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
        elif hasattr(value, "__dict__") and type(value).__module__.partition(".")[0] not in _FOREIGN:
            waiting += vars(value).values()


def parts_of(roots: Iterable[nn.Module]) -> dict[int, nn.Module]:
    """All modules below the roots, each once, by identity."""
    return {id(module): module for root in roots for module in root.modules()}


def tensors_of(parts: Iterable[nn.Module]) -> Iterator[Tensor]:
    """Parameters and buffers of these modules themselves; one that is tied comes once for each module."""
    for part in parts:
        for named in (part._parameters, part._buffers):
            yield from (tensor for tensor in named.values() if tensor is not None)


def bytes_of(tensors: Iterable[Tensor], device: torch.device) -> int:
    """Bytes of the memory behind tensors on a device; memory that several share counts once."""
    storages = {}
    for tensor in tensors:
        if same_device(tensor.device, device):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr(), tensor.device] = storage.nbytes()
    return sum(storages.values())


def read_in(tensors: Iterable[Tensor]) -> None:
    """Read what is only mapped into memory so far: weights in the type of their file come from disk on first use."""
    for tensor in tensors:
        pages = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())[:: mmap.PAGESIZE]
        pages.sum()


def same_device(found: torch.device, wanted: torch.device) -> bool:
    """Whether both are the same; a device without a number is any of its kind, and host memory has no number."""
    return found.type == wanted.type and (found.index is None or wanted.index is None or found.index == wanted.index)


def move(parts: Iterable[nn.Module], moved: Callable[[Tensor], Tensor]) -> None:
    """Replace every parameter's and buffer's memory in place, so that whoever holds a module sees it moved.

    `nn.Module.to` is not used because it also moves the modules below, which another model may share.
    """
    for part in parts:
        for parameter in part._parameters.values():
            if parameter is not None:
                parameter.data = moved(parameter.data)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = moved(buffer)


def to_device(device: torch.device) -> Callable[[Tensor], Tensor]:
    """For `move`: copies to a device. The caller waits for the device before it uses the tensors."""
    return lambda tensor: tensor.to(device, non_blocking=True)


def to_host(pinned: bool) -> Callable[[Tensor], Tensor]:
    """For `move`: copies to host memory; pinned, where there is enough, so that the way back overlaps with work."""

    def moved(tensor: Tensor) -> Tensor:
        if not pinned or (tensor.device.type == "cpu" and tensor.is_pinned()):
            return tensor.to("cpu")
        try:
            host = torch.empty_like(tensor, device="cpu", pin_memory=True)
        except RuntimeError:  # memory that can't be swapped out is scarce
            return tensor.to("cpu")
        return host.copy_(tensor)

    return moved
