"""What `check` prints for people, programs, and GitHub, whose workflow commands have escapes of their own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from graphflow.cli import run as graphflow

GOOD = """graphflow: 1
nodes:
  a: {uses: sample.shout, in: {text: inputs.text}}
inputs: {text: Text}
outputs: {text: a.text}
"""
UNUSED = GOOD.replace("inputs: {", "  b: {uses: sample.count, in: {text: a.text}}\ninputs: {")
BAD = 'graphflow: 1\nnodes:\n  a: {uses: "sample.sho%ut\\n,:", with: {x: 1}}\noutputs: {text: b.text}\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(line: str) -> tuple[str, dict[str, str], str]:
    """A workflow command taken apart as GitHub's runner does it."""
    match = re.fullmatch(r"::(\w+) ([^:]*)::(.*)", line)
    assert match, line
    properties = dict(part.split("=", 1) for part in match[2].split(","))
    for escape, character in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        properties = {k: v.replace(escape, character) for k, v in properties.items()}
    text = match[3]
    for escape, character in (("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
        text = text.replace(escape, character)
    return match[1], properties, text


@pytest.mark.parametrize("name", ["g.yaml", "a,b=c:d %41 100%.yaml", "façade 🦊.yaml", "%0A%2C.yaml"])
def test_github_reads_back_every_name_and_message(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / name).write_text(BAD)
    assert graphflow(["check", name, "--format", "json"]) == 3
    expected = json.loads(capsys.readouterr().out)
    assert graphflow(["check", name, "--format", "github"]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(expected) == 2
    for line, found in zip(lines, expected, strict=True):
        severity, properties, text = command(line)
        assert severity == "error"
        assert properties == {"file": name, "line": str(found["line"]), "col": str(found["column"])}
        assert text == f"{found['code']} {found['message']}" + (f" ({found['hint']})" if found["hint"] else "")


def test_a_colon_and_a_comma_in_a_file_name_are_escaped(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a,b:c.yaml").write_text(BAD)
    graphflow(["check", "a,b:c.yaml", "--format", "github"])
    assert capsys.readouterr().out.startswith("::error file=a%2Cb%3Ac.yaml,line=3,col=13::GF101 ")


def test_warnings_are_said_in_every_format_and_exit_with_0(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "g.yaml").write_text(UNUSED)
    assert graphflow(["check", "g.yaml"]) == 0
    assert "g.yaml:4:3: GF150" in capsys.readouterr().out
    assert graphflow(["check", "g.yaml", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["severity"] == "warning"
    assert graphflow(["check", "g.yaml", "--format", "github"]) == 0
    assert capsys.readouterr().out.startswith("::warning file=g.yaml,line=4,col=3::GF150 ")


def test_nothing_found_is_an_empty_list_or_no_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "g.yaml").write_text(GOOD)
    assert graphflow(["check", "g.yaml", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert graphflow(["check", "g.yaml", "--format", "github"]) == 0
    assert capsys.readouterr().out == ""


PRESET = "graphflow-preset: 1\nmodels: {vae: {loader: diffusers.vae, path: weights}}\n"
BENCH = """graphflow-bench: 1
data: {uses: dataset.pocket}
models: pocket
methods: {swap: {uses: prompt_swap}}
metrics: {pocket: {uses: pocket_score.edit}}
"""


@pytest.mark.parametrize(
    ("text", "right", "slip", "wrong"),
    [
        (PRESET, "a preset of 1 model, no errors", (".vae", ".vea"), "x.yaml:2:24: GF122 model 'vae' names no known"),
        (BENCH, "a bench of 1 method and 1 metric, no errors", ("swap}", "swp}"), "x.yaml:4:24: GF101 method 'swap'"),
    ],
    ids=["preset", "bench"],
)
def test_a_file_is_checked_as_what_it_is(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str, right: str, slip: tuple[str, str], wrong: str
) -> None:
    (folder / "x.yaml").write_text(text)
    assert graphflow(["check", "x.yaml"]) == 0
    assert capsys.readouterr().out == f"x.yaml: {right}\n"
    assert graphflow(["plan", "x.yaml"]) == 3
    said = capsys.readouterr().err
    assert "GF010 is a" in said
    assert "graphflow check x.yaml checks it" in said
    assert "GF011" not in said
    (folder / "x.yaml").write_text(text.replace(*slip))
    assert graphflow(["check", "x.yaml"]) == 3
    assert capsys.readouterr().out.startswith(wrong)


def test_a_preset_takes_no_options_of_graphs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "x.yaml").write_text(PRESET)
    assert graphflow(["check", "x.yaml", "--models", "pocket"]) == 2
    assert "x.yaml is a preset: --set and --models are for graphs" in capsys.readouterr().err


def test_json_says_all_there_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "g.yaml").write_text(GOOD.replace("sample.shout", "sample.shuot"))
    graphflow(["check", "g.yaml", "--format", "json"])
    found = json.loads(capsys.readouterr().out)[0]
    assert found == {
        "file": "g.yaml", "line": 3, "column": 13, "code": "GF101", "severity": "error",
        "message": "node 'a': there is no kind 'sample.shuot'", "hint": "did you mean sample.shout?",
    }  # fmt: skip
