"""Where kinds come from: the standard library, installed packs, and files that the user names.

A kind ``family.name`` of the standard library lives in ``graphflow/nodes/family.py``, so a graph imports only the
families that it uses. Packs (entry-point group ``graphflow.nodes``, each entry names a module) are imported when a
kind or a loader is not found there. A file (``--nodes file.py``) becomes a module of a package that stands for its
folder: files of one name in two folders don't meet, and ``from .helpers import …`` finds the file beside it.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import linecache
import os
import pkgutil
import re
import sys
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphflow.errors import GraphflowError, UsageError
from graphflow.source import STANDARD, USER

if TYPE_CHECKING:
    from graphflow.node import Node

PACKS = "graphflow.nodes"  # the entry-point group
NO_KIND = "`graphflow nodes` lists all kinds; a file with nodes of your own is named with --nodes"  # no kind is near
_KINDS: dict[str, type[Node]] = {}
_imported: set[str] = set()
_stamps: dict[str, dict[str, tuple[int, int]]] = {}
broken_packs: dict[str, str] = {}


def register(node: type[Node]) -> None:
    """Enter a node class under its kind.

    Raises:
        UsageError: another class has claimed the kind already, be it one of the standard library.
    """
    if not node.__module__.startswith(STANDARD + "."):
        _import_family(node.kind.partition(".")[0])  # so that a standard kind is there to be defended
    other = _KINDS.setdefault(node.kind, node)
    if (other.__module__, other.__qualname__) != (node.__module__, node.__qualname__):
        message = f"two nodes claim the kind '{node.kind}': {_named(other)} and {_named(node)}"
        if other.__module__.startswith(STANDARD + "."):
            message += "; the first belongs to the standard library: give yours a family of its own"
        raise UsageError(message)
    _KINDS[node.kind] = node


def find(kind: str) -> type[Node] | None:
    """The node class of a kind, or None."""
    if kind not in _KINDS:
        _import_family(kind.partition(".")[0])
    if kind not in _KINDS:
        import_packs()
    return _KINDS.get(kind)


def all_kinds() -> dict[str, type[Node]]:
    """Every kind of the standard library, of installed packs and of loaded files, sorted."""
    standard = importlib.import_module(STANDARD)  # by name: the engine depends on no node
    for module in pkgutil.iter_modules(standard.__path__):
        if not module.ispkg:
            _import_family(module.name)
    import_packs()
    return dict(sorted(_KINDS.items()))


def place_of(thing: Any) -> str:
    """``file:line`` of a class or function, relative to the working directory if it lies below it; for messages."""
    try:
        file, line = inspect.getsourcefile(thing), inspect.findsource(thing)[1] + 1
    except (OSError, TypeError):
        return str(thing.__module__)
    return f"{_short(str(file))}:{line}"


def load_file(path: Path) -> None:
    """Register the nodes of a Python file that the user named (``--nodes file.py``).

    A file that is loaded already is loaded again only if it, or a file beside it that it imports, has changed.

    Raises:
        UsageError: the file is missing or fails to import, or claims a kind that is taken; nothing of it is registered.
    """
    if path.suffix != ".py" or not path.is_file():
        raise UsageError(f"--nodes: {path} is not a Python file")
    if "." in path.stem:
        raise UsageError(f"--nodes: {path}: a module can't have a dot in its name")
    package, name = _module_name(path)
    if name in _stamps and _stamps[name] == _stamp(package):
        return
    for module in [m for m in sys.modules if m.startswith(package + ".") and (m == name or m not in _stamps)]:
        del sys.modules[module]
    try:
        with _whole(path.name, lambda module: module == name), _no_bytecode():
            before = set(_KINDS)
            importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise UsageError(f"--nodes: {_failure(path, error)}") from error
    _stamps[name] = _stamp(package)
    _warn_of_nothing(path, name, bool(_KINDS.keys() - before))


def loaded_files() -> list[Path]:
    """The files that `load_file` has loaded, in that order."""
    return [Path(str(sys.modules[name].__file__)) for name in _stamps if name in sys.modules]


def import_packs() -> None:
    """Import the installed packs, once a process. A broken one is noted in `broken_packs`, the others work."""
    if "packs" in _imported:
        return
    _imported.add("packs")
    from importlib.metadata import entry_points

    for entry in entry_points(group=PACKS):
        try:
            with _whole(entry.name, lambda module: False):
                entry.load()
        except (Exception, SystemExit) as error:  # a broken pack must not take the working ones with it
            name = entry.name if entry.name not in broken_packs else f"{entry.name} ({entry.value})"
            broken_packs[name] = _reason(error)


def _import_family(family: str) -> None:
    name = f"{STANDARD}.{family}"
    if name in _imported or not family.isidentifier() or family.startswith("_"):
        return
    _imported.add(name)
    if importlib.util.find_spec(name) is not None:
        importlib.import_module(name)


@contextmanager
def _whole(pack: str, replaced: Callable[[str], bool]) -> Iterator[None]:
    """Register all kinds of a pack or none of them; kinds of modules that are `replaced` give way."""
    before = dict(_KINDS)
    had_torch = "torch" in sys.modules
    for kind in [k for k, cls in _KINDS.items() if replaced(cls.__module__)]:
        del _KINDS[kind]
    try:
        yield
    except BaseException:
        standard = {k: cls for k, cls in _KINDS.items() if cls.__module__.startswith(STANDARD + ".")}
        _KINDS.clear()
        _KINDS.update({**before, **standard})
        raise
    if "torch" in sys.modules and not had_torch:
        _warn_of_torch(pack, [cls for kind, cls in _KINDS.items() if before.get(kind) is not cls])


@contextmanager
def _no_bytecode() -> Iterator[None]:
    """Import without leaving compiled files: those of an edit within the same second would pass for the next one."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _warn_of_torch(pack: str, classes: list[type[Node]]) -> None:
    files = [f for f in dict.fromkeys(inspect.getsourcefile(cls) for cls in classes) if f is not None]
    found = ((f, i) for f in files for i, text in enumerate(linecache.getlines(f), 1) if _imports_torch(text))
    file, line = next(found, (files[0] if files else pack, 1))
    message = f"loading '{pack}' imports torch, so every plan and check waits for it; import it inside run"
    warnings.warn_explicit(message, UserWarning, _short(file), line)


