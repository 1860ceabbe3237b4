"""Running a model that is larger than the device: diffusers' group offloading, which leaves results as they are.

Weights wait in host memory, and each layer's come to the device while it computes. On a CPU device they wait on disk.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn


class Offloaded:
    """Networks whose weights come and go. `close` removes what lies on disk; the networks can't run after that."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def close(self) -> None:
        """Remove the files. May be called twice."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def offload(roots: Sequence[nn.Module], device: torch.device) -> Offloaded | None:
    """Attach the hooks of group offloading, layer by layer.

    Args:
        roots: networks in host memory.
        device: where they compute.

    Returns:
        None when there is nothing to offload, or the library can't do it with these networks or this device.
    """
    from diffusers.hooks import apply_group_offloading

    if not roots:
        return None
    folder = Path(tempfile.mkdtemp(prefix="graphflow-offload-")) if device.type == "cpu" else None
    done = Offloaded(folder)
    streams = device.type == "cuda"
    try:
        for number, root in enumerate(roots):
            path = None if folder is None else str(folder / str(number))
            apply_group_offloading(
                root, device, torch.device("cpu"), "leaf_level", use_stream=streams, record_stream=streams,
                low_cpu_mem_usage=True, offload_to_disk_path=path,
            )  # fmt: skip
            _follow(root, device)
    except (ValueError, RuntimeError, NotImplementedError, OSError):
        done.close()
        return None
    return done


def _follow(root: nn.Module, device: torch.device) -> None:
    """Inputs come to the device before anything else is made of them, such as masks on the inputs' device."""
    from accelerate.utils import send_to_device

    def before(module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        return send_to_device(args, device), send_to_device(kwargs, device)

    for module in root.modules():
        if next(module.children(), None) is not None:
            module.register_forward_pre_hook(before, with_kwargs=True)
