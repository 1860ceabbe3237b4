"""Two threads that import packages which import each other: nobody's work fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Harness
from pools import Watched
from torch import nn

from graphflow import imports
from graphflow.imports import importing
from graphflow.models import refs
from graphflow.models.refs import ModelRef
from graphflow.node import Context, Node, Ports
from graphflow.ports import Text
from graphflow.store import Store

HALF_THERE = "cannot import name 'PreTrainedModel' from 'transformers'"
FAILING: list[Exception] = []


class Importer(Node, kind="imports.node", version=1):
    """Fails as often as there is something in `FAILING`."""

    class In(Ports):
        pass

    class Out(Ports):
        text: Text

    def run(self, x: In, ctx: Context) -> Out:
        if FAILING:
            raise FAILING.pop()
        return self.Out(text="done")


@pytest.fixture
def pool() -> Iterator[Watched]:
    made = Watched()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "WAITS", (0.01, 0.02, 0.03))
    FAILING.clear()


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def handled(error: Exception, before: Exception) -> Exception:
    error.__context__ = before
    return error


def failing(errors: list[Exception], calls: list[int]) -> Any:
    def call() -> str:
        calls.append(1)
        if errors:
            raise errors.pop(0)
        return "done"

    return call


def test_a_package_that_is_half_there_in_another_thread_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each package imports the other, which works in either order; of two threads Python lets one see a half."""
    events = {"left": threading.Event(), "right": threading.Event()}
    monkeypatch.setattr(threading, "events", events, raising=False)
    meet = "import threading, time\nthreading.events['{}'].set()\nthreading.events['{}'].wait(10)\n"
    (tmp_path / "gf_left.py").write_text(
        meet.format("left", "right") + "time.sleep(0.3)  # the last to wait is let through\nfrom gf_right import LATE\n"
    )
    (tmp_path / "gf_right.py").write_text(
        meet.format("right", "left") + "try:\n    import gf_left\nexcept ImportError:\n    pass\nLATE = 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    errors: list[Exception] = []
    found: list[int] = []

    def left() -> None:
        try:
            from gf_left import LATE
        except ImportError as error:
            errors.append(error)
            raise
        found.append(LATE)

    threads = [threading.Thread(target=f) for f in (lambda: importing(left), lambda: __import__("gf_right"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [type(error) for error in errors] == [ImportError]
    assert "partially initialized module" in str(errors[0])
    assert found == [1]


@pytest.mark.parametrize(
    "error",
    [
        ImportError(HALF_THERE),
        RuntimeError("Failed to import diffusers.models.unets.unet_2d_condition because of the following error"),
        AttributeError("partially initialized module 'a' has no attribute 'b' (most likely due to a circular import)"),
        caused(ValueError("no such class"), ImportError(HALF_THERE)),
    ],
)
def test_what_may_succeed_later_is_tried_again(error: Exception) -> None:
    calls: list[int] = []
    assert importing(failing([error, error], calls)) == "done"
    assert len(calls) == 3


@pytest.mark.parametrize(
    "error",
    [
        ValueError("something else"),
        AttributeError("'int' object has no attribute 'b'"),
        ModuleNotFoundError("No module named 'sentencepiece'", name="sentencepiece"),
        caused(ImportError("no tokenizer"), ModuleNotFoundError("No module named 'x'", name="x")),
        handled(ValueError("the picture is too small"), ImportError(HALF_THERE)),
    ],
)
def test_what_will_fail_again_is_not(error: Exception) -> None:
    calls: list[int] = []
    with pytest.raises(type(error)):
        importing(failing([error], calls))
    assert len(calls) == 1


def test_what_fails_late_is_not_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "EARLY", -1.0)
    calls: list[int] = []
    with pytest.raises(ImportError, match="PreTrainedModel"):
        importing(failing([ImportError(HALF_THERE)], calls))
    assert len(calls) == 1


def test_it_is_given_up_after_the_fourth_attempt() -> None:
    calls: list[int] = []
    with pytest.raises(ImportError, match="PreTrainedModel"):
        importing(failing([ImportError(HALF_THERE) for _ in range(9)], calls))
    assert len(calls) == 4


def test_a_node_whose_import_failed_runs_again(store: Store) -> None:
    graph = "graphflow: 1\nnodes:\n  a: {uses: imports.node}\noutputs: {text: a.text}\n"
    FAILING.append(ImportError(HALF_THERE))
    assert Harness(store, graph).run()["text"] == "done"
    assert not FAILING


def test_a_model_whose_import_failed_is_loaded_again(
    pool: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[Exception] = [ImportError(HALF_THERE)]

    def load(ref: Any, folder: Any, device: Any, dtype: Any) -> nn.Module:
        if errors:
            raise errors.pop()
        return nn.Linear(2, 2)

    known = dict(refs.loaders()) | {"late": refs.Loader("late", "vae", load, ())}
    monkeypatch.setattr(refs, "_LOADERS", known)
    assert isinstance(pool.get(ModelRef("vae", "late", "x", path=tmp_path)), nn.Linear)
    assert len(pool.loads()) == 1
