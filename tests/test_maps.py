"""Maps: a node or a sub-graph runs once for each element, each with its own key."""

from __future__ import annotations

from pathlib import Path

import pytest
import samples
from harness import Harness, statuses
from PIL import Image

from graphflow.check import check
from graphflow.errors import InvalidError, NodeError
from graphflow.events import NodeFinished, NodeSkipped
from graphflow.options import Options
from graphflow.run import Runner
from graphflow.spec import parse_spec
from graphflow.store import Store

ZIP = """
graphflow: 1
inputs: {texts: 'list[Text]', marks: {type: 'list[Text]', default: ['!', '?']}, end: {type: Text, default: x}}
nodes:
  shout: {uses: sample.shout, map: {text: inputs.texts, mark: inputs.marks}}
  count: {uses: sample.count, map: {text: shout.text}}
  join: {uses: sample.join, in: {texts: shout.text}}
outputs: {texts: shout.text, lengths: count.length, text: join.text}
"""
PART = """
graphflow: 1
inputs: {text: Text, times: {type: int, default: 2}, mark: {type: Text, default: '.'}}
nodes:
  rep: {uses: sample.repeat, in: {text: inputs.text, times: inputs.times}}
  shout: {uses: sample.shout, map: {text: rep.texts}, in: {mark: inputs.mark}}
  join: {uses: sample.join, in: {texts: shout.text}}
outputs: {text: join.text, pieces: rep.texts, given: inputs.text}
"""
OUTER = """
graphflow: 1
inputs: {texts: {type: 'list[Text]', default: [a, b]}}
nodes:
  each: {uses: part.yaml, map: {text: inputs.texts}, with: {mark: '!'}}
  all: {uses: sample.join, in: {texts: each.text}, with: {separator: '|'}}
outputs: {all: all.text, texts: each.text, given: each.given}
"""


@pytest.fixture
def outer(store: Store, tmp_path: Path) -> Harness:
    (tmp_path / "part.yaml").write_text(PART)
    return Harness(store, OUTER, tmp_path)


def test_lists_are_zipped_and_outputs_are_lists(store: Store) -> None:
    done = Harness(store, ZIP).run(texts=["ab", "c"])
    assert done["texts"] == ["AB!", "C?"]
    assert done["lengths"] == [3, 2]
    assert done["text"] == "AB! C?"
    assert list(done.record.nodes) == ["shout[0]", "shout[1]", "count[0]", "count[1]", "join"]
    assert done.record.nodes["count[1]"].inputs == {"text": "shout[1].text"}
    assert done.record.nodes["join"].inputs == {"texts": "shout[…].text"}


def test_each_element_has_its_own_cache_entry(store: Store) -> None:
    harness = Harness(store, ZIP)
    harness.run(texts=["ab", "c"])
    assert statuses(harness.plan(texts=["ab", "c"])) == ["cached"] * 5
    harness.run(texts=["ab", "d"])
    assert dict(samples.RUNS) == {"shout": 1, "count": 1, "join": 1}
    harness.run(texts=["d", "ab"], marks=["?", "!"])  # the same elements in another order
    assert dict(samples.RUNS) == {"join": 1}


def test_an_empty_list_gives_empty_lists(store: Store) -> None:
    done = Harness(store, ZIP).run(texts=[], marks=[])
    assert done["texts"] == []
    assert done["text"] == ""


def test_lists_of_unequal_length_are_an_error_before_anything_runs(store: Store) -> None:
    with pytest.raises(
        InvalidError, match="g.yaml:5:3: GF116 'shout' is mapped over unequal lists: mark has 2, text has 3"
    ):
        Harness(store, ZIP).plan(texts=["a", "b", "c"])


