"""Drawings: every node, edge, input and output once; names can't break out of the drawing's syntax."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import samples  # noqa: F401  registers the kinds

from graphflow import draw
from graphflow.check import check
from graphflow.graph import Graph
from graphflow.spec import parse_spec

TEXT = """
graphflow: 1
inputs:
  text: {type: Text, default: hello}
  n: {type: int, default: 3}
nodes:
  shout: {uses: sample.shout, in: {text: inputs.text}}
  rep: {uses: sample.repeat, in: {text: shout.text, times: inputs.n}}
  join: {uses: sample.join, in: {texts: [shout.text, shout.text]}}
  both: {uses: sample.join, in: {texts: rep.texts}}
  count: {uses: sample.count, in: {text: join.text}}
outputs: {text: both.text, length: count.length, again: shout.text}
"""


@pytest.fixture
def graph() -> Graph:
    return check(parse_spec(TEXT, "g.yaml"))


def test_mermaid(graph: Graph) -> None:
    assert draw.mermaid(graph, {"shout": "cached", "rep": "run"}) == (
        "flowchart LR\n"
        '  in_text[/"text: Text"/]\n'
        '  in_n[/"n: int"/]\n'
        '  n_shout["shout<br/><small>sample.shout</small>"]\n'
        '  n_rep["rep<br/><small>sample.repeat</small>"]\n'
        '  n_join["join<br/><small>sample.join</small>"]\n'
        '  n_both["both<br/><small>sample.join</small>"]\n'
        '  n_count["count<br/><small>sample.count</small>"]\n'
        '  out_text(["text"])\n'
        '  out_length(["length"])\n'
        '  out_again(["again"])\n'
        "  in_text --> n_shout\n"
        '  n_shout -->|"text"| n_rep\n'
        '  in_n -->|"times"| n_rep\n'
        '  n_shout -->|"text → texts"| n_join\n'
        '  n_shout -->|"text → texts"| n_join\n'
        '  n_rep -->|"texts"| n_both\n'
        '  n_join -->|"text"| n_count\n'
        "  n_both --> out_text\n"
        "  n_count --> out_length\n"
        '  n_shout -->|"text"| out_again\n'
        "  classDef cached fill:#e4e7ea,stroke:#8a949e,color:#30363c\n"
        "  class n_shout cached\n"
        "  classDef run fill:#cdebe4,stroke:#0f8a72,color:#0b3b31\n"
        "  class n_rep run\n"
    )


def test_the_tree_draws_a_shared_node_once(graph: Graph) -> None:
    assert draw.tree(graph, {"rep": "run"}) == (
        "text\n"
        "└── both (sample.join)\n"
        "    └── texts: rep (sample.repeat)  [run]\n"
        "        ├── text: shout (sample.shout)\n"
        "        │   └── text: inputs.text\n"
        "        └── times: inputs.n\n"
        "length\n"
        "└── count (sample.count)\n"
        "    └── text: join (sample.join)\n"
        "        ├── texts: shout.text (sample.shout)  … above\n"
        "        └── texts: shout.text (sample.shout)  … above\n"
        "again ← shout.text\n"
    )


def test_dot_has_every_edge_and_colours_by_status(graph: Graph) -> None:
    text = draw.dot(graph, {"rep": "maybe"})
    edges = re.findall(r"^  (\w+) -> (\w+)", text, re.MULTILINE)
    assert edges == [(a.source, a.target) for a in draw.arrows(graph)]
    rep = next(line for line in text.splitlines() if line.startswith("  n_rep "))
    shout = next(line for line in text.splitlines() if line.startswith("  n_shout "))
    assert draw.COLOURS["maybe"][0] in rep
    assert "fillcolor" not in shout


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_graphviz_accepts_the_dot(graph: Graph) -> None:
    subprocess.run(["dot", "-Tsvg"], input=draw.dot(graph).encode(), check=True, capture_output=True)


def test_quotes_and_markup_stay_text() -> None:
    assert draw._mermaid_text('a"]--><b>#') == "a#quot;]--#gt;#lt;b#gt;#35;"
    assert draw._quoted('a"\\\n') == '"a\\"\\\\\\n"'


def test_a_long_chain_is_no_problem() -> None:
    nodes = ["  n0: {uses: sample.shout, in: {text: inputs.text}}"]
    nodes += [f"  n{i}: {{uses: sample.shout, in: {{text: n{i - 1}.text}}}}" for i in range(1, 1500)]
    text = "graphflow: 1\ninputs: {text: Text}\nnodes:\n" + "\n".join(nodes) + "\noutputs: {text: n1499.text}\n"
    graph = check(parse_spec(text, "chain.yaml"))
    lines = draw.tree(graph).splitlines()
    assert len(lines) == 1502
    assert lines[-1].endswith("text: inputs.text")
