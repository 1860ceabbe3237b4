"""The contract test finds what a node breaks, and passes what keeps the contract."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from graphflow import registry
from graphflow.node import BatchNode, Context, Field, Node, Ports
from graphflow.ports import Image, Scores, Text
from graphflow.testing import BrokenContract, check_node, check_pack, nodes_of, problems_of


class Good(BatchNode):
    """Repeat a text."""

    times: int = Field(2, ge=1, description="how often")
    seed: int = Field(0, description="seed")

    class In(Ports):
        text: Text

    class Out(Ports):
        text: Text

    def run(self, x: Any, ctx: Context) -> Any:
        return self.Out(text=x.text * self.times)

    def run_many(self, xs: Sequence[Any], ctx: Context) -> list[Any]:
        return [self.run(x, ctx) for x in xs]

    @classmethod
    def examples(cls) -> Iterable[Any]:
        yield cls(times=3), cls.In(text="a")
        yield cls(times=3), cls.In(text="b")
        yield cls(), cls.In(text="")


Good.kind = "testing.good"


def findings(cls: type[Node]) -> str:
    with pytest.raises(BrokenContract) as caught:
        check_node(cls)
    return str(caught.value)


def test_a_good_node_passes() -> None:
    check_node(Good)


class OtherOut(Ports):
    text: Text


class NoOut(Ports):
    pass


class OptionalOut(Ports):
    text: Text | None = None


class WrongDefault(Ports):
    text: Text = 3  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("members", "finding"),
    [
        ({"kind": "No Name"}, "the kind 'No Name' is not of the form family.name"),
        ({"__doc__": "No sentence"}, "not a sentence that ends with a full stop: 'No sentence'"),
        ({"Out": NoOut}, "it has no outputs"),
        ({"Out": OptionalOut}, "output 'text' is optional"),
        ({"In": WrongDefault}, "the default of input 'text' is wrong: it is int, expected Text"),
        ({"not_in_key": frozenset({"tims"})}, "not_in_key names 'tims', which is no parameter"),
        ({"same_as_absent": frozenset({"tims"})}, "same_as_absent names 'tims', which is no parameter"),
        ({"not_in_key": "times"}, "not_in_key is 'times', expected a set of names"),
        ({"cache": "sometimes"}, "cache is 'sometimes', expected one of auto, always, never"),
        ({"device": "gpu"}, "device is 'gpu', expected one of auto, cpu, accelerator"),
        ({"version": 0}, "version is 0, expected 1 or more"),
    ],
)
def test_a_wrong_declaration_is_found(monkeypatch: pytest.MonkeyPatch, members: dict[str, Any], finding: str) -> None:
    for name, value in members.items():
        monkeypatch.setattr(Good, name, value)
    assert finding in findings(Good)


@pytest.mark.filterwarnings("ignore:Default value")
def test_parameters_have_descriptions_and_survive_json() -> None:
    class Bad(Good):
        """Bad."""

        words: Any = Field((1, 2), description="a tuple whose type nothing says")
        blank: int = Field(1, description=" ")
        raw: Any = Field(b"\xff", description="no JSON")

    said = findings(Bad)
    assert "parameter 'words': (1, 2) comes back from JSON as [1, 2]" in said
    assert "parameter 'blank' has no description" in said
    assert "parameter 'raw': its default can't be written as JSON" in said


def run_of(function: Any, **more: Any) -> type[Node]:
    class Bad(Good):
        """Bad."""

        run = function

    for name, value in more.items():
        setattr(Bad, name, value)
    return Bad


def run_twice_differs(self: Any, x: Any, ctx: Context) -> Any:
    return self.Out(text=x.text + str(random.random()))


def run_returns_text(self: Any, x: Any, ctx: Context) -> Any:
    return x.text


def run_returns_number(self: Any, x: Any, ctx: Context) -> Any:
    return self.Out(text=len(x.text))


def test_examples_are_run() -> None:
    assert "output 'text' differs when it is run again" in findings(run_of(run_twice_differs))
    assert problems_of(run_of(run_twice_differs, deterministic=False)) == []
    assert "run returned str, expected Good.Out" in findings(run_of(run_returns_text))
    assert "output 'text' (Text): it is int, expected Text" in findings(run_of(run_returns_number))


def test_a_batch_gives_what_one_by_one_gives() -> None:
    class Bad(Good):
        """Bad."""

        def run_many(self, xs: Sequence[Any], ctx: Context) -> list[Any]:
            return [self.run(x, ctx) for x in reversed(xs)]

    class Short(Good):
        """Short."""

        def run_many(self, xs: Sequence[Any], ctx: Context) -> list[Any]:
            return [self.run(xs[0], ctx)]

    assert "run_many gives other results for 2 inputs" in findings(Bad)
    assert "run_many gives 1 results for 2 inputs" in findings(Short)


class Draw(Node):
    """Paint a picture black."""

    class In(Ports):
        image: Image

    class Out(Ports):
        image: Image
        scores: Scores

    def run(self, x: Any, ctx: Context) -> Any:
        x.image.paste("black", (0, 0, 4, 4))
        return self.Out(image=x.image, scores={"a": 1.0})

    @classmethod
    def examples(cls) -> Iterable[Any]:
        yield cls(), cls.In(image=PIL.Image.new("RGB", (4, 4), "red"))


def test_a_changed_input_is_found() -> None:
    Draw.kind = "testing.draw"
    assert "run changed its input 'image'" in findings(Draw)


@pytest.mark.parametrize(
    ("given", "finding"),
    [
        ([], "examples() gives none"),
        ([3], "example 1 is 3, expected a pair: a Bad and its inputs"),
        ([(Good(), OtherOut(text="a"))], "expected a pair: a Bad and its inputs"),
    ],
)
def test_wrong_examples_are_found(given: list[Any], finding: str) -> None:
    class Bad(Good):
        """Bad."""

        @classmethod
        def examples(cls) -> Iterable[Any]:
            return given

    assert finding in findings(Bad)


PACK = '''
from graphflow.node import Node, Ports
from graphflow.ports import Text


class Say(Node, kind="testingpack.say"):
    """Say it."""

    class In(Ports):
        text: Text

    class Out(Ports):
        text: Text

    def run(self, x, ctx):
        return self.Out(text=x.text)
'''


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(registry, "_KINDS", registry.all_kinds())
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "testingpack.py"
    path.write_text(PACK)
    yield path
    for name in ("testingpack", "accelerate"):
        if getattr(sys.modules.get(name), "__file__", "").startswith(str(tmp_path)):
            del sys.modules[name]


def test_a_pack_is_a_file_or_a_module(pack: Path) -> None:
    assert [c.kind for c in check_pack(pack)] == ["testingpack.say"]
    monkey = dict(registry._KINDS)
    registry._KINDS.clear()
    assert [c.kind for c in check_pack("testingpack")] == ["testingpack.say"]
    assert len(nodes_of("testingpack")) == 1
    registry._KINDS.update(monkey)


@pytest.mark.filterwarnings("ignore:loading")
def test_a_pack_that_imports_torch_or_has_no_nodes_is_found(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack.with_name("accelerate.py").write_text("X = 1\n")  # stands for the heavy ones
    monkeypatch.delitem(sys.modules, "accelerate", raising=False)
    pack.write_text("import accelerate\n" + PACK)
    with pytest.raises(BrokenContract, match=r"testingpack\.py imports accelerate: do that inside run"):
        check_pack(pack)
    empty = pack.with_name("emptypack.py")
    empty.write_text("X = 1\n")
    with pytest.raises(BrokenContract, match=r"emptypack\.py has no nodes"):
        check_pack(empty)
