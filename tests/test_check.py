"""The static check: every mistake has a code, a place, both ends and a hint, and all come at once."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from harness import Harness

from graphflow.check import check
from graphflow.errors import Diagnostic, InvalidError, Mark, UsageError
from graphflow.graph import Graph
from graphflow.node import Context, Field, Node, Ports
from graphflow.ports import Text
from graphflow.spec import load_spec, parse_spec
from graphflow.store import Store

HEAD = "graphflow: 1\ninputs:\n  text: {type: Text}\n  picture: {type: Image}\n  n: {type: int}\nnodes:\n"
TAIL = "\noutputs: {out: a.text}\n"
GOOD = "  a: {uses: sample.shout, in: {text: inputs.text}}\n"


def checked(nodes: str, tail: str = TAIL, **options: object) -> Graph:
    return check(parse_spec(HEAD + nodes + tail, "g.yaml"), **options)  # type: ignore[arg-type]


def problems(nodes: str, tail: str = TAIL) -> list[str]:
    with pytest.raises(InvalidError) as caught:
        checked(nodes, tail)
    return [str(d) for d in caught.value.diagnostics]


@pytest.mark.parametrize(
    ("nodes", "code", "place", "says"),
    [
        ("  a: {uses: sample.shot, in: {text: inputs.text}}", "GF101", "7:13", "did you mean sample.shout?"),
        ("  a: {uses: my.quirk, in: {text: inputs.text}}", "GF101", "7:13", "is named with --nodes"),
        ("  a: {uses: sample.shout, in: {txt: inputs.text}}", "GF104", "7:32", "did you mean text?"),
        ("  a: {uses: sample.shout, in: {text: inputs.text}, with: {marc: x}}", "GF107", "7:65", "did you mean mark?"),
        ("  a: {uses: sample.shout, in: {text: inputs.texts}}", "GF113", "7:38", "did you mean inputs.text?"),
        ("  a: {uses: sample.shout, in: {text: b.text}}", "GF102", "7:38", "does not exist"),
        ("  a: {uses: sample.shout, in: {text: inputs.picture}}", "GF105", "7:38", "but inputs.picture is Image"),
        ("  a: {uses: sample.shout}", "GF106", "7:3", "'a.text' (Text) is not connected"),
        ("  a: {uses: sample.shout, in: {text: hello}}", "GF014", "7:38", "fed by node.port"),
        ("  a: {uses: sample.shout, in: {text: inputs.text}, with: {mark: 3}}", "GF108", "7:65", "found 3"),
        ("  a: {uses: sample.shout, in: {text: inputs.text}, with: {mark: inputs.n}}", "GF109", "7:65", "not an edge"),
        ("  a: {uses: sample.shout, in: {text: inputs.text, mark: inputs.text}, with: {mark: x}}", "GF111", "", "both"),
        ("  a: {uses: sample.shout, in: {text: a.text}}", "GF110", "7:3", "a → a"),
        ("  a: {uses: sample.shout, inn: {text: inputs.text}}", "GF015", "7:27", "did you mean in?"),
        ("  a: 3", "GF010", "7:3", "is a mapping"),
        ("  inputs: {uses: sample.shout}", "GF012", "7:3", "reserved"),
    ],
)  # fmt: skip
def test_each_mistake_has_code_place_and_hint(nodes: str, code: str, place: str, says: str) -> None:
    found = [p for p in problems(nodes) if code in p]
    assert f"g.yaml:{place}" in found[0]
    assert says in found[0]


def test_wrong_output_port_lists_what_there_is() -> None:
    nodes = GOOD + "  b: {uses: sample.count, in: {text: a.txt}}"
    assert problems(nodes) == [
        "g.yaml:8:38: GF103 node 'a' has no output 'txt'; it has: text: Text\n  hint: did you mean a.text?"
    ]


def test_a_list_port_says_how_to_write_a_list() -> None:
    nodes = GOOD + "  b: {uses: sample.join, in: {texts: a.text}}"
    assert "write a list: texts: [a.text]" in problems(nodes)[0]
    graph = checked(GOOD + "  b: {uses: sample.join, in: {texts: [a.text, inputs.text]}}")
    assert [str(r) for r in graph.nodes["b"].refs] == ["a.text", "inputs.text"]


def test_all_mistakes_come_at_once_in_file_order() -> None:
    nodes = "  a: {uses: sample.shot}\n  b: {uses: sample.count, in: {txt: c.x}}\n"
    nodes += "  c: {uses: sample.join, with: {separator: 1}}"
    codes = [p.split(": ")[1].split()[0] for p in problems(nodes)]
    assert codes == ["GF101", "GF106", "GF104", "GF106", "GF108"]


def test_a_circle_is_named_in_full() -> None:
    nodes = "  a: {uses: sample.shout, in: {text: b.text}}\n  b: {uses: sample.shout, in: {text: a.text}}"
    assert "in a circle: " in problems(nodes)[0]


def test_a_parameter_can_be_fed_by_an_edge() -> None:
    nodes = GOOD + "  b: {uses: sample.repeat, in: {text: a.text, times: inputs.n}}"
    assert str(checked(nodes).nodes["b"].edges["times"]) == "inputs.n"
    wrong = GOOD + "  b: {uses: sample.repeat, in: {text: a.text, times: inputs.text}}"
    assert "'b.times' takes int?, but inputs.text is Text" in problems(wrong)[0]


def test_an_unused_node_is_a_warning() -> None:
    graph = checked(GOOD + "  b: {uses: sample.count, in: {text: a.text}}")
    assert [w.code for w in graph.warnings] == ["GF150"]
    assert graph.demanded() == ["a"]


def test_set_replaces_a_constant_or_an_edge() -> None:
    nodes = GOOD + "  b: {uses: sample.repeat, in: {text: a.text, times: inputs.n}}"
    graph = checked(nodes, settings={"b.times": 7, "a.mark": "?"})
    assert graph.nodes["b"].parameters["times"] == 7
    assert "times" not in graph.nodes["b"].edges
    assert graph.nodes["a"].parameters["mark"] == "?"
    with pytest.raises(UsageError, match="did you mean a?"):
        checked(nodes, settings={"aa.mark": 1})
    with pytest.raises(InvalidError, match="--set b.times"):
        checked(nodes, settings={"b.times": "many"})


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "1e400", "1" + "0" * 350])
def test_a_number_that_is_not_finite_is_found_by_the_check(value: str) -> None:
    tail = "\noutputs: {out: a.mean}\n"
    (found,) = problems(f"  a: {{uses: sample.mean, in: {{values: [inputs.n]}}, with: {{scale: {value}}}}}", tail)
    assert "GF108 'a.scale': input should be a finite number, found " in found
    declared = f"inputs: {{x: {{type: float, default: {value}}}}}\n"
    text = f"graphflow: 1\n{declared}nodes: {{a: {{uses: sample.mean, in: {{values: [inputs.x]}}}}}}{tail}"
    with pytest.raises(InvalidError, match=r"GF130 the default of input 'x' \(float\) is .*, which is not a finite"):
        check(parse_spec(text, "g.yaml"))


class Guided(Node, kind="check.guided", version=1):
    """Needs a port with some values of a parameter."""

    scale: float = Field(2.0, description="1: without the port")

    class In(Ports):
        negative: Text | None = None

    class Out(Ports):
        text: Text

    def missing_port(self, fed: Collection[str]) -> str:
        return "" if self.scale == 1 or "negative" in fed else f"scale={self.scale:g} needs the port negative"

    def run(self, x: In, ctx: Context) -> Out:
        return self.Out(text=str(x.negative))


@pytest.mark.parametrize(
    ("node", "default", "says"),
    [
        ("{uses: check.guided}", "1", "GF106 'a': scale=2 needs the port negative"),
        ("{uses: check.guided, in: {scale: inputs.s}}", "3", "GF106 'a': scale=3 needs the port negative"),
        ("{uses: check.guided, in: {scale: inputs.s}}", "1", ""),
        ("{uses: check.guided, with: {scale: 1}}", "3", ""),
        ("{uses: check.guided, in: {negative: inputs.text}}", "3", ""),
    ],
)
def test_a_port_that_only_some_parameters_need(node: str, default: str, says: str) -> None:
    head = f"graphflow: 1\ninputs: {{text: {{type: Text}}, s: {{type: float, default: {default}}}}}\nnodes:\n"
    spec = parse_spec(f"{head}  a: {node}\noutputs: {{text: a.text, same: inputs.text}}\n", "g.yaml")
    if not says:
        check(spec)
        return
    with pytest.raises(InvalidError) as caught:
        check(spec)
    assert [d.code + str(d).partition("GF106")[2] for d in caught.value.diagnostics] == [says]
    assert caught.value.diagnostics[0].mark.line == 4


def test_such_a_port_is_missed_before_anything_runs_where_an_input_decides_it(store: Store) -> None:
    graph = """graphflow: 1
