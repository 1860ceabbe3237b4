"""Packs: files that the user names and installed packages. A broken or greedy one is named and harms nothing else."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from graphflow import registry
from graphflow.errors import UsageError
from graphflow.models import refs
from graphflow.models.refs import loaders

NODE = '''"""A pack."""

from graphflow.node import Node, Ports
from graphflow.ports import Text


class {cls}(Node, kind="{kind}"):
    """Say it."""

    class In(Ports):
        text: Text

    class Out(Ports):
        text: Text

    def run(self, x, ctx):
        return self.Out(text={value})
'''
Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers is gone after it."""
    monkeypatch.setattr(registry, "_KINDS", registry.all_kinds())
    monkeypatch.setattr(refs, "_LOADERS", dict(loaders()))
    monkeypatch.setattr(registry, "_stamps", {})
    monkeypatch.setattr(registry, "broken_packs", {})
    before = set(sys.modules)
    yield
    for name in [m for m in set(sys.modules) - before if m.startswith(("graphflow_user.", "regpack_"))]:
        del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file with one node."""

    def write(
        name: str = "mine.py", kind: str = "mine.say", value: str = "x.text", head: str = "", end: str = ""
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(head + NODE.format(cls="Say", kind=kind, value=value) + end, encoding="utf-8")
        return path

    return write


def result_of(kind: str) -> str:
    cls = registry.find(kind)
    assert cls is not None
    out: str = cls().run(cls.In(text="a"), None).text
    return out


def test_a_file_may_be_named_twice(write: Write, tmp_path: Path) -> None:
    path = write()
    registry.load_file(path)
    first = registry.find("mine.say")
    (tmp_path / "sub").mkdir()
    registry.load_file(tmp_path / "sub" / ".." / "mine.py")
    assert registry.find("mine.say") is first


def test_a_changed_file_is_loaded_again_and_its_old_kinds_go(write: Write) -> None:
    registry.load_file(write())
    registry.load_file(write(kind="mine.shout", value="x.text.upper()"))
    assert result_of("mine.shout") == "A"
    assert registry.find("mine.say") is None


def test_an_edit_of_the_same_size_in_the_same_second_counts(write: Write, tmp_path: Path) -> None:
    for value in ("x.text+'1'", "x.text+'2'", "x.text+'3'"):
        registry.load_file(write(value=value))
        assert result_of("mine.say") == f"a{value[-2]}"
    assert [p.name for p in tmp_path.iterdir()] == ["mine.py"]


def test_a_changed_helper_is_loaded_again(write: Write, tmp_path: Path) -> None:
    helper = tmp_path / "helper.py"
    helper.write_text("def change(text):\n    return text + text\n")
    path = write(head="from .helper import change\n", value="change(x.text)")
    registry.load_file(path)
    assert result_of("mine.say") == "aa"
    helper.write_text("def change(text):\n    return text + text + text\n")
    registry.load_file(path)
    assert result_of("mine.say") == "aaa"


def test_files_of_one_name_in_two_folders_do_not_meet(write: Write, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "helper.py").write_text(f"NAME = '{folder}'\n")
        registry.load_file(write(f"{folder}/mine.py", f"mine.{folder}", "NAME", "from .helper import NAME\n"))
    assert [result_of("mine.a"), result_of("mine.b")] == ["a", "b"]


def test_two_claims_on_a_kind_name_both_places(write: Write) -> None:
    registry.load_file(write("one.py"))
    two = write("two.py", end="\n\nLAST = 1\n")
    expected = r"two nodes claim the kind 'mine.say': Say \(.*one\.py:7\) and Say \(.*two\.py:7\)"
    with pytest.raises(UsageError, match=expected):
        registry.load_file(two)
    assert registry.place_of(registry.find("mine.say")).endswith("one.py:7")


def test_a_standard_kind_can_not_be_taken_even_before_it_was_used(write: Write) -> None:
    path = write(kind="caption")
    code = f"""
from pathlib import Path
from graphflow import registry
try:
    registry.load_file(Path({str(path)!r}))
except Exception as error:
    print(error)
print(registry.find("caption").__module__)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "nodes/caption.py:" in said
    assert f"{path}:7" in said
    assert "give yours a family of its own" in said
    assert said.splitlines()[-1] == "graphflow.nodes.caption"


def test_a_file_that_fails_registers_nothing_and_says_where(write: Write, tmp_path: Path) -> None:
    path = write(end="\n\nraise ValueError('broken')\n")
    with pytest.raises(UsageError, match=r"mine\.py:20 failed to import: ValueError: broken"):
        registry.load_file(path)
    assert registry.find("mine.say") is None
    registry.load_file(write())
    assert result_of("mine.say") == "a"
    for bad, text in (("quit.py", "import sys\nsys.exit(0)"), ("half.py", "class Half(")):
        (tmp_path / bad).write_text(text)
        with pytest.raises(UsageError, match="failed to import"):
            registry.load_file(tmp_path / bad)


