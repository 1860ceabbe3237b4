"""A long node that saves what it has done: killed in the middle, the same command goes on there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

PACK = '''
"""A node that works in steps and saves after each."""

import hashlib
import json
import os
import time

from graphflow.node import Context, Field, Node, Ports
from graphflow.ports import Text


class Chain(Node, kind="checkpoints.chain"):
    """A chain of digests, a step at a time; it stops before the last steps while a file called `wait` is there."""

    steps: int = Field(8, description="how long the chain is")

    class In(Ports):
        text: Text

    class Out(Ports):
        text: Text

    def run(self, x, ctx):
        first, state = self.restore(ctx.checkpoint, x.text)
        for number in ctx.steps(range(first, self.steps)):
            print("step", number, flush=True)
            state = hashlib.sha256(state.encode()).hexdigest()
            self.save(ctx.checkpoint, number + 1, state)
            while number >= 4 and os.path.exists("wait"):
                for _ in ctx.steps([0]):
                    time.sleep(0.01)
        return self.Out(text=state)

    def save(self, folder, done, state):
        saved = {"done": done, "state": state, "check": hashlib.sha256(f"{done} {state}".encode()).hexdigest()}
        (folder / "part").write_text(json.dumps(saved))
        os.replace(folder / "part", folder / "last.json")

    def restore(self, folder, text):
        try:
            saved = json.loads((folder / "last.json").read_text())
            done, state = saved["done"], saved["state"]
            if saved["check"] == hashlib.sha256(f"{done} {state}".encode()).hexdigest():
                return done, state
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return 0, text
'''
GRAPH = """graphflow: 1
inputs: {text: {type: Text, default: hello}}
nodes:
  shout: {uses: sample.shout, in: {text: inputs.text}}
  chain: {uses: checkpoints.chain, in: {text: shout.text}}
outputs: {text: chain.text}
"""
SAMPLES = str(Path(__file__).with_name("samples.py"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pack.py").write_text(PACK)
    (tmp_path / "g.yaml").write_text(GRAPH)
    return tmp_path


def start(store: str, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from graphflow.cli import main; main()", "run", "g.yaml", "--store", store,
               "--nodes", SAMPLES, "--nodes", "pack.py", "--out", f"out-{store}", "-q", *more]  # fmt: skip
    # A job in the background ignores SIGINT, and its children would inherit that.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed)


def finish(store: str, *more: str) -> tuple[list[int], str]:
    """Run to the end; returns the steps that were done, and the result."""
    out, errors = (process := start(store, *more)).communicate(timeout=120)
    assert process.returncode == 0, errors
    steps = [int(line.split()[1]) for line in out.splitlines() if line.startswith("step")]
    return steps, Path(f"out-{store}/text.txt").read_text()


def stop_at(store: str, step: int, how: signal.Signals) -> int:
    """Begin, and stop the process when it has saved this step; returns its exit code."""
    Path("wait").touch()
    process = start(store)
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == f"step {step}":
            break
    while steps_saved(store) <= step:
        assert process.poll() is None
    os.kill(process.pid, how)
    process.wait(timeout=60)
    process.stdout.close()
    Path("wait").unlink()
    return process.returncode


def steps_saved(store: str) -> int:
    return max((json.loads(p.read_text())["done"] for p in Path(store).glob("checkpoints/*/last.json")), default=0)


def checkpoints(store: str) -> list[Path]:
    return list(Path(store).glob("checkpoints/*"))


@pytest.mark.parametrize(("how", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_the_rerun_goes_on_from_the_checkpoint_and_ends_with_the_same_bytes(
    folder: Path, how: signal.Signals, code: int
) -> None:
    undisturbed = finish("calm")
    assert undisturbed[0] == list(range(8))
    assert stop_at("store", 4, how) == code
    assert not Path("out-store/text.txt").exists()
    assert len(checkpoints("store")) == 1
    steps, result = finish("store")
    assert steps == [5, 6, 7]
    assert result == undisturbed[1]
    assert not checkpoints("store"), "a finished node needs none"
    assert finish("store") == ([], result)
    verify = subprocess.run(
        [sys.executable, "-c", "from graphflow.cli import main; main()", "cache", "verify", "--store", "store"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert verify.returncode == 0, verify.stdout


@pytest.mark.parametrize("damage", ["cut", "flipped", "removed", "a folder"])
def test_a_damaged_checkpoint_begins_anew(folder: Path, damage: str) -> None:
    stop_at("store", 4, signal.SIGKILL)
    [saved] = Path("store").glob("checkpoints/*/last.json")
    data = saved.read_bytes()
    saved.unlink()
    match damage:
        case "cut":
            saved.write_bytes(data[:-10])
        case "flipped":
            saved.write_bytes(data.replace(b'"state": "', b'"state": "f'))
        case "a folder":
            saved.with_name("last.json.old").mkdir()
    steps, result = finish("store")
    assert steps == list(range(8))
    assert result == finish("calm")[1]


def test_a_checkpoint_belongs_to_a_key(folder: Path) -> None:
    stop_at("store", 4, signal.SIGKILL)
    assert finish("store", "--set", "chain.steps=6")[0] == list(range(6)), "other parameters, another computation"
    assert finish("store", "-i", "text=bye")[0] == list(range(8)), "other inputs, too"
    assert finish("store", "-i", "text=HELLO")[0] == [5, 6, 7], "the same inputs after all"
