"""What flows between host and device while code runs: counted on the meta device, which has shapes and no numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Traffic(TorchDispatchMode):
    """Counts what a device would be asked to do; tensors on the meta device stand for those on it.

    On a GPU each number that the host reads stops it until the device has caught up, and so do most copies.

    Attributes:
        kernels: operations that the device carries out.
        to_host: numbers and tensors that the host reads.
        to_device: tensors that are copied to the device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernels = self.to_host = self.to_device = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        on_device = any(x.is_meta for x in given)
        if on_device and name == "_local_scalar_dense":
            self.to_host += 1
            return 0.5
        if on_device and name == "_to_copy" and torch.device(kwargs.get("device") or "meta").type == "cpu":
            self.to_host += 1
            return torch.zeros(given[0].shape, dtype=kwargs.get("dtype") or given[0].dtype)
        out = func(*args, **kwargs)
        on_device = on_device or any(isinstance(x, Tensor) and x.is_meta for x in tree_leaves(out))
        if name in ("_to_copy", "copy_") and on_device and not all(x.is_meta for x in given):
            self.to_device += 1
        elif on_device and not getattr(func, "is_view", False):
            self.kernels += 1
        return out
