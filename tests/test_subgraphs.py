"""Graphs as nodes: they dissolve into the graph that uses them, and every mistake names the right file."""

from __future__ import annotations

from pathlib import Path

import pytest
import samples
from harness import Harness, statuses
from PIL import Image

from graphflow import provenance
from graphflow.check import check
from graphflow.errors import InvalidError, UsageError
from graphflow.session import open_session
from graphflow.spec import load_spec, parse_spec
from graphflow.store import Store

INNER = """
graphflow: 1
inputs: {text: Text, mark: {type: Text, default: '?'}, times: {type: int, default: 2}}
nodes:
  loud: {uses: sample.shout, in: {text: inputs.text, mark: inputs.mark}}
  rep: {uses: sample.repeat, in: {text: loud.text, times: inputs.times}}
outputs: {loud: loud.text, texts: rep.texts}
"""
OUTER = """
graphflow: 1
inputs: {text: {type: Text, default: hi}}
nodes:
  one: {uses: parts/inner.yaml, in: {text: inputs.text}, with: {times: 3}}
  two: {uses: parts/inner.yaml, in: {text: one.loud, mark: inputs.text}}
  join: {uses: sample.join, in: {texts: two.texts}}
outputs: {text: join.text, loud: one.loud}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "inner.yaml").write_text(INNER)
    (tmp_path / "outer.yaml").write_text(OUTER)
    return tmp_path


def problem(folder: Path, text: str) -> str:
    with pytest.raises(InvalidError) as caught:
        check(parse_spec(text, "g.yaml", folder))
    return str(caught.value)


def test_a_sub_graph_runs_as_its_nodes(store: Store, folder: Path) -> None:
    harness = Harness(store, OUTER, folder)
    done = harness.run()
    assert done["text"] == "HI?hi HI?hi"
    assert list(done.record.nodes) == ["one/loud", "two/loud", "two/rep", "join"]
    assert statuses(harness.plan()) == ["cached"] * 4


def test_a_constant_that_the_inside_refuses_stands_where_it_was_written(folder: Path) -> None:
    found = problem(folder, OUTER.replace("times: 3", "times: 300"))
    assert found == "g.yaml:5:72: GF108 'one/rep.times': input should be less than or equal to 100, found 300"
    (folder / "parts" / "inner.yaml").write_text(INNER.replace("default: 2", "default: 200"))
    found = problem(folder, OUTER)
    assert "parts/inner.yaml:3:56: GF108 'two/rep.times': input should be less" in found
    assert found.count("GF108") == 1, "a default that is not used does no harm"


def test_a_setting_inside_is_reported_as_it_was_typed(folder: Path) -> None:
    (folder / "wrap.yaml").write_text(OUTER)
    nodes = "  x: {uses: wrap.yaml}\n  y: {uses: wrap.yaml}\n"
    text = f"graphflow: 1\nnodes:\n{nodes}outputs: {{a: x.text, b: y.text}}"
    spec = parse_spec(text, "g.yaml", folder)
    with pytest.raises(InvalidError) as caught:
        check(spec, settings={"x/one/rep.nope": 3, "y/one/rep.nope": 3, "x/two/loud.mark": 3})
    told = [(d.mark.file, d.code) for d in caught.value.diagnostics]
    assert told == [
        ("--set x/one/rep.nope", "GF107"), ("--set x/two/loud.mark", "GF108"), ("--set y/one/rep.nope", "GF107"),
    ]  # fmt: skip
    with pytest.raises(UsageError, match="^--set x/one/rap.times: expected .* did you mean rep"):
        check(spec, settings={"x/one/rap.times": 3})


def test_constants_defaults_and_edges_reach_the_inside(folder: Path) -> None:
    graph = check(load_spec(folder / "outer.yaml"))
    assert graph.nodes["one/rep"].parameters == {"times": 3}
    assert graph.nodes["one/loud"].parameters == {"mark": "?"}
    assert str(graph.nodes["two/loud"].edges["mark"]) == "inputs.text"
    assert str(graph.nodes["two/loud"].edges["text"]) == "one/loud.text"
    assert not graph.warnings  # nobody wants one/rep here, but it is an output of its own file
    assert "one/rep" not in graph.demanded()


def test_nodes_of_a_sub_graph_share_results_with_the_graph_alone(store: Store, folder: Path) -> None:
    Harness(store, INNER).run(text="hi", times=3)
    Harness(store, OUTER, folder).run()
    assert samples.RUNS["shout"] == 1  # one/loud is the same computation as `loud` of the inner graph


def test_a_port_can_be_fed_by_a_constant_through_a_sub_graph(store: Store, folder: Path) -> None:
    text = """