def test_a_list_that_a_node_makes_is_expanded_when_it_is_known(outer: Harness) -> None:
    plan = outer.plan()
    assert list(plan.nodes)[:4] == ["each[0]/rep", "each[1]/rep", "each[0]/shout[…]", "each[1]/shout[…]"]
    assert plan.nodes["each[0]/shout[…]"].reason == "after each[0]/rep, once for each element"
    done = outer.run()
    assert done["texts"] == ["A! A!", "B! B!"]
    assert done["all"] == "A! A!|B! B!"
    assert done["given"] == ["a", "b"]
    assert "each[1]/shout[0]" in done.record.nodes
    assert statuses(outer.plan()) == ["cached"] * 9


def test_equal_elements_are_computed_once(outer: Harness) -> None:
    outer.run(texts=["a", "a", "a"])
    assert dict(samples.RUNS) == {"repeat": 1, "shout": 1, "join": 2}


def test_settings_and_why_reach_into_an_instance(outer: Harness) -> None:
    outer.run()
    done = outer.run(settings={"each/join.separator": "-", "each.times": 3})
    assert done["texts"] == ["A!-A!-A!", "B!-B!-B!"]
    assert "parameter separator ' ' → '+' changed" in outer.why("each[1]/join", settings={"each/join.separator": "+"})
    found = outer.why("each/rep", settings={"each.times": 5})
    assert found.startswith("2 instances: 2 run")
    assert "parameter times" in found


def test_why_names_what_the_instance_itself_needs(outer: Harness, store: Store) -> None:
    for name in ("each[1]/join", "each[1]/shout[…]"):
        assert outer.why(name).splitlines() == [
            f"{name} may run: it depends on each[1]/rep, which must run first",
            "  each[1]/rep runs: no earlier result",
            f"if their results are the same bytes as before, {name} is still cached",
        ]
    assert "it depends on each[0]/rep, each[1]/rep, which" in outer.why("all")
    assert "it depends on each[0]/rep, which" in outer.why("each[1]/join", texts=["a", "a"]), "computed once for both"
    zipped = Harness(store, ZIP)
    assert "it depends on shout[1], which" in zipped.why("count[1]", texts=["a", "b"])
    outer.run(texts=["a", "b"])
    assert "it depends on each[1]/rep, which" in outer.why("all", texts=["a", "c"])


def test_a_failing_element_does_not_stop_the_others(store: Store) -> None:
    text = ZIP.replace("sample.count", "sample.picky")
    harness = Harness(store, text)
    with pytest.raises(NodeError, match=r"node 'count\[0\]' \(sample.picky\) failed: BAD! is not welcome"):
        harness.run(texts=["bad", "good"])
    done = harness.run(texts=["bad", "good"], options=Options(keep_going=True))
    assert done.failures == {"count[0]": "BAD! is not welcome"}
    assert list(done.elements("lengths")) == [(1, 5)]
    assert done.record.status == "failed"
    assert done.record.outputs["lengths"].failed == [0]
    assert done["text"] == "BAD! GOOD?"
    with pytest.raises(NodeError, match="output 'lengths' was not computed"):
        done["lengths"]


def test_what_needs_a_failed_element_is_skipped_and_named(store: Store) -> None:
    text = """
graphflow: 1
inputs: {texts: {type: 'list[Text]', default: [good, bad]}}
nodes:
  picky: {uses: sample.picky, map: {text: inputs.texts}}
  shout: {uses: sample.shout, map: {text: picky.text}}
  join: {uses: sample.join, in: {texts: shout.text}}
outputs: {text: join.text, texts: shout.text}
"""
    harness = Harness(store, text)
    done = harness.run(options=Options(keep_going=True))
    skipped = {e.node: e.reason for e in harness.events if isinstance(e, NodeSkipped)}
    assert skipped == {
        "shout[1]": "needs picky[1], which has no result",
        "join": "needs shout[1], which has no result",
    }
    assert list(done.elements("texts")) == [(0, "GOOD!")]
    assert list(done.record.outputs) == ["texts"]


