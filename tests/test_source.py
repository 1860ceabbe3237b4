"""The code digest changes when what a kind computes may have changed, and only then."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from graphflow import registry
from graphflow.models.refs import loaders
from graphflow.source import code_digest, read_pieces
from graphflow.store import Store

NODE = '''
from graphflow.node import Field, Node, Ports
from graphflow.ports import Text
from {pack}.helpers import double

FACTOR = 2

class Twice(Node, kind="{pack}.twice"):
    """Say it twice."""

    times: int = Field(2, ge=1, description="how often")

    class In(Ports):
        text: Text

    class Out(Ports):
        text: Text

    def run(self, x, ctx):
        """Run."""
        from {pack}.deep.further import polish

        return self.Out(text=polish(double(x.text)) * FACTOR)

class Once(Node, kind="{pack}.once"):
    """Say it once."""

    class In(Ports):
        text: Text

    class Out(Ports):
        text: Text

    def run(self, x, ctx):
        return self.Out(text=single(x.text))

def single(text):
    return text
'''
HELPERS = '''
"""Helpers."""

def double(text):
    return _twice(text)

def _twice(text):
    return text * 2

def other():
    return 1
'''
FURTHER = """
from ..helpers import other
from . import tables

def polish(text):
    return text.strip() + tables.END
"""
FILES = {
    "__init__.py": "",
    "nodes.py": NODE,
    "helpers.py": HELPERS,
    "deep/__init__.py": "",
    "deep/further.py": FURTHER,
    "deep/tables.py": "END = '.'\n",
    "unused.py": "X = 1\n",
}
Digest = Callable[..., str]


@pytest.fixture
def digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Digest]:
    """Write the pack `sourcepack` with some text replaced; returns the digest of a kind."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "_KINDS", registry.all_kinds())
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(
        file: str = "nodes.py", old: str = "", new: str = "", cls: str = "Twice", pack: str = "sourcepack"
    ) -> str:
        for name in [m for m in sys.modules if m.partition(".")[0] == pack]:
            del sys.modules[name]
        for name, text in FILES.items():
            path = tmp_path / pack / name
            path.parent.mkdir(parents=True, exist_ok=True)
            text = text.replace("{pack}", pack)
            assert name != file or old in text
            path.write_text(text.replace(old, new, 1) if name == file and old else text)
        importlib.invalidate_caches()
        registry._KINDS.clear()
        return code_digest(getattr(importlib.import_module(f"{pack}.nodes"), cls))

    yield write
    for name in [m for m in sys.modules if m.startswith("sourcepack")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("nodes.py", '"""Say it twice."""', '"""Say it two times.\n\n    And say why.\n    """'),
        ("nodes.py", '        """Run."""\n', ""),
        ("nodes.py", "FACTOR = 2", "FACTOR   =  (2)  # twice"),
        ("nodes.py", 'description="how often"', 'description="how many times"'),
        ("nodes.py", "return text\n", "return text + '!'\n"),  # named by the other kind only
        ("nodes.py", 'kind="{pack}.once"'.replace("{pack}", "sourcepack"), 'kind="sourcepack.once", version=2'),
        ("helpers.py", '"""Helpers."""', "# Helpers."),
        ("helpers.py", "def double", "def new():\n    return 3\n\ndef double"),
        ("unused.py", "X = 1", "X = 2"),
    ],
)
def test_what_can_not_change_a_result_leaves_the_digest(digest: Digest, file: str, old: str, new: str) -> None:
    assert digest(file, old, new) == digest()


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("nodes.py", "FACTOR = 2", "FACTOR = 2.0"),
        ("nodes.py", "FACTOR = 2", "FACTOR = True"),
        ("nodes.py", "Field(2, ge=1", "Field(3, ge=1"),
        ("nodes.py", "polish(double(x.text))", "double(polish(x.text))"),
        ("helpers.py", "return text * 2", "return text * 3"),  # a helper of a helper
        ("helpers.py", "return 1", "return 2"),  # imported by a module that is imported inside run
        ("deep/further.py", "text.strip()", "text.lstrip()"),
        ("deep/tables.py", "'.'", "'!'"),
        ("helpers.py", "def double", "print('imported')\n\ndef double"),
        ("helpers.py", "def _twice", "@print\ndef unknown_effect():\n    return 1\n\ndef _twice"),
    ],
)
def test_what_can_change_a_result_changes_the_digest(digest: Digest, file: str, old: str, new: str) -> None:
    assert digest(file, old, new) != digest()


