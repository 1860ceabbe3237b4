"""Code digests: what a kind computes, as far as its source says.

`version` is an author's promise that old results still hold. This digest is what checks the promise: it covers the
class and everything of the same package that the class can reach, and it is stored beside each result.

A file is read as pieces. Functions, kinds and plain classes are pieces of their own, which count only when something
that counts names them; all other statements of a module that is reached always count. So an edit to one kind leaves
its neighbours in the file alone, and what an import does besides defining names is not overlooked. Names are matched
as text, which errs on the side of counting too much. What the digest does not see: names put together at run time, data
files, other packages, and the ``__init__`` of packages that an import only passes through.

Comments, docstrings, formatting, imports for type checkers and the descriptions of parameters don't count. Nothing is
imported to find out.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from graphflow.codecs import digest_bytes

Remember = Callable[[Path, Callable[[Path], str], str], str]

STANDARD = "graphflow.nodes"
USER = "graphflow_user"  # files named with --nodes are modules of a package of this name, one sub-package a folder
_FORMAT = "source/1"
_WHOLE = "*"
_PACKAGE = os.sep + "__init__.py"
_INERT_DECORATORS = {"loader", "dataclass", "cache", "lru_cache", "contextmanager", "no_grad", "inference_mode"}
_INERT_BASES = {"object", "Node", "BatchNode", "Ports", "Protocol", "NamedTuple", "Exception", "ValueError"}
_Name = tuple[str, str]  # a module and a name in it
_known: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def code_digest(thing: Any, remember: Remember = lambda path, compute, what: compute(path)) -> str:
    """Digest of the source that decides what a kind computes; empty when there is no source file.

    It is computed once a process for each class: it describes the code that the process has loaded.

    Args:
        thing: a node class, or a function such as a model's loader.
        remember: ``remember(path, compute)`` gives what `compute` made of an unchanged file (`Store.file_digest`).
    """
    if thing not in _known:
        file = getattr(sys.modules.get(thing.__module__), "__file__", None)
        if file is None or not file.endswith(".py") or not os.path.isfile(file):
            return ""
        found = _package(thing.__module__, file).reached((thing.__module__, thing.__qualname__.split(".")[0]), remember)
        _known[thing] = digest_bytes("\n".join(found).encode())
    return _known[thing]


_Import = tuple[int, str, str]  # level, module, name
_Piece = tuple[str, list[str], list[_Import]]  # its digest, the pieces of the same file that it names, its imports


# --- one file -------------------------------------------------------------------------------------------------------


def read_pieces(path: Path) -> str:
    """The pieces of a file as JSON: name → [digest, names, imports]; the empty name stands for all other statements."""
    data = path.read_bytes()
    try:
        rest, apart = _split(ast.parse(data).body)
        pieces = {name: _piece([node], apart) for name, node in apart.items()}
        pieces[""] = _piece(rest, apart)
    except (SyntaxError, ValueError, RecursionError):  # a file that is being edited just now, after its import
        pieces = {"": (digest_bytes(data), [], [])}
    return json.dumps([_FORMAT, pieces], separators=(",", ":"))


def _split(body: list[ast.stmt]) -> tuple[list[ast.stmt], dict[str, ast.stmt]]:
    """Statements that always count, and those that count when they are named."""
    apart: dict[str, ast.stmt] = {}
    rest = []
    for node in body:
        # A name that is defined twice depends on the order of the statements: those stay together.
        if _is_inert(node) and node.name not in apart:  # type: ignore[attr-defined]
            apart[node.name] = node  # type: ignore[attr-defined]
        elif not _is_text(node):
            rest.append(node)
    return rest, apart


def _is_inert(node: ast.stmt) -> bool:
    """Whether a statement defines something and does nothing else that the rest of the module could notice."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return False
    if not all(_last_name(d) in _INERT_DECORATORS for d in node.decorator_list):
        return False
    if not isinstance(node, ast.ClassDef):
        return True
    keywords = {k.arg for k in node.keywords}
    return "kind" in keywords or (not keywords and all(_last_name(b) in _INERT_BASES for b in node.bases))


def _last_name(node: ast.expr) -> str:
    while isinstance(node, ast.Call | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _piece(nodes: list[ast.stmt], apart: dict[str, ast.stmt]) -> _Piece:
    names: set[str] = set()
    imports: set[_Import] = set()
    text: list[str] = []
    for node in nodes:
        _write(node, text.append, names, imports)
    digest = digest_bytes("\0".join(text).encode("utf-8", "surrogatepass"))
    return digest, sorted(names & apart.keys()), sorted(imports)


def _write(node: ast.AST, out: Callable[[str], None], names: set[str], imports: set[_Import]) -> None:
    """Write a tree as text, without what doesn't count; collect the names and imports in it.

    Empty fields are left out, so that a newer Python, whose trees have more fields, writes the same text.
    """
    out(type(node).__name__)
    for key, value in _fields(node):
        out(key)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, ast.AST):
                _write(item, out, names, imports)
            else:
                out(repr(item))
    out(")")
    if isinstance(node, ast.Name):
        names.add(node.id)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        names.add(node.value)  # getattr(module, "name")
    else:
        imports |= _imports(node)