def test_pictures_are_decoded_one_at_a_time(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(3):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(tmp_path / f"{i}.png")
    text = """
graphflow: 1
inputs: {photos: 'list[Image]'}
nodes: {a: {uses: sample.invert, map: {image: inputs.photos}}}
outputs: {images: a.image}
"""
    done = Harness(store, text).run(photos=str(tmp_path))
    assert [image.getpixel((0, 0)) for image in done["images"]] == [(255, 255, 255), (254, 255, 255), (253, 255, 255)]


@pytest.mark.parametrize(
    ("node", "code", "says"),
    [
        ("a: {uses: sample.shout, map: {text: inputs.end}}", "GF105", "move 'text' from 'map:' to 'in:'"),
        ("a: {uses: sample.shout, in: {text: inputs.texts}}", "GF105", "write 'map: {text: inputs.texts}'"),
        ("a: {uses: sample.join, map: {texts: inputs.texts}}", "GF116", "a map would need a list of lists"),
        ("a: {uses: sample.repeat, map: {text: inputs.texts}}", "GF116", "a list of lists can't follow an edge"),
        (
            "a: {uses: sample.shout, map: {text: inputs.texts}, in: {text: inputs.end}}",
            "GF111",
            "both 'in:' and 'map:'",
        ),
    ],
)
def test_wrong_maps_say_what_to_write(node: str, code: str, says: str) -> None:
    text = f"""
graphflow: 1
inputs: {{texts: 'list[Text]', end: Text}}
nodes:
  {node}
outputs: {{o: a.{"texts" if "repeat" in node else "text"}}}
"""
    with pytest.raises(InvalidError) as caught:
        check(parse_spec(text, "g.yaml"))
    found = str(caught.value)
    assert code in found
    assert says in found


def test_elements_of_a_list_of_edges_are_converted_each_by_its_own_type(store: Store) -> None:
    text = """
graphflow: 1
inputs: {n: {type: int, default: 3}, x: {type: float, default: 2.5}}
nodes:
  one: {uses: sample.mean, in: {values: [inputs.x, inputs.n]}}
  two: {uses: sample.mean, in: {values: [inputs.n, inputs.x]}}
outputs: {one: one.mean, two: two.mean}
"""
    done = Harness(store, text).run()
    assert done["one"] == done["two"] == 2.75


def test_equal_elements_are_planned_once(store: Store) -> None:
    plan = Harness(store, ZIP).plan(texts=["a", "a"], marks=["!", "!"])
    assert [plan.nodes[f"shout[{i}]"].status for i in range(2)] == ["run", "maybe"]
    assert plan.nodes["shout[1]"].reason == "the same as shout[0]"


def test_a_sub_graph_maps_a_parameter_over_its_own_default(store: Store, tmp_path: Path) -> None:
    (tmp_path / "marks.yaml").write_text("""
graphflow: 1
inputs: {text: Text, marks: {type: 'list[Text]', default: ['!', '?']}}
nodes: {shout: {uses: sample.shout, in: {text: inputs.text}, map: {mark: inputs.marks}}}
outputs: {texts: shout.text}
""")
    text = "graphflow: 1\nnodes: {a: {uses: marks.yaml, with: {text: hi}}}\noutputs: {texts: a.texts}\n"
    assert Harness(store, text, tmp_path).run()["texts"] == ["HI!", "HI?"]


def test_what_a_mapped_sub_graph_passes_on_through_another_one(store: Store, tmp_path: Path) -> None:
    (tmp_path / "inner.yaml").write_text("""
graphflow: 1
inputs: {text: Text, other: Text}
nodes: {shout: {uses: sample.shout, in: {text: inputs.text}}}
outputs: {text: inputs.text, other: inputs.other, loud: shout.text}
""")
    (tmp_path / "outer.yaml").write_text("""
graphflow: 1
inputs: {text: Text, other: Text}
nodes: {b: {uses: inner.yaml, in: {text: inputs.text, other: inputs.other}}}
outputs: {text: b.text, other: b.other, loud: b.loud}
""")
    text = """
graphflow: 1
inputs: {texts: {type: 'list[Text]', default: [a, b]}, other: {type: Text, default: x}}
nodes:
  each: {uses: outer.yaml, map: {text: inputs.texts}, in: {other: inputs.other}}
  join: {uses: sample.join, in: {texts: each.PORT}}
outputs: {text: join.text}
"""
    assert Harness(store, text.replace("PORT", "text"), tmp_path).run()["text"] == "a b"
    assert Harness(store, text.replace("PORT", "loud"), tmp_path).run()["text"] == "A! B!"
    with pytest.raises(InvalidError, match="GF118 each.other only passes on an input that is not mapped"):
        Harness(store, text.replace("PORT", "other"), tmp_path).plan()


LONG = """
graphflow: 1
inputs: {texts: 'list[Text]'}
nodes:
  each: {uses: part.yaml, map: {text: inputs.texts}}
  all: {uses: sample.join, in: {texts: each.text}, with: {separator: '|'}}
outputs: {all: all.text, texts: each.text}
"""


def test_a_long_map_goes_through_its_nodes_a_window_at_a_time(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphflow.engine.workload.WINDOW", 2)
    (tmp_path / "part.yaml").write_text(PART)
    harness = Harness(store, LONG, tmp_path)
    runner = harness.session().runner({"texts": ["a", "b", "c", "d", "e"]})
    finished: list[str] = []
    runner.emit = lambda event: finished.append(event.node) if isinstance(event, NodeFinished) else None
    done = runner.run()
    assert done["all"] == "A. A.|B. B.|C. C.|D. D.|E. E."
    order = [n for n in finished if n.endswith(("rep", "/join"))]
    begun = [sum(n.endswith("rep") for n in order[:i]) for i in range(len(order) + 1)]
    over = [sum(n.endswith("/join") for n in order[:i]) for i in range(len(order) + 1)]
    assert max(b - o for b, o in zip(begun, over, strict=True)) <= 2
    assert list(done.record.nodes)[:2] == ["each[0]/rep", "each[1]/rep"]  # whatever order they ran in
    assert statuses(harness.plan(texts=["a", "b", "c", "d", "e"])) == ["cached"] * 21
    assert dict(samples.RUNS) == {"repeat": 5, "shout": 5, "join": 6}


def test_values_of_a_window_are_let_go_of_and_computed_again_only_if_wanted(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphflow.engine.workload.WINDOW", 2)
    (tmp_path / "part.yaml").write_text(PART)
    harness = Harness(store, LONG, tmp_path)
    runner = harness.session().runner({"texts": list("abcdefgh")})
    held = []
    runner.emit = lambda event: held.append(_held(runner))
    done = runner.run()
    assert max(held) < 12  # 24 without windows; the eight texts wait for the node behind the map
    assert done["texts"] == [f"{letter}. {letter}." for letter in "ABCDEFGH"]


def _held(runner: Runner) -> int:
    values = getattr(runner, "_values", None)
    return len(values._unstored) + len(values._recent) if values is not None else 0


def test_mapped_sub_graphs_run_one_after_the_other_not_step_by_step_in_turns(store: Store, tmp_path: Path) -> None:
    (tmp_path / "part.yaml").write_text(PART)
    two = LONG.replace("  all:", "  more: {uses: part.yaml, map: {text: inputs.texts}, with: {times: 3}}\n  all:")
    harness = Harness(store, two.replace("outputs: {", "outputs: {more: more.text, "), tmp_path)
    graph = harness.session().graph
    assert graph.demanded() == [
        "each/rep", "each/shout", "each/join", "more/rep", "more/shout", "more/join", "all",
    ]  # fmt: skip
    assert next(iter(harness.plan(texts=["a"]).nodes)) == "each[0]/rep"
