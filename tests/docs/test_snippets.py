"""Every command and snippet in README and docs is run.

A page is run from top to bottom in a folder of its own, which holds cat.png, photos/, a copy of graphs/, and edit.yaml
with the mistakes that README shows; all pages share one store. What kind of block it is decides what happens:

    sh, console   commands that begin with graphflow or pytest (in console blocks after "$ ") are run and must end with
                  exit code 0
    yaml          a graph (it has the key graphflow) or a preset (graphflow-preset) is checked; anything else must parse
    python        is executed; the blocks of a page share their names
    toml          must parse

An HTML comment in the line before a block says more, several words apart by semicolons:

    file: NAME        the block is written to this file, for what follows; Python is executed only if it has nodes
    broken            a graph with errors, on purpose
    exit: N           the exit code of the block's last command
    output            the output of a console block is compared, apart from numbers; a line … stands for any lines
    excerpt: FILE     the lines stand in this file of the checkout, in this order
    not run: WHY      commands are only parsed: command and options must exist; Python is only compiled

Graphs with an input `steps` are run with two steps, unless the snippet says how many.
"""

from __future__ import annotations

import io
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import types
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import typer

from graphflow import registry
from graphflow.check import check
from graphflow.cli import run as command
from graphflow.cli.app import app
from graphflow.errors import Mark
from graphflow.models.preset import load_preset
from graphflow.session import Session
from graphflow.spec import find_graph, load_spec, shipped_graphs
from graphflow.yamlfile import YamlMap, read_text

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LANGUAGES = {"sh", "console", "yaml", "python", "toml", "text", ""}
WORDS = {"file", "broken", "exit", "output", "excerpt", "not run"}
MADE = "nodes.md"  # generated: it has no snippets
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w-]*)$")
_COMMENT = re.compile(r"^<!-- (.*) -->$")
_NUMBER = re.compile(r"\d[\d,.]*( ?(ms|s|min|B|[KMG]iB)\b)?")


@dataclass(frozen=True)
class Block:
    """A fenced block with what the comments before it say."""

    page: Path
    line: int
    language: str
    text: str
    words: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    lines = page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        found = _FENCE.match(lines[number])
        number += 1
        if found is None:
            continue
        start, text = number, []
        while lines[number].strip() != "```":
            text.append(lines[number].removeprefix(found["indent"]))
            number += 1
        number += 1
        yield Block(page, start, found["language"], "\n".join(text) + "\n", words_before(lines, start - 1))


def words_before(lines: list[str], fence: int) -> dict[str, str]:
    """What the comment before a fence says."""
    found = _COMMENT.match(lines[fence - 1].strip()) if fence else None
    entries = [entry.partition(":") for entry in found[1].split(";")] if found else []
    return {name.strip(): value.strip() for name, _, value in entries}


def commands(block: Block) -> list[tuple[str, list[str]]]:
    """The block's commands with the lines of output below each."""
    out: list[tuple[str, list[str]]] = []
    prompt = "$ " if block.language == "console" else ""
    lines = iter(block.text.splitlines())
    for line in lines:
        if not line.startswith(prompt) or not line.strip():
            if out:
                out[-1][1].append(line)
            continue
        text = line.removeprefix(prompt)
        while text.endswith("\\"):
            text = text[:-1] + next(lines).strip()
        out.append((text, []))
    return out


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("docs-store")


