"""A graph for one element, run over many: ``--map``."""

from __future__ import annotations

from pathlib import Path

import pytest
import samples

from graphflow.errors import InvalidError, UsageError
from graphflow.mapped import map_over
from graphflow.session import Session, open_session
from graphflow.spec import parse_spec
from graphflow.store import Store

GRAPH = """graphflow: 1
inputs:
  text: {type: Text, default: hello, nonempty: true}
  mark: {type: Text, default: '!'}
  words: {type: 'list[Text]', default: [a, b]}
nodes:
  shout: {uses: sample.shout, in: {text: inputs.text, mark: inputs.mark}}
  count: {uses: sample.count, in: {text: shout.text}}
  join: {uses: sample.join, in: {texts: inputs.words}}
outputs: {text: shout.text, length: count.length, joined: join.text}
"""


@pytest.fixture
def file(graph_file: object) -> Path:
    return graph_file(GRAPH)  # type: ignore[operator]


def mapped(file: Path, store: Store, *names: str, **settings: object) -> Session:
    given = {name.replace("_", ".", 1): value for name, value in settings.items()}
    return open_session(str(file), store=store.folder, settings=given, device="cpu", over=names)


def test_outputs_become_lists_and_other_inputs_reach_every_element(file: Path, store: Store) -> None:
    done = mapped(file, store, "text").run(text="[a, bc]", mark="?")
    assert [done[n] for n in ("text", "length", "joined")] == [["A?", "BC?"], [2, 3], ["a b", "a b"]]
    assert list(done.record.nodes)[:2] == ["each[0]/shout", "each[1]/shout"]
    assert done.record.mapped == ["text"]


def test_several_inputs_are_zipped(file: Path, store: Store) -> None:
    session = mapped(file, store, "text", "mark")
    assert session.run(text="[a, b]", mark="['1', '2']")["text"] == ["A1", "B2"]
    with pytest.raises(InvalidError, match="GF116 'each' is mapped over unequal lists: mark has 1, text has 2"):
        session.plan(text="[a, b]", mark="['1']")


def test_the_default_of_one_is_no_default_for_many(file: Path, store: Store) -> None:
    with pytest.raises(UsageError, match=r"--map text: list the values: --map text=\[…\]"):
        mapped(file, store, "text").plan()
    with pytest.raises(InvalidError, match="is empty, expected text"):
        mapped(file, store, "text").plan(text="[a, ' ']")


def test_elements_share_their_results_with_the_graph_run_alone(file: Path, store: Store) -> None:
    open_session(str(file), store=store.folder, device="cpu").run(text="one")
    samples.RUNS.clear()
    assert mapped(file, store, "text").run(text="[one, two]")["text"] == ["ONE!", "TWO!"]
    assert dict(samples.RUNS) == {"shout": 1, "count": 1}


def test_settings_mean_the_graph_itself(file: Path, store: Store) -> None:
    done = mapped(file, store, "text", join_separator="-").run(text="[a]")
    assert done["joined"] == ["a-b"]
    assert done.record.overrides == {"each/join.separator": "-"}
    with pytest.raises(UsageError, match="the nodes are shout, count, join; did you mean join?"):
        mapped(file, store, "text", joi_separator="-")
    with pytest.raises(InvalidError, match="'join.separator': input should be a valid string"):
        mapped(file, store, "text", join_separator=3)


def test_a_record_of_a_mapped_run_is_run_again_with_other_elements(file: Path, store: Store, tmp_path: Path) -> None:
    done = mapped(file, store, "text", join_separator="-").run(text="[a, b]")
    (tmp_path / "run.json").write_text(done.record.model_dump_json())
    samples.RUNS.clear()
    again = open_session(str(tmp_path / "run.json"), store=store.folder, device="cpu")
    assert again.run()["text"] == ["A!", "B!"]
    assert not samples.RUNS
    assert again.run(text=["a", "c"], mark="?")["text"] == ["A?", "C?"]
    changed = open_session(
        str(tmp_path / "run.json"), store=store.folder, settings={"join.separator": "+"}, device="cpu"
    )
    assert changed.run()["joined"] == ["a+b", "a+b"]


def test_a_graph_of_sub_graphs_in_other_folders(store: Store, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/inner.yaml").write_text(
        "graphflow: 1\ninputs: {text: Text}\nnodes: {shout: {uses: sample.shout, in: {text: inputs.text}}}\n"
        "outputs: {text: shout.text}\n"
    )
    (tmp_path / "g.yaml").write_text(
        "graphflow: 1\ninputs: {text: Text}\nnodes: {part: {uses: parts/inner.yaml, in: {text: inputs.text}}}\n"
        "outputs: {text: part.text}\n"
    )
    done = mapped(tmp_path / "g.yaml", store, "text").run(text="[a, b]")
    assert done["text"] == ["A!", "B!"]
    assert list(done.record.nodes) == ["each[0]/part/shout", "each[1]/part/shout"]


def test_outputs_that_are_lists_or_passed_on_are_left_out_with_a_warning(graph_file: object, store: Store) -> None:
    text = GRAPH.replace("outputs: {", "outputs: {pieces: rep.texts, given: inputs.mark, ").replace(
        "nodes:\n", "nodes:\n  rep: {uses: sample.repeat, in: {text: inputs.text}}\n"
    )
    session = mapped(graph_file(text), store, "text")  # type: ignore[operator]
    found = [str(w) for w in session.graph.warnings if w.code == "GF151"]
    assert len(found) == 2
    assert "graph.yaml:11:" in found[0]
    assert "--map leaves out output 'pieces': it is a list already" in found[0]
    assert "--map leaves out output 'given': it only passes on an input" in found[1]
    assert list(session.run(text="[a]").record.outputs) == ["text", "length", "joined"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("txt", "--map txt: the graph has no such input; did you mean text?"),
        ("", "--map : the graph has no such input"),
        ("words", "--map words: the input is a list already"),
    ],
)
def test_wrong_names_are_refused(name: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        map_over(parse_spec(GRAPH, "g.yaml"), [name])
    assert str(caught.value) == says
