"""From an old format to the newest: comments and layout stay, and nothing is lost."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from graphflow import migrate
from graphflow.cli import run as graphflow
from graphflow.errors import InvalidError
from graphflow.models import preset
from graphflow.spec import FORMAT, load_spec
from graphflow.version import __version__

OLD = """# a comment
graphflow: 1   # the format
nodes:
  a: {uses: caption, in: {image: inputs.photo}}   # another comment

outputs: {text: a.text}
"""
NEW = OLD.replace("graphflow: 1", "graphflow: 2").replace("uses: caption", "uses: caption.image")


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A world in which format 2 calls a kind by another name; returns an old file."""
    monkeypatch.setitem(migrate.NEWEST, "graphflow", 2)
    monkeypatch.setitem(
        migrate.STEPS["graphflow"], 1, lambda text: re.sub(r"uses: caption\b", "uses: caption.image", text)
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.yaml").write_text(OLD)
    return tmp_path / "old.yaml"


def test_every_older_format_has_a_step() -> None:
    for key, newest in migrate.NEWEST.items():
        assert sorted(migrate.STEPS[key]) == list(range(1, newest))
    assert migrate.NEWEST == {"graphflow": FORMAT, "graphflow-preset": preset.FORMAT, "graphflow-bench": 1}


def test_an_old_file_is_rewritten_and_its_original_kept(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two.chmod(0o640)
    assert graphflow(["migrate", "old.yaml"]) == 0
    assert two.read_text() == NEW
    assert two.with_name("old.yaml.bak").read_text() == OLD
    assert two.stat().st_mode & 0o777 == 0o640
    assert "old.yaml: was in format 1" in capsys.readouterr().out
    assert sorted(p.name for p in two.parent.iterdir()) == ["old.yaml", "old.yaml.bak"]


def test_a_second_time_changes_nothing(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graphflow(["migrate", "old.yaml"])
    two.with_name("old.yaml.bak").unlink()
    before = two.stat().st_mtime_ns
    assert graphflow(["migrate", "old.yaml"]) == 0
    assert "in the newest format, 2" in capsys.readouterr().out
    assert two.stat().st_mtime_ns == before
    assert not two.with_name("old.yaml.bak").exists()


def test_check_writes_nothing_and_exits_with_3(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert graphflow(["migrate", "--check", "old.yaml"]) == 3
    assert two.read_text() == OLD
    said = capsys.readouterr().err
    assert "old.yaml:2:12: GF011 format version 1 is old; this graphflow reads 2" in said
    assert "hint: graphflow migrate old.yaml" in said
    graphflow(["migrate", "old.yaml"])
    assert graphflow(["migrate", "--check", "old.yaml"]) == 0


def test_steps_follow_each_other(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(migrate.NEWEST, "graphflow", 3)
    monkeypatch.setitem(migrate.STEPS["graphflow"], 2, lambda text: text.replace("outputs:", "gives:"))
    expected = NEW.replace("graphflow: 2", "graphflow: 3").replace("outputs:", "gives:")
    assert migrate.migrated(two) == expected


@pytest.mark.parametrize("text", ["\ufeff" + OLD, OLD.replace("\n", "\r\n"), "{graphflow: 1, uses: caption}"])
def test_line_ends_and_the_byte_order_mark_stay(two: Path, text: str) -> None:
    two.write_bytes(text.encode())
    changed = text.replace("graphflow: 1", "graphflow: 2").replace("uses: caption", "uses: caption.image")
    assert migrate.migrated(two) == changed


def test_a_copy_in_the_way_is_never_overwritten(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two.with_name("old.yaml.bak").write_text("precious")
    assert graphflow(["migrate", "old.yaml"]) == 2
    assert "old.yaml.bak is in the way" in capsys.readouterr().err
    assert two.read_text() == OLD
    assert two.with_name("old.yaml.bak").read_text() == "precious"


def test_one_bad_file_leaves_the_others_alone(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (two.parent / "bad.yaml").write_text("graphflow: [1\n")
    assert graphflow(["migrate", "old.yaml", "bad.yaml"]) == 3
    assert "bad.yaml:2:1: GF002" in capsys.readouterr().err
    assert two.read_text() == OLD


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("graphflow: 7\n", f":1:12: GF011 format version 7 is too new for graphflow {__version__}, which reads 1"),
        ("graphflow: one\n", ":1:12: GF011 format version 'one' is unknown"),
        ("graphflow: true\n", "GF011 format version True is unknown"),
        ("graphflow: 0\n", "GF011 format version 0 is unknown"),
        ("nodes: {}\n", "has no format version"),
        ("- 1\n", "has no format version"),
        ("", "is empty"),
    ],
)
def test_what_can_not_be_migrated_is_said(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text(text)
    with pytest.raises(InvalidError) as caught:
        migrate.version_of(tmp_path / "g.yaml")
    assert says in str(caught.value)


def test_a_version_behind_an_anchor_is_refused(two: Path) -> None:
    two.write_text("graphflow: &v 1\nx: *v\n")
    with pytest.raises(InvalidError, match="write the format version as the number 1"):
        migrate.migrated(two)


def test_presets_have_versions_of_their_own(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(migrate.NEWEST, "graphflow-preset", 2)
    monkeypatch.setitem(migrate.STEPS["graphflow-preset"], 1, lambda text: text.replace("vae:", "autoencoder:"))
    two.write_text("graphflow-preset: 1\nmodels: {vae: {}}\n")
    assert migrate.migrated(two) == "graphflow-preset: 2\nmodels: {autoencoder: {}}\n"


def test_running_a_newer_file_names_the_version_that_reads_it(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text(OLD.replace("graphflow: 1", "graphflow: 2"))
    with pytest.raises(InvalidError, match=f"too new for graphflow {__version__}"):
        load_spec(tmp_path / "g.yaml")


def test_running_an_old_file_says_how_to_migrate(two: Path) -> None:
    with pytest.raises(InvalidError, match="hint: graphflow migrate old.yaml"):
        load_spec(Path("old.yaml"))
