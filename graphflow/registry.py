"""Where kinds come from: the standard library, installed packs, and files that the user names.

A kind ``family.name`` of the standard library lives in ``graphflow/nodes/family.py``, so a graph imports only the
families that it uses. Packs (entry-point group ``graphflow.nodes``) are looked at when a kind is not found there.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from graphflow.errors import UsageError

if TYPE_CHECKING:
    from graphflow.node import Node

_KINDS: dict[str, type[Node]] = {}
_imported: set[str] = set()
broken_packs: dict[str, str] = {}


def register(node: type[Node]) -> None:
    """Enter a node class under its kind.

    Raises:
        UsageError: another class has claimed the kind already.
    """
    other = _KINDS.setdefault(node.kind, node)
    if other is not node and (other.__module__, other.__qualname__) != (node.__module__, node.__qualname__):
        raise UsageError(
            f"two nodes claim the kind '{node.kind}': {other.__module__}.{other.__qualname__} "
            f"and {node.__module__}.{node.__qualname__}"
        )
    _KINDS[node.kind] = node


def find(kind: str) -> type[Node] | None:
    """The node class of a kind, or None."""
    if kind not in _KINDS:
        family = kind.partition(".")[0]
        if family.isidentifier() and not family.startswith("_"):
            _import_family(family)
    if kind not in _KINDS:
        _import_packs()
    return _KINDS.get(kind)


def all_kinds() -> dict[str, type[Node]]:
    """Every kind of the standard library and of installed packs, sorted."""
    import graphflow.nodes

    for module in pkgutil.iter_modules(graphflow.nodes.__path__):
        if not module.ispkg:
            _import_family(module.name)
    _import_packs()
    return dict(sorted(_KINDS.items()))


def load_file(path: Path) -> None:
    """Register the nodes of a Python file that the user named (``--nodes file.py``).

    Raises:
        UsageError: the file is missing or fails to import.
    """
    spec = importlib.util.spec_from_file_location(f"graphflow_user_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UsageError(f"--nodes: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"--nodes: {path} failed to import: {type(error).__name__}: {error}") from error


def _import_family(family: str) -> None:
    name = f"graphflow.nodes.{family}"
    if name not in _imported:
        _imported.add(name)
        if importlib.util.find_spec(name) is not None:
            importlib.import_module(name)


def _import_packs() -> None:
    if "packs" in _imported:
        return
    _imported.add("packs")
    from importlib.metadata import entry_points

    for entry in entry_points(group="graphflow.nodes"):
        try:
            entry.load()
        except Exception as error:  # a broken pack must not take the working ones with it
            broken_packs[entry.name] = f"{type(error).__name__}: {error}"
