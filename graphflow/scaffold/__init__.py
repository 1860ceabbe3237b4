"""``graphflow nodes new``: a pack to begin with, as a file or as a package, with a graph and tests that pass."""

from __future__ import annotations

import importlib.util
import keyword
import re
from importlib import resources
from pathlib import Path

from graphflow.errors import UsageError
from graphflow.source import STANDARD

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_PICTURE = ("graphflow.graphs", "pictures/cat.png")


def write_file(name: str, folder: Path) -> list[str]:
    """Write a file of nodes, a graph, its picture and a test; returns what to tell the author.

    Raises:
        UsageError: the name won't do, or a file is there already; nothing was written.
    """
    _check_name(name)
    file, graph, test = f"{name}.py", f"{name}.yaml", f"test_{name}.py"
    paths = {file: "node.py", graph: "graph.yaml", test: "test_file.py", "cat.png": None}
    _write(folder, paths, name, package=False)
    where = {n: _shell(folder / n) for n in (file, graph, test)}
    return [
        *(str(folder / path) for path in paths),
        f"try it:   graphflow run {where[graph]} --nodes {where[file]}",
        f"test it:  pytest {where[test]}",
    ]


def write_package(name: str, folder: Path) -> list[str]:
    """Write an installable package in a folder of its name; returns what to tell the author.

    Raises:
        UsageError: as for `write_file`, or another module has the name.
    """
    _check_name(name)
    if importlib.util.find_spec(name) is not None:
        raise UsageError(f"nodes new {name}: there is a Python module of this name; choose another one")
    paths = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"src/{name}/__init__.py": "init.py",
        f"src/{name}/nodes.py": "node.py",
        "graphs/tint.yaml": "graph.yaml",
        "graphs/cat.png": None,
        f"tests/test_{name}.py": "test_package.py",
    }
    root = folder / name
    _write(root, paths, name, package=True)
    return [
        *(str(root / path) for path in paths),
        f"install it:  pip install --editable {_shell(root)}",
        f"try it:      graphflow run {_shell(root / 'graphs/tint.yaml')}",
        f"test it:     pytest {_shell(root)}",
    ]


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise UsageError(f"nodes new {name}: expected a Python name in small letters, such as my_nodes")
    if importlib.util.find_spec(f"{STANDARD}.{name}") is not None:
        raise UsageError(f"nodes new {name}: the standard library has a family '{name}'; choose another name")


def _write(folder: Path, paths: dict[str, str | None], name: str, package: bool) -> None:
    """Write files from templates, all or none; a path without a template is the picture."""
    there = [str(folder / path) for path in paths if path != "cat.png" and (folder / path).exists()]
    if there:
        raise UsageError(f"nodes new {name}: nothing was written, because there is already: {', '.join(there)}")
    contents = {folder / path: _content(template, name, package) for path, template in paths.items()}
    try:
        for path, data in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                path.write_bytes(data)
    except OSError as error:
        raise UsageError(f"nodes new {name}: can't write in {folder}: {error.strerror}") from error


def _content(template: str | None, name: str, package: bool) -> bytes:
    if template is None:
        return resources.files(_PICTURE[0]).joinpath(_PICTURE[1]).read_bytes()
    from jinja2 import Environment, StrictUndefined

    text = resources.files("graphflow.scaffold").joinpath("files", f"{template}.j2").read_text(encoding="utf-8")
    made = Environment(undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True).from_string(text)
    return made.render(name=name, package=package).encode()


def _shell(path: Path) -> str:
    import shlex

    return shlex.quote(str(path))
