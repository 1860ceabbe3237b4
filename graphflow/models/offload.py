"""Running a model that is larger than the device: diffusers' group offloading, which leaves results as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


def offload(roots: Sequence[nn.Module], device: torch.device) -> bool:
    """Let the weights wait in host memory and each layer's come to the device while it computes.

    Args:
        roots: networks in host memory.
        device: where they compute.

    Returns:
        Whether it could be done. When not, the networks are as they were, and not on the device.
    """
    from diffusers.hooks import HookRegistry, apply_group_offloading

    try:
        for root in roots:
            # Without streams: the library finds the order of the layers, which prefetching on a stream needs, by
            # watching the whole network's forward, and wrappers call parts of networks too.
            apply_group_offloading(root, device, torch.device("cpu"), "leaf_level")
            _follow(root, device)
    except (ValueError, NotImplementedError):
        for root in roots:
            HookRegistry.check_if_exists_or_initialize(root).remove_hook("group_offloading", recurse=True)
        return False
    return bool(roots)


def _follow(root: nn.Module, device: torch.device) -> None:
    """Inputs come to the device before anything else is made of them, such as masks on the inputs' device."""
    from accelerate.utils import send_to_device

    def before(module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        return send_to_device(args, device), send_to_device(kwargs, device)

    for module in root.modules():
        if next(module.children(), None) is not None:
            module.register_forward_pre_hook(before, with_kwargs=True)