def test_what_is_no_python_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.b.py").write_text("")
    for name, message in (("none.py", "is not a Python file"), ("a.b.py", "can't have a dot in its name")):
        with pytest.raises(UsageError, match=message):
            registry.load_file(tmp_path / name)


def test_a_helper_beside_the_file_wants_a_dot(write: Write, tmp_path: Path) -> None:
    (tmp_path / "registry_helper.py").write_text("X = 1\n")
    with pytest.raises(UsageError, match=r"write 'from \.registry_helper import …'"):
        registry.load_file(write(head="import registry_helper\n"))


def test_torch_at_module_level_is_warned_of(write: Write, tmp_path: Path) -> None:
    path = write(head="import sys\nimport torch\n")
    code = f"from pathlib import Path; from graphflow import registry; registry.load_file(Path({str(path)!r}))"
    (tmp_path / "fake" / "torch").mkdir(parents=True)
    (tmp_path / "fake" / "torch" / "__init__.py").write_text("")
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path / 'fake')!r}); {code}"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert f"{path}:2: UserWarning: loading 'mine.py' imports torch" in said
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registry.load_file(write("light.py", "light.say"))


def warned(path: Path) -> list[str]:
    """The warnings of loading a file."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        registry.load_file(path)
    return [f"{w.lineno}: {w.message}" for w in found]


def test_nodes_that_no_graph_can_name_are_warned_of(write: Write, tmp_path: Path) -> None:
    base = "\n\nclass {}(Node):\n    'A base.'\n"
    path = write("forgot.py")
    path.write_text(path.read_text().replace(', kind="mine.say"', ""))
    assert warned(path) == ["7: forgot.py defines no kind; class Say has no kind="]
    (tmp_path / "none.py").write_text("x = 1\n")
    assert warned(tmp_path / "none.py") == ["1: none.py defines no kind"]
    assert warned(write("some.py", "mine.some", end=base.format("Lost"))) == ["20: class Lost has no kind="]
    heir = "\n\nclass Heir(Base, kind='mine.heir'):\n    'One.'\n    In, Out = Say.In, Say.Out\n"
    assert warned(write("based.py", "mine.based", end=base.format("Base") + heir)) == []
    text = "from graphflow.models.refs import loader\n@loader('mine.loader', 'vae')\ndef load(*_): ...\n"
    (tmp_path / "loads.py").write_text(text)
    assert warned(tmp_path / "loads.py") == []


@pytest.fixture
def installed(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Installed packs: a broken one, one that takes a standard kind, and a good one."""
    monkeypatch.syspath_prepend(str(tmp_path))
    write("regpack_good.py", "good.say")
    write("regpack_broken.py", "broken.say", end="\n\nimport nothing_of_this_name\n")
    write("regpack_greedy/__init__.py", "caption", head="from . import extra\n")
    write("regpack_greedy/extra.py", "greedy.extra")
    for name in ("greedy", "broken", "good"):
        info = tmp_path / f"regpack_{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: regpack-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[graphflow.nodes]\n{name} = regpack_{name}\n")
    monkeypatch.setattr(registry, "_imported", registry._imported - {"packs"})
    return registry.import_packs


@pytest.mark.usefixtures("installed")
def test_broken_and_greedy_packs_are_reported_and_the_rest_works() -> None:
    assert result_of("good.say") == "a"
    assert registry.find("broken.say") is None
    assert registry.find("greedy.extra") is None
    assert registry.broken_packs["broken"] == "ModuleNotFoundError: No module named 'nothing_of_this_name'"
    assert "two nodes claim the kind 'caption'" in registry.broken_packs["greedy"]
    assert registry.find("caption").__module__ == "graphflow.nodes.caption"
    assert {"good.say", "caption"} <= registry.all_kinds().keys()


LOADER = """
from graphflow.models.refs import loader

@loader("{name}", role="llm")
def {function}(ref, folder, device, dtype):
    return None
"""


def test_a_pack_brings_loaders_and_takes_nobodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaders()
    monkeypatch.setattr(refs, "_LOADERS", dict(loaders()))
    path = tmp_path / "mine.py"
    path.write_text(LOADER.format(name="mine.llm", function="load_mine"))
    registry.load_file(path)
    first = loaders()["mine.llm"].load
    path.write_text(LOADER.format(name="mine.llm", function="load_mine") + "\nX = 1\n")
    registry.load_file(path)
    assert loaders()["mine.llm"].load is not first
    other = tmp_path / "other.py"
    other.write_text(LOADER.format(name="mine.llm", function="load_mine"))
    with pytest.raises(UsageError, match=r"claim the loader 'mine.llm': .*mine\.py:4 and .*other\.py:4"):
        registry.load_file(other)
    other.write_text(LOADER.format(name="diffusers.vae", function="load_vae"))
    with pytest.raises(UsageError, match=r"claim the loader 'diffusers.vae': .*diffusion\.py:\d+ and .*other\.py:4"):
        registry.load_file(other)
