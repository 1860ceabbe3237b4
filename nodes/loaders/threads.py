"""Loading in one thread while others compute.

While diffusers and transformers build a model, they set torch's default floating-point type, put every new parameter
on the meta device and switch initialisation off, and all three belong to the process: a tensor that another thread
makes meanwhile would come out in half precision, and a network without weights. Here they hold for one thread only.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

_CREATE = {torch.empty, torch.zeros, torch.ones, torch.full, torch.eye, torch.linspace, torch.rand, torch.randn}


@contextmanager
def others_undisturbed(cls: type) -> Iterator[None]:
    """`from_pretrained` of a class of either library inside leaves other threads alone. One thread at a time."""
    with ExitStack() as stack:
        for owner, name, replacement in _replacements(cls.__module__.partition(".")[0]):
            stack.enter_context(patch.object(owner, name, replacement))
        yield


def _replacements(library: str) -> list[tuple[Any, str, Any]]:
    # Only the library that is needed: the import of diffusers takes seconds.
    if library == "transformers":
        import transformers.modeling_utils

        return [(transformers.modeling_utils, "local_torch_dtype", _default_type)]
    if library == "diffusers":
        import accelerate
        import diffusers.models.modeling_utils as diffusers

        return [
            (diffusers.ModelMixin, "_set_default_torch_dtype", classmethod(_keep)),
            (diffusers, "no_init_weights", nullcontext),  # on the meta device initialisation costs nothing
            (accelerate, "init_empty_weights", _parameters_on_meta),
        ]
    return []


def _keep(cls: Any, dtype: torch.dtype) -> torch.dtype:
    # diffusers sets the type in one place and resets it in another. It converts the weights without its help.
    return torch.get_default_dtype()


class DefaultType(TorchFunctionMode):
    """Tensors that this thread makes inside, without saying of which type, are of this one where torch says float32."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        numbers = func is torch.tensor and isinstance(args[0] if args else None, float | list | tuple)
        if (func in _CREATE or numbers) and (kwargs or {}).get("dtype") is None and made.dtype == torch.float32:
            return made.to(self.dtype)
        return made


@contextmanager
def _default_type(dtype: torch.dtype, model_class_name: str | None = None) -> Iterator[None]:
    with DefaultType(dtype):
        yield


@contextmanager
def _parameters_on_meta(include_buffers: bool | None = None) -> Iterator[None]:
    mine, register = threading.get_ident(), nn.Module.register_parameter

    def registered(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
        register(module, name, param)
        if param is not None and threading.get_ident() == mine:
            module._parameters[name] = nn.Parameter(param.to("meta"), param.requires_grad)

    with patch.object(nn.Module, "register_parameter", registered):
        yield
