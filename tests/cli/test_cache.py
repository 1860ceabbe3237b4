"""``graphflow cache``: what is stored, what goes, what stays."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import PIL.Image
import pytest
import samples

from graphflow.cli import run as graphflow

GRAPH = """\
graphflow: 1
inputs: {image: Image, text: {type: Text, default: hi}}
nodes:
  negative: {uses: sample.invert, in: {image: inputs.image}}
  shout: {uses: sample.shout, with: {mark: "?"}, in: {text: x.text}}
  x: {uses: sample.join, in: {texts: [y.text]}}
  y: {uses: sample.shout, in: {text: inputs.text}}
outputs: {image: negative.image, text: shout.text}
"""


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """The out folder of a run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "g.yaml").write_text(GRAPH)
    PIL.Image.effect_noise((32, 32), 90).convert("RGB").save("a.png")
    assert samples.RUNS.total() == 0
    assert graphflow(["run", "g.yaml", "-i", "image=a.png", "--out", "out", "-q"]) == 0
    capsys.readouterr()
    return tmp_path / "out"


def answer(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """What a command prints."""
    assert graphflow(["cache", *arguments]) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.out + captured.err


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, object]]:
    """``cache ls --json``."""
    found: list[dict[str, object]] = json.loads(answer(capsys, "ls", "--json", *arguments))
    return found


def test_results_are_listed_by_kind_and_number(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    everything = listed(capsys)
    assert sorted(str(r["node"]) for r in everything) == ["negative", "shout", "x", "y"]
    assert [r["node"] for r in listed(capsys, "--kind", "sample.invert")] == ["negative"]
    assert listed(capsys, "--limit", "2") == everything[:2]
    assert "g.negative" in answer(capsys, "ls")


def test_a_pinned_run_outlives_the_budget(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "pin", "out/image.png", "--name", "figure 1") == "pinned as 'figure 1': 4 results, 2 inputs\n"
    assert "figure 1" in answer(capsys, "pins")
    assert "0 evicted" in answer(capsys, "gc", "--budget", "0", "--older-than", "0s")
    assert graphflow(["plan", "out/image.png", "--check"]) == 0
    capsys.readouterr()
    assert "did you mean figure 1?" in answer(capsys, "unpin", "figure", code=2)
    assert "6 entries" in answer(capsys, "unpin", "figure 1")
    assert "4 results removed" in answer(capsys, "gc", "--older-than", "0s")
    assert listed(capsys) == []


def test_a_dry_run_names_what_would_go(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = answer(capsys, "gc", "--budget", "0", "--dry-run")
    assert "would evict" in said
    assert "g.negative" in said
    assert not any(r["evicted"] for r in listed(capsys))
    assert "1 evicted" in answer(capsys, "gc", "--budget", "0")
    assert [r["node"] for r in listed(capsys) if r["evicted"]] == ["negative"]
    assert graphflow(["plan", "g.yaml", "-i", "image=a.png", "--check"]) == 4
    assert "pinned as" in answer(capsys, "pin", "out")


def test_a_result_is_pinned_by_the_beginning_of_its_key(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = next(str(r["key"]) for r in listed(capsys) if r["node"] == "negative")
    assert answer(capsys, "pin", key[:8]) == f"pinned as '{key[:12]}': 1 result, 0 inputs\n"
    answer(capsys, "gc", "--budget", "0", "--older-than", "0s")
    assert [(r["node"], r["pins"]) for r in listed(capsys)] == [("negative", [key[:12]])]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pin", "nothing"], "neither a file nor a key"),
        (["pin", "a.png"], "was not made by graphflow"),
        (["gc", "--budget", "much"], "--budget: 'much' is no size"),
        (["gc", "--older-than", "long"], "--older-than: 'long' is no duration"),
        (["unpin", "nothing"], "nothing is pinned"),
    ],
)
def test_wrong_words_are_refused(
    out: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert message in answer(capsys, *arguments, code=2)


@pytest.mark.parametrize(
    ("typed", "code", "says"), [("", 2, "not removed; use --yes"), ("n\n", 0, "not removed"), ("y\n", 0, " freed")]
)
def test_clear_asks_and_heeds_the_answer(
    out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, typed: str, code: int, says: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    said = answer(capsys, "clear", code=code)
    assert says in said
    assert "interrupted" not in said
    assert bool(listed(capsys)) == (typed != "y\n")


def test_ctrl_c_at_the_question_is_an_interrupt(
    out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", SimpleNamespace(readline=interrupted))
    assert graphflow(["cache", "clear"]) == 130
    capsys.readouterr()
    assert listed(capsys)


def test_a_damaged_value_is_found_by_verify(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "verify") == "all stored values are whole\n"
    png = next((out.parent / "user-store" / "blobs").rglob("*.png"))
    png.write_bytes(png.read_bytes()[:-1])
    assert "truncated or altered" in answer(capsys, "verify", code=1)
    assert answer(capsys, "verify") == "all stored values are whole\n"


def test_a_damaged_index_is_set_aside_with_a_warning(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = out.parent / "user-store"
    (store / "index.sqlite").write_bytes(b"x" * 5000)
    for name in ("index.sqlite-wal", "index.sqlite-shm"):
        (store / name).unlink(missing_ok=True)
    assert graphflow(["cache", "du"]) == 0
    captured = capsys.readouterr()
    assert "warning: the index of the store was set aside as index.damaged-" in captured.err
    assert "of the budget of" in captured.out
    assert graphflow(["run", "g.yaml", "-i", "image=a.png", "--out", "out2", "-q"]) == 0
    assert (out.parent / "out2" / "image.png").read_bytes() != b""