def _fields(node: ast.AST) -> Iterator[tuple[str, Any]]:
    for key, value in ast.iter_fields(node):
        if key == "body" and isinstance(value, list):  # a lambda's body is an expression
            typing_only = isinstance(node, ast.If) and _last_name(node.test) == "TYPE_CHECKING"
            value = [] if typing_only else [statement for statement in value if not _is_text(statement)]
        elif key == "keywords" and isinstance(node, ast.Call) and _last_name(node.func) == "Field":
            value = [k for k in value if k.arg != "description"]
        if value is not None and value != []:
            yield key, value


def _is_text(node: ast.stmt) -> bool:
    """A docstring, or a string that stands by itself elsewhere."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _imports(node: ast.AST) -> set[_Import]:
    if isinstance(node, ast.Import):
        found = {(0, alias.name, _WHOLE) for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
        found = {(node.level, node.module or "", alias.name) for alias in node.names}
    else:
        return set()
    return {i for i in found if i[0] or i[1].partition(".")[0] not in sys.stdlib_module_names}


# --- from file to file ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Root:
    """A package that is followed, and the folder in which its modules lie."""

    package: str
    folder: str

    def holds(self, module: str) -> bool:
        """Whether the module belongs to this package, if there is such a module."""
        return module.startswith(self.package) and module[len(self.package) :][:1] in ("", ".")

    def locate(self, module: str) -> str | None:
        """The file of a module of this package, or None."""
        base = self.folder + module[len(self.package) :].replace(".", os.sep)
        return next((p for p in (base + _PACKAGE, base + ".py") if os.path.isfile(p)), None)


def _package(module: str, file: str) -> _Package:
    """What is followed from a class of `module`: its own package and the standard library."""
    if module.startswith(STANDARD + "."):
        return _standard()
    own = ".".join(module.split(".")[: 2 if module.startswith(USER + ".") else 1])
    folders = getattr(sys.modules.get(own), "__path__", None) or [file.removesuffix(".py")]
    return _Package([*(_Root(own, folder) for folder in folders), *_standard().roots])


@cache
def _standard() -> _Package:
    spec = importlib.util.find_spec(STANDARD)
    assert spec is not None
    assert spec.submodule_search_locations
    return _Package([_Root(STANDARD, next(iter(spec.submodule_search_locations)))])


class _Package:
    """The modules of a class's package, read as far as anything has asked for them."""

    def __init__(self, roots: list[_Root]) -> None:
        self.roots = roots
        self._files: dict[str, tuple[str, dict[str, _Piece]] | None] = {}
        self._next: dict[_Name, list[_Name]] = {}

    def reached(self, start: _Name, remember: Remember) -> list[str]:
        """Digests of the pieces that count when `start` does, sorted."""
        todo, seen = [start], {start}
        while todo:
            name = todo.pop()
            if name not in self._next:
                self._next[name] = self._read(name, remember)
            found = [n for n in self._next[name] if n not in seen]
            seen.update(found)
            todo += found
        pieces = ((self._files[module], name) for module, name in seen)
        return sorted({file[1][name][0] for file, name in pieces if file is not None and name in file[1]})

    def _read(self, start: _Name, remember: Remember) -> list[_Name]:
        """What counts because a name of a module does: the module's other statements, and all that the name names."""
        module, name = start
        found = self._file(module, remember)
        if found is None:
            return []
        path, pieces = found
        if name == _WHOLE:
            return [(module, piece) for piece in pieces]
        out = {(module, "")}
        if name in pieces:
            _, names, imports = pieces[name]
            out |= {(module, other) for other in names}
            for wanted in imports:
                out |= self._targets(wanted, module, path, remember)
        return list(out)

    def _targets(self, wanted: _Import, module: str, path: str, remember: Remember) -> set[_Name]:
        """The modules and names that an import may mean; none when it leads out of the packages that are followed."""
        level, base, name = wanted
        if level:
            package = module.split(".")
            package = package[: len(package) - level + path.endswith(_PACKAGE)]
            base = ".".join([*package, base] if base else package)
        elif module.startswith(USER + ".") and self._file(beside := f"{module.rpartition('.')[0]}.{base}", remember):
            base = beside  # found because the folder of the user's file is on the path
        if not any(root.holds(base) for root in self.roots):
            return set()
        found = self._file(base, remember)
        if found is not None and not found[0].endswith(_PACKAGE):
            return {(base, name)}
        return {(base, name), (f"{base}.{name}", _WHOLE)}

    def _file(self, module: str, remember: Remember) -> tuple[str, dict[str, _Piece]] | None:
        if module not in self._files:
            path = next(filter(None, (root.locate(module) for root in self.roots if root.holds(module))), None)
            self._files[module] = None if path is None else (path, _pieces(path, remember))
        return self._files[module]


def _pieces(path: str, remember: Remember) -> dict[str, _Piece]:
    form, pieces = json.loads(remember(Path(path), read_pieces, "pieces"))
    if form != _FORMAT:  # remembered by another version of graphflow
        form, pieces = json.loads(read_pieces(Path(path)))
    return dict(pieces)