def test_neighbours_in_a_file_have_digests_of_their_own(digest: Digest) -> None:
    plain = digest(cls="Once")
    assert digest("deep/tables.py", "'.'", "'!'", cls="Once") == plain
    assert digest("nodes.py", "return text\n", "return text + '!'\n", cls="Once") != plain


def test_the_place_of_a_pack_is_not_in_the_digest(digest: Digest, tmp_path: Path) -> None:
    files = []
    for folder in ("one", "two"):
        path = tmp_path / folder / "mine.py"
        path.parent.mkdir()
        path.write_text(NODE.replace("{pack}.helpers", ".aside").replace("{pack}.deep.further", ".aside"))
        path.with_name("aside.py").write_text("def double(x):\n    return x\n\ndef polish(x):\n    return x\n")
        files.append(path)
    found = set()
    for path in files:
        registry._KINDS.clear()
        registry.load_file(path)
        found.add(code_digest(registry._KINDS["{pack}.twice"]))
    assert len(found) == 1
    files[1].with_name("aside.py").write_text("def double(x):\n    return x + x\n\ndef polish(x):\n    return x\n")
    code = f"""
from pathlib import Path
from graphflow import registry
from graphflow.models.refs import loaders
from graphflow.source import code_digest
registry.load_file(Path({str(files[1])!r}))
print(code_digest(registry.find("{{pack}}.twice")))
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert len(printed) == 40
    assert printed not in found


def test_standard_kinds_reach_their_mathematics_without_importing_torch(tmp_path: Path) -> None:
    code = """
import sys
from graphflow import registry
from graphflow.models.refs import loaders
from graphflow.source import code_digest, _standard
digests = {kind: code_digest(cls) for kind, cls in registry.all_kinds().items()}
assert all(len(d) == 40 for d in digests.values())
assert len(set(digests.values())) == len(digests)
print("torch" in sys.modules, *sorted(m for m, f in _standard()._files.items() if f))
"""
    runs = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", code]
        runs.append(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.split())
    assert runs[0] == runs[1]
    assert runs[0][0] == "False"
    assert {"graphflow.nodes.denoise", "graphflow.nodes.lib.ddim", "graphflow.nodes.lib.pix2pix_zero"} < set(runs[0])


def test_a_loader_has_a_digest_of_its_own() -> None:
    digests = {name: code_digest(found.load) for name, found in loaders().items()}
    assert all(len(digest) == 40 for digest in digests.values())
    assert len({digests[name] for name in ("diffusers.vae", "diffusers.unet", "transformers.clip")}) == 3


def test_files_are_read_once_and_remembered(tmp_path: Path, store: Store, digest: Digest) -> None:
    first = digest()
    read: list[str] = []

    def remember(path: Path, compute: Callable[[Path], str], what: str) -> str:
        os.utime(path, (1, 1))  # old enough to be remembered

        def reading(path: Path) -> str:
            read.append(path.name)
            return compute(path)

        store.file_digest(path, lambda _: "of another sort")  # such as that of a folder input which holds the file
        return store.file_digest(path, reading, what)

    def again() -> str:
        for name in [m for m in sys.modules if m.startswith("sourcepack")]:
            del sys.modules[name]
        registry._KINDS.clear()
        return code_digest(importlib.import_module("sourcepack.nodes").Twice, remember)

    assert again() == first
    assert sorted(read) == ["__init__.py", "further.py", "helpers.py", "nodes.py", "tables.py"]
    assert again() == first
    assert len(read) == 5


def test_no_source_gives_no_digest_and_a_broken_file_a_digest(tmp_path: Path) -> None:
    names: dict[str, object] = {"__name__": "nowhere"}
    exec("class Loose:\n    pass", names)
    assert code_digest(names["Loose"]) == ""
    (tmp_path / "half.py").write_text("def run(:\n")
    assert '""' in read_pieces(tmp_path / "half.py")
    (tmp_path / "deep.py").write_text("x = " + "-" * 3000 + "1\n")
    assert read_pieces(tmp_path / "deep.py")
