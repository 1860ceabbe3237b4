"""``plan --simulate``: the option, what is assumed, and what is printed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest
from harness import Harness

from graphflow.cli import run as graphflow
from graphflow.errors import UsageError
from graphflow.scheduler.whatif import LENGTH, Machine, parse_machine, what_if
from graphflow.store import Store

MAPPED = """
graphflow: 1
inputs:
  text: {type: Text, default: x}
nodes:
  list: {uses: sample.repeat, in: {text: inputs.text}, with: {times: 3}}
  loud: {uses: sample.shout, map: {text: list.texts}}
  long: {uses: sample.count, map: {text: loud.text}}
outputs: {lengths: long.length}
"""
TWICE = """
graphflow: 1
inputs:
  texts: {type: "list[Text]", default: [a, b, a]}
  other: {type: Text, default: o}
nodes:
  each: {uses: inside.yaml, map: {text: inputs.texts}, in: {other: inputs.other}}
outputs: {lengths: each.length, texts: each.text}
"""
INSIDE = """
graphflow: 1
inputs:
  text: {type: Text}
  other: {type: Text}
nodes:
  loud: {uses: sample.shout, in: {text: inputs.text}}
  long: {uses: sample.count, in: {text: loud.text}}
  same: {uses: sample.shout, in: {text: inputs.other}}
  more: {uses: sample.shout, in: {text: same.text}}
outputs: {length: long.length, text: more.text}
"""


def test_hardware_is_read_with_its_units() -> None:
    found = parse_machine("gpus=2, memory=24GiB, load=3GB/s, transfer=25GB/s, speed=1.5, cpus=8")
    assert found == Machine(2, 24 * 2**30, 3 * 10**9, 25 * 10**9, 1.5, 8)
    assert parse_machine("") == Machine()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpu=2", "did you mean gpus?"),
        ("memroy=2GB", "did you mean memory?"),
        ("colour=red", "expected gpus=…, memory=…"),
        ("24GiB", "expected gpus=…"),
        ("gpus=two", "'two' is no number from 0"),
        ("gpus=1,gpus=2", "gpus stands twice"),
        ("memory=much", "'much' is no size"),
        ("memory=0GiB", "more than no memory"),
        ("memory=24", "'24' has no unit; expected a size such as 24GiB"),
        ("load=2/s", "'2' has no unit"),
        ("speed=0", "no factor above 0"),
    ],
)
def test_hardware_that_is_not_understood_is_an_error(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_machine(text)
    assert message in str(caught.value)


def test_the_length_of_an_unknown_list_is_assumed_and_said(store: Store) -> None:
    session = Harness(store, MAPPED).session()
    out = what_if(session.plan(), session.graph, Machine(), "float32", {}, {})
    assert out.lengths == {"loud": LENGTH}
    assert len(out.result.finished) == 1 + 2 * LENGTH


@pytest.mark.parametrize("name", ["list.texts", "loud"])
def test_the_length_can_be_given_by_the_list_or_the_mapped_node(store: Store, name: str) -> None:
    session = Harness(store, MAPPED).session()
    out = what_if(session.plan(), session.graph, Machine(), "float32", {name: 7}, {})
    assert [t.name for t in out.tasks if t.name.startswith("loud")] == [f"loud[{i}]" for i in range(7)]


def test_a_list_that_is_not_there_is_an_error(store: Store) -> None:
    session = Harness(store, MAPPED).session()
    with pytest.raises(UsageError, match=r"did you mean list\.texts\?"):
        what_if(session.plan(), session.graph, Machine(), "float32", {"list.text": 7}, {})


def test_a_length_that_is_known_is_not_assumed(store: Store) -> None:
    h = Harness(store, MAPPED)
    h.run()
    session = h.session({"loud.mark": "?"})
    out = what_if(session.plan(), session.graph, Machine(), "float32", {"loud": 99}, {})
    assert out.lengths == {}
    assert [t.name for t in out.tasks] == ["loud[0]", "long[0]"], "the others compute the same"
    assert out.known == {"loud", "long"}


def test_of_instances_that_compute_the_same_one_is_counted(store: Store, tmp_path: Path) -> None:
    (tmp_path / "inside.yaml").write_text(INSIDE)
    session = Harness(store, TWICE, tmp_path).session()
    out = what_if(session.plan(), session.graph, Machine(), "float32", {}, {})
    names = sorted(t.name for t in out.tasks)
    assert names == sorted(
        ["each[0]/loud", "each[1]/loud", "each[0]/long", "each[1]/long", "each[0]/same", "each[0]/more"]
    )


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for i in range(3):
        PIL.Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / "in" / f"{i}.png")
    return tmp_path / "in"


def test_the_command_prints_sums_devices_models_a_timeline_and_what_was_assumed(
    pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert graphflow(["plan", "pix2pix_on_the_fly", "--map", f"image={pictures}", "--simulate", "memory=40MiB"]) == 0
    out = capsys.readouterr().out
    assert "30.1 s for 30 tasks" in out or "30.0 s for 30 tasks" in out
    assert "6 models, " in out
    assert "gpu:0 █" in out
    assert "never run, taken as 1.00 s each: caption, captions.before_after" in out


def test_the_command_prints_json(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert graphflow(["plan", "instruct_pix2pix", "--map", f"image={pictures}", "--simulate", "gpus=2", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert set(data["devices"]) == {"gpu:0", "gpu:1", "host"}
    assert data["makespan"] >= data["lower_bound"]["seconds"] > 0
    assert sum(span["count"] for span in data["timeline"] if span["what"] == "run") == data["tasks"]


def test_sizes_of_models_can_be_assumed(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["plan", "instruct_pix2pix", "--simulate", "memory=8GB", "--assume", "vae=335MB", "--assume"]
    assert graphflow([*command, "instruct_denoiser=4GB"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["instruct_denoiser", "3.7", "GiB", "2.00", "s", "0.20", "s", "1"] in rows
    assert ["vae", "319.5", "MiB", "0.17", "s", "17", "ms", "1"] in rows
    assert graphflow([*command, "instruct_denoser=4GB"]) == 2
    assert "did you mean instruct_denoiser?" in capsys.readouterr().err
    assert graphflow([*command, "instruct_denoiser=much"]) == 2
    assert "expected the length of a list, such as 32, or the size of a model" in capsys.readouterr().err


def test_an_assumption_without_a_simulation_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert graphflow(["plan", "instruct_pix2pix", "--assume", "x=3"]) == 2
    assert "--assume goes with --simulate" in capsys.readouterr().err


def test_a_simulation_imports_no_torch(pictures: Path) -> None:
    code = (
        "import sys; from graphflow.cli import run;"
        f"run(['plan', 'instruct_pix2pix', '--map', 'image={pictures}', '--simulate', 'gpus=1000']);"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
