"""Lets ``import torchvision`` succeed where its C++ library can't be loaded.

The only build on many package indexes is the CUDA one. Beside a CPU-only torch its library fails to load, and then
the import dies with "operator torchvision::nms does not exist", although its Python parts work without the library;
transformers and diffusers, which look whether torchvision is installed, die with it. `install` puts a hook in front of
that one import. Where torchvision is healthy, the hook does nothing; where it is absent, it stays absent.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

BROKEN = "operator torchvision::nms does not exist"
# All operators that torchvision's Python names while it is imported. Declared without a kernel: calling one raises.
OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library: Any = None  # operators vanish with the object that declared them


class _Finder(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "torchvision":
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _MendingLoader(spec.loader)
        return spec


class _MendingLoader(Loader):
    def __init__(self, real: Loader) -> None:
        self.real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self.real
        try:
            self.real.exec_module(module)
        except RuntimeError as error:
            if BROKEN not in str(error):
                raise
            for name in [n for n in sys.modules if n.startswith("torchvision.")]:
                del sys.modules[name]
            _declare_operators()
            self.real.exec_module(module)


def _declare_operators() -> None:
    global _library
    import torch

    _library = torch.library.Library("torchvision", "DEF")
    for schema in OPERATORS:
        _library.define(schema)


def install() -> None:
    """Put the hook in place, once; imports nothing heavy."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