def _warn_of_nothing(path: Path, module: str, has_kinds: bool) -> None:
    """Warn of nodes that no graph can name. A base of nodes has no kind either, and a file may bring loaders alone."""
    from graphflow.models.refs import loaders
    from graphflow.node import Node

    classes = [thing for thing in vars(sys.modules[module]).values() if isinstance(thing, type)]
    nodes = [cls for cls in classes if issubclass(cls, Node) and cls.__module__ == module]
    nameless = [cls for cls in nodes if "kind" not in vars(cls) and not cls.__subclasses__()]
    useful = has_kinds or any(loader.load.__module__ == module for loader in loaders().values())
    parts = [] if useful else [f"{path.name} defines no kind"]
    parts += [f"class {cls.__name__} has no kind=" for cls in nameless]
    if parts:
        line = inspect.findsource(nameless[0])[1] + 1 if nameless else 1
        warnings.warn_explicit("; ".join(parts), UserWarning, _short(str(path)), line)


def _imports_torch(text: str) -> bool:
    return re.match(r"(import|from)\s+(torch|diffusers|transformers|accelerate)\b", text) is not None


# --- files ----------------------------------------------------------------------------------------------------------


def _module_name(path: Path) -> tuple[str, str]:
    """The package that stands for a file's folder, made if need be, and the file's module name in it."""
    from graphflow.codecs import digest_bytes

    folder = str(path.resolve().parent)
    package = f"{USER}.{digest_bytes(os.fsencode(folder))[:12]}"
    for name, where in ((USER, []), (package, [folder])):
        if name not in sys.modules:
            module = types.ModuleType(name)
            module.__path__ = where
            sys.modules[name] = module
    importlib.invalidate_caches()  # the file may be newer than the last look into its folder
    return package, f"{package}.{path.resolve().stem}"


def _stamp(package: str) -> dict[str, tuple[int, int]]:
    """Size and time of change of every loaded module of a package."""
    out = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.startswith(package + ".") and file is not None and os.path.isfile(file):
            stat = os.stat(file)
            out[name] = (stat.st_size, stat.st_mtime_ns)
    return out


def _failure(path: Path, error: BaseException) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path.resolve())]
    place = f"{path}:{frames[-1].lineno}" if frames else str(path)
    hint = ""
    if isinstance(error, ModuleNotFoundError) and error.name and path.with_name(f"{error.name}.py").is_file():
        hint = f"; {error.name}.py lies beside it: write 'from .{error.name} import …'"
    return f"{place} failed to import: {_reason(error)}{hint}"


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, GraphflowError) else f"{type(error).__name__}: {error}"


def _named(cls: type[Node]) -> str:
    return f"{cls.__qualname__} ({place_of(cls)})"


def _short(file: str) -> str:
    return os.path.relpath(file) if file.startswith(os.getcwd() + os.sep) else file