graphflow: 1
nodes: {one: {uses: parts/inner.yaml, with: {text: hello}}}
outputs: {out: one.loud}
"""
    assert Harness(store, text, folder).run()["out"] == "HELLO?"


def test_settings_reach_inside(store: Store, folder: Path) -> None:
    harness = Harness(store, OUTER, folder)
    assert harness.run(settings={"one.mark": "~"})["loud"] == "HI~"
    assert harness.run(settings={"one/loud.mark": "#"})["loud"] == "HI#"
    with pytest.raises(UsageError, match="did you mean loud"):
        harness.run(settings={"one/loudd.mark": "#"})


@pytest.mark.parametrize(
    ("node", "says"),
    [
        ("{uses: parts/inner.yaml}", "g.yaml:3:5: GF106 'a.text' (Text) is not connected"),
        ("{uses: parts/none.yaml}", "g.yaml:3:15: GF117 there is no graph file"),
        ("{uses: /etc/x.yaml}", "GF117 '/etc/x.yaml' is an absolute path"),
        ("{uses: parts/inner.yaml, with: {text: 3}}", "g.yaml:3:46: GF108 'a.text' (Text) is 3, expected text"),
        ("{uses: parts/inner.yaml, with: {text: a, tims: 3}}", "hint: did you mean times?"),
        ("{uses: parts/inner.yaml, in: {texd: inputs.x}}", "GF104 node 'a' has no input or parameter 'texd'"),
        ("{uses: parts/inner.yml, with: {text: a}}", "GF117"),
    ],
)
def test_wrong_use_of_a_sub_graph_is_found_where_it_is_used(folder: Path, node: str, says: str) -> None:
    assert says in problem(folder, f"graphflow: 1\nnodes:\n    a: {node}\noutputs: {{o: a.loud}}\n")


def test_a_mistake_inside_is_found_in_its_own_file_once(folder: Path) -> None:
    (folder / "parts" / "inner.yaml").write_text(INNER.replace("sample.repeat", "sample.repeet"))
    found = problem(folder, OUTER)
    assert found.count("GF101") == 1
    assert f"{folder / 'parts' / 'inner.yaml'}:6:15: GF101" in found


def test_an_unknown_output_of_a_sub_graph_is_named(folder: Path) -> None:
    assert "did you mean one.loud?" in problem(folder, OUTER.replace("one.loud}", "one.lout}"))


def test_a_graph_that_uses_itself_is_refused(folder: Path) -> None:
    (folder / "parts" / "inner.yaml").write_text(INNER.replace("sample.repeat", "../parts/inner.yaml"))
    assert "graphs use each other in a circle: parts/inner.yaml → parts/inner.yaml" in problem(folder, OUTER)


def test_endless_nesting_is_refused(tmp_path: Path) -> None:
    for i in range(40):
        text = f"graphflow: 1\nnodes: {{a: {{uses: p{i + 1}.yaml}}}}\noutputs: {{o: a.o}}\n"
        (tmp_path / f"p{i}.yaml").write_text(text)
    assert "nested more than" in problem(tmp_path, (tmp_path / "p0.yaml").read_text())


def test_a_rerun_from_a_record_needs_no_file(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_session(str(folder / "outer.yaml"), store=store.folder)
    run = session.run(text="abc")
    picture = folder / "out.png"
    provenance.embed(Image.new("RGB", (2, 2)), run.record, picture)
    for name in ("outer.yaml", "parts/inner.yaml"):
        (folder / name).unlink()
    again = open_session(str(picture), store=store.folder)
    assert statuses(again.plan()) == ["cached"] * 4
    assert again.run()["text"] == run["text"]


def test_the_preset_around_a_sub_graph_counts(folder: Path) -> None:
    (folder / "parts" / "cap.yaml").write_text(
        "graphflow: 1\ninputs: {image: Image}\nmodels: sd15\n"
        "nodes: {c: {uses: caption, in: {image: inputs.image}}}\noutputs: {text: c.text}\n"
    )
    text = (
        "graphflow: 1\n{}inputs: {{image: Image}}\n"
        "nodes: {{a: {{uses: parts/cap.yaml, in: {{image: inputs.image}}}}}}\noutputs: {{o: a.text}}\n"
    )
    inside = check(parse_spec(text.format(""), "g.yaml", folder)).nodes["a/c"].models["model"]
    around = check(parse_spec(text.format("models: pocket\n"), "g.yaml", folder)).nodes["a/c"].models["model"]
    assert inside.hub
    assert around.packaged