inputs: {s: {type: float}}
nodes:
  first: {uses: check.anything}
  a: {uses: check.guided, in: {scale: inputs.s}}
outputs: {text: a.text, first: first.text}
"""
    harness = Harness(store, graph)
    assert harness.run(s=1.0)["text"] == "None"
    with pytest.raises(InvalidError, match=r"g.yaml:5:3: GF106 'a': scale=4 needs the port negative"):
        harness.plan(s=4.0)


class Anything(Node, kind="check.anything", version=1):
    """Takes a parameter of any type, which nothing but its node checks."""

    value: Any = Field(None, description="anything")

    class In(Ports):
        pass

    class Out(Ports):
        text: Text

    def run(self, x: In, ctx: Context) -> Out:
        return self.Out(text=repr(self.value))


@pytest.mark.parametrize("value", [".inf", "[1, -.inf]", "{a: [{b: .nan}]}"])
def test_nor_is_one_hidden_in_a_parameter_of_any_type(value: str) -> None:
    """As JSON, which keys are made of, it would be null."""
    (found,) = problems(f"  a: {{uses: check.anything, with: {{value: {value}}}}}")
    assert "GF108 'a.value': every number in it should be finite, found " in found
    checked("  a: {uses: check.anything, with: {value: [1, {b: [2.5, null, x]}]}}")


@pytest.mark.parametrize(
    ("declared", "edge", "says"),
    [
        (
            "{type: int, default: 1000}",
            "in: {text: inputs.t, times: inputs.n}",
            "less than or equal to 100, found 1000",
        ),
        (
            "{type: 'list[int]', default: [1, -2]}",
            "in: {text: inputs.t}, map: {times: inputs.n}",
            "equal to 0, found -2",
        ),
    ],
)
def test_a_default_that_a_parameter_refuses_is_found_by_the_check(declared: str, edge: str, says: str) -> None:
    text = f"graphflow: 1\ninputs:\n  t: Text\n  n: {declared}\nnodes:\n  a: {{uses: sample.repeat, {edge}}}\n"
    output = (
        "outputs: {out: a.texts}"
        if "map" not in edge
        else "  b: {uses: sample.count, in: {text: inputs.t}}\noutputs: {out: b.length}"
    )
    with pytest.raises(InvalidError, match=f"g.yaml:4:3: GF108 'a.times': .*{says} from inputs.n"):
        check(parse_spec(text + output, "g.yaml"))


@pytest.mark.parametrize(
    ("kind", "default"), [("Image", "../b.png"), ("list[Image]", "[a.png, /b.png]"), ("Folder", "..")]
)
def test_a_default_file_outside_the_folder_is_found_by_the_check(tmp_path: Path, kind: str, default: str) -> None:
    declared = f"graphflow: 1\ninputs: {{text: Text, x: {{type: '{kind}', default: {default}}}}}\nnodes:\n"
    text = declared + GOOD + TAIL
    with pytest.raises(InvalidError, match=r"GF130 the default of input 'x' \(.*\) lies outside the graph's folder: "):
        check(parse_spec(text, "g.yaml", tmp_path / "graphs"))
    check(parse_spec(text, "a picture.png"))  # it may be given with -i


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- 1", "a graph is a mapping, found a list"),
        ("nodes: {}", "has no format version"),
        ("graphflow: 2\nnodes: {}\noutputs: {}", "format version 2 is too new"),
        ("graphflow: 1", "has no nodes"),
        ("graphflow: 1\nnoodles: {}", "did you mean nodes?"),
        ("graphflow: 1\ninputs: {x: {type: Imag}}", "did you mean Image?"),
        ("graphflow: 1\nnodes: {a b: {uses: x}}", "is no name"),
    ],
)
def test_structure(text: str, says: str) -> None:
    with pytest.raises(InvalidError) as caught:
        parse_spec(text, "g.yaml")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [("in: {%s: nonsense}", "GF014"), ("in: {%s: inputs.text}", "GF104"), ("with: {%s: 1}", "GF107")],
)
def test_a_word_without_end_is_cut(wrong: str, code: str) -> None:
    found = problems(f"  a: {{uses: sample.shout, {wrong % ('x' * 900)}}}\n")
    [told] = [text for text in found if f" {code} " in text]
    assert "xxxx…" in told
    assert len(told) < 500


def test_a_name_as_long_as_a_file_may_have_is_not_cut() -> None:
    name = "x" * 240 + ".yaml"
    assert f"/folder/{name} is missing" in Diagnostic(Mark("g.yaml"), "GF130", f"/folder/{name} is missing").message


def test_an_unknown_preset_or_role_names_the_nearest() -> None:
    with pytest.raises(InvalidError, match=r"GF120 there is no preset 'pokcet'\n  hint: did you mean pocket\?"):
        checked(GOOD, models="pokcet")


NEEDS_A_MODEL = "  a: {uses: vae.encode, in: {image: inputs.picture}}\n"


def test_a_wrong_preset_is_reported_once(graph_file: Callable[..., Path], tmp_path: Path) -> None:
    tail = "\noutputs: {latents: a.latents}\n"
    graph_file("graphflow-preset: 1\nmodels: {vae: {loader: diffusers.va, packaged: x}}", "mine.yaml")
    graph_file(HEAD + NEEDS_A_MODEL + tail, "inner.yaml")
    outer = "  a: {uses: inner.yaml, in: {picture: inputs.picture, text: inputs.text, n: inputs.n}}\n"
    for nodes in (NEEDS_A_MODEL, outer):
        spec = parse_spec(HEAD + nodes + tail, "g.yaml", tmp_path)
        own = parse_spec(f"models: mine.yaml\n{HEAD}{nodes}{tail}", "g.yaml", tmp_path)
        for code, call in (
            ("GF120", partial(check, spec, "pockt")),
            ("GF122", partial(check, spec, "mine.yaml", tmp_path)),
            ("GF122", partial(check, own)),
            ("GF121", partial(check, spec)),
        ):
            with pytest.raises(InvalidError) as caught:
                call()
            assert [d.code for d in caught.value.diagnostics] == [code]


def test_the_file_is_read_with_its_folder(graph_file: Callable[[str], Path]) -> None:
    path = graph_file(HEAD + GOOD + TAIL)
    spec = load_spec(path)
    assert spec.folder == path.parent
    assert spec.name == "graph"
