"""The contract test for nodes, which any pack can run:

    from graphflow.testing import check_pack

    def test_every_node_keeps_the_contract() -> None:
        check_pack("my_pack")               # or a file: check_pack(Path("my_nodes.py"))

A node may offer examples, and then it is run, too: twice, to see that equal inputs give equal bytes, and through
`run_many` if it has one. They are a class method that gives pairs of a node and its inputs:

    @classmethod
    def examples(cls) -> Iterable[tuple[Blur, In]]:
        yield cls(radius=1), cls.In(image=PIL.Image.new("RGB", (8, 8), "red"))

Inputs of examples are small. A model port takes any object with the methods that the node calls.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from graphflow import registry
from graphflow.node import Node
from graphflow.source import USER
from graphflow.testing.declared import declared_problems
from graphflow.testing.examples import example_problems

__all__ = ["BrokenContract", "check_node", "check_pack", "nodes_of", "problems_of", "problems_of_imports"]

HEAVY = ("torch", "diffusers", "transformers", "accelerate")


class BrokenContract(AssertionError):
    """Nodes that don't keep the contract, with a line for each finding."""


def check_pack(pack: str | Path) -> list[type[Node]]:
    """Check every node of a pack, and that importing it imports neither torch nor what imports torch.

    Args:
        pack: an importable module or package, or a Python file.

    Returns:
        The classes that were checked.

    Raises:
        BrokenContract: with all findings.
        GraphflowError: the pack can't be loaded.
    """
    classes = nodes_of(pack)
    findings = [*problems_of_imports([pack]), *(f"{c.kind}: {p}" for c in classes for p in problems_of(c))]
    if not classes:
        findings.append(f"{pack} has no nodes: a node is a class with 'Node, kind=…' in its head")
    _raise(findings)
    return classes


def check_node(cls: type[Node]) -> None:
    """Check one node; see `problems_of` for what is looked at.

    Raises:
        BrokenContract: with all findings.
    """
    _raise([f"{cls.kind}: {problem}" for problem in problems_of(cls)])


def nodes_of(pack: str | Path) -> list[type[Node]]:
    """The nodes that a module, a package or a file defines, sorted by kind.

    Raises:
        GraphflowError: it can't be loaded.
    """
    if isinstance(pack, Path):
        registry.load_file(pack)
        names = {n for n, m in sys.modules.items() if n.startswith(USER) and _file(m) == pack.resolve()}
    else:
        module = importlib.import_module(pack)
        importable = [n for n in sys.modules if n.startswith(pack + ".")]
        names = {module.__name__, *importable}
    return [cls for cls in registry.all_kinds().values() if cls.__module__ in names]


def problems_of(cls: type[Node]) -> list[str]:
    """What is wrong with a node: its name and words, ports, parameters, what it says to the cache, and its examples."""
    # Without a sound class the examples would only repeat the findings.
    return declared_problems(cls) or example_problems(cls)


def problems_of_imports(packs: Iterable[str | Path]) -> list[str]:
    """The heavy modules that importing these packs imports, found in a fresh process."""
    code = (
        "import importlib, json, pathlib, sys\n"
        "path, packs, heavy = json.loads(sys.argv[1]); sys.path[:] = path\n"
        "from graphflow import registry\n"
        "for name, is_file in packs:\n"
        "    registry.load_file(pathlib.Path(name)) if is_file else importlib.import_module(name)\n"
        "    print(json.dumps([name, [m for m in heavy if m in sys.modules]]))\n"
    )
    argument = json.dumps([sys.path, [(str(p), isinstance(p, Path)) for p in packs], HEAVY])
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, argument], capture_output=True, text=True)
    findings = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    out = [f"importing {name} imports {', '.join(m)}: do that inside run" for name, m in findings if m]
    if done.returncode:
        out.append(f"a fresh process can't import it: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
    return out[:1] if done.returncode == 0 else out  # later packs are blamed for what the first has imported


def _file(module: Any) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file) if file else None


def _raise(findings: list[str]) -> None:
    if findings:
        raise BrokenContract("\n".join([f"{len(findings)} finding(s)", *findings]))