@pytest.fixture
def folder(tmp_path: Path, shared_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a page is run."""
    work = tmp_path / "work"
    work.mkdir()
    pictures = ROOT / "graphs" / "pictures"
    shutil.copy(pictures / "cat.png", work / "cat.png")
    (work / "photos").mkdir()
    for name, shows_a_cat in (("cat.png", "cat.png"), ("dog.png", "exemplar_before.png")):
        shutil.copy(pictures / shows_a_cat, work / "photos" / name)  # README turns the cat of every photo into a dog
    shutil.copytree(ROOT / "graphs", work / "graphs")
    shutil.copy(ROOT / "tests" / "docs" / "files" / "edit.yaml", work / "edit.yaml")
    monkeypatch.chdir(work)
    monkeypatch.setenv("GRAPHFLOW_STORE", str(shared_store))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("COLUMNS", "100")
    run = Session.run

    def short(self: Session, *arguments: Any, **given: Any) -> Any:
        return run(self, *arguments, **{**({"steps": 2} if "steps" in self.graph.inputs else {}), **given})

    monkeypatch.setattr(Session, "run", short)
    return work


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != MADE], ids=lambda page: page.name)
def test_every_snippet_of_a_page_works(page: Path, folder: Path) -> None:
    names = types.ModuleType(f"snippets_of_{page.stem.replace('-', '_')}")
    sys.modules[names.__name__] = names
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{block}: unknown language '{block.language}'"
        assert block.words.keys() <= WORDS, f"{block}: unknown words {sorted(block.words.keys() - WORDS)}"
        if "file" in block.words:
            path = folder / block.words["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        if "excerpt" in block.words:
            is_excerpt(block)
        elif block.language in ("sh", "console"):
            run_commands(block, folder)
        elif block.language == "yaml":
            check_yaml(block, folder)
        elif block.language == "python":
            code = compile(block.text, str(block), "exec")
            if "file" in block.words and "Node, kind=" in block.text:
                registry.load_file(folder / block.words["file"])
            elif not block.words.keys() & {"file", "not run"}:
                exec(code, vars(names))
        elif block.language == "toml":
            tomllib.loads(block.text)


def is_excerpt(block: Block) -> None:
    lines = iter((ROOT / block.words["excerpt"]).read_text(encoding="utf-8").splitlines())
    for line in block.text.splitlines():
        assert not line.strip() or line in lines, f"{block}: {block.words['excerpt']} has no such line here: {line}"


def check_yaml(block: Block, folder: Path) -> None:
    data = read_text(block.text, str(block))
    kind = next((k for k in ("graphflow", "graphflow-preset") if isinstance(data, YamlMap) and k in data), None)
    if kind is None or "broken" in block.words:
        return
    path = folder / block.words.get("file", f"snippet-{block.line}.yaml")
    path.write_text(block.text, encoding="utf-8")
    if kind == "graphflow":
        assert check(load_spec(path)).warnings == [], str(block)
    else:
        load_preset(path.name, Mark(str(block)), folder)


def run_commands(block: Block, folder: Path) -> None:
    found = commands(block)
    for number, (text, expected) in enumerate(found, 1):
        last = number == len(found)
        words = shlex.split(text, comments=True)
        if not words or words[0] not in ("graphflow", "pytest", "sed"):
            continue
        if "not run" in block.words:
            if words[0] == "graphflow":
                parses(block, words[1:])
            continue
        code, said = run_command(words, text, folder)
        wanted = int(block.words.get("exit", 0)) if last else 0
        assert code == wanted, f"{block}: {text}\nexit code {code}, expected {wanted}\n{said}"
        if "output" in block.words:
            assert matches(expected, said.splitlines()), f"{block}: {text}\nprinted:\n{said}"


def run_command(words: list[str], text: str, folder: Path) -> tuple[int, str]:
    """Run a command in the page's folder: exit code, and what it said."""
    target = None
    if len(words) > 2 and words[-2] == ">":
        target, words = folder / words[-1], words[:-2]
    if words[0] != "graphflow":
        program = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"] if words[0] == "pytest" else ["sed"]
        done = subprocess.run([*program, *words[1:]], capture_output=True, text=True, cwd=folder, check=False)
        code, said, complained = done.returncode, done.stdout, done.stderr
    else:
        out, errors = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(errors):
            code = command(with_few_steps(words[1:]))
        said, complained = out.getvalue(), errors.getvalue()
    if target is not None:
        target.write_text(said, encoding="utf-8")
        said = ""
    return code, complained + said


def with_few_steps(arguments: list[str]) -> list[str]:
    """The arguments, with two steps for a graph that has them and is not told how many."""
    if len(arguments) < 2 or arguments[0] not in ("run", "plan", "why") or any("steps=" in a for a in arguments):
        return arguments
    name = arguments[1]
    if name.endswith(".png") or not (name in shipped_graphs() or Path(name).is_file()):
        return arguments
    return [*arguments, "-i", "steps=2"] if "steps" in load_spec(find_graph(name)).inputs else arguments


def parses(block: Block, arguments: list[str]) -> None:
    """Check that the command and its options exist, without running it."""
    found: Any = typer.main.get_command(app)
    context = None
    try:
        while True:
            context = found.make_context(found.name or "graphflow", list(arguments), parent=context)
            if not hasattr(found, "resolve_command") or not (context._protected_args or context.args):
                return
            _, found, arguments = found.resolve_command(context, [*context._protected_args, *context.args])
    except Exception as error:
        pytest.fail(f"{block}: graphflow {shlex.join(arguments)}: {getattr(error, 'message', error)}")


def matches(expected: list[str], printed: list[str]) -> bool:
    """Whether a command printed what the page shows, apart from numbers, spaces and trailing blank lines."""
    pattern = [plain(line) for line in expected]
    while pattern and not pattern[-1]:
        pattern.pop()
    parts = [re.escape(line) + r"\n" if line != "…" else r"(.*\n)*?" for line in pattern]
    return re.fullmatch("".join(parts) + r"\s*", "".join(plain(line) + "\n" for line in printed)) is not None


def plain(line: str) -> str:
    return " ".join(_NUMBER.sub("#", line).split())


def test_a_page_is_read_as_it_is_meant(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "text\n\n<!-- file: a.yaml; broken -->\n```yaml\na: 1\n```\n\n- item\n\n  ```console\n  $ graphflow check \\\n"
        "        a.yaml  # comment\n  said 3.5 s\n  $ ls\n  ```\n"
    )
    first, second = blocks(page)
    assert (first.language, first.text, first.words) == ("yaml", "a: 1\n", {"file": "a.yaml", "broken": ""})
    assert commands(second) == [("graphflow check a.yaml  # comment", ["said 3.5 s"]), ("ls", [])]
    assert matches(["said 4 s", "…", "end", ""], ["said 3.5 s ", "more", "end"])
    assert not matches(["said 4 s"], ["said nothing"])
