"""Broken graph files: a diagnostic with a place or a valid graph, never anything else, and never slow."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from mutations import judge, mutants, seeds

HEAD = "graphflow: 1\ninputs: {text: Text}\nmodels: pocket\nnodes:\n"
NODE = "  a: {uses: text.encode, in: {text: inputs.text}}\n"
TAIL = "outputs: {cond: a.cond}\n"
PRESET = "graphflow-preset: 1\nmodels: {}\n"
ENTRY = "{text_encoder: {loader: transformers.clip_text, %s}}"


def uses(name: str) -> str:
    return f"{HEAD}  a: {{uses: {name}, in: {{text: inputs.text}}}}\n{TAIL}"


def models(value: str) -> str:
    return HEAD.replace("pocket", value) + NODE + TAIL


def levels(width: int, depth: int) -> dict[str, str]:
    """Graphs that use each other: `width` times the next one, `depth` levels deep."""
    files = {"graph.yaml": uses("l0.yaml")}
    for i in range(depth):
        kind = f"l{i + 1}.yaml" if i + 1 < depth else "text.encode"
        nodes = "".join(f"  {chr(97 + n)}: {{uses: {kind}, in: {{text: inputs.text}}}}\n" for n in range(width))
        files[f"l{i}.yaml"] = f"graphflow: 1\ninputs: {{text: Text}}\nnodes:\n{nodes}{TAIL}"
    return files


def many(node: str, count: int) -> str:
    return HEAD + NODE + "".join(f"  n{i}: {{{node % i}}}\n" for i in range(count)) + TAIL


CASES: dict[str, dict[str, str]] = {
    "a name longer than a file system takes": {"graph.yaml": uses("n" * 300 + ".yaml")},
    "a NUL in a graph's name": {"graph.yaml": uses('"\\0.yaml"')},
    "a NUL in a kind": {"graph.yaml": uses('"\\0"')},
    "a folder as graph": {"graph.yaml": uses("x.yaml"), "x.yaml/y": ""},
    "a graph that uses itself": {"graph.yaml": uses("graph.yaml")},
    "a kind named like a module without kinds": {"graph.yaml": uses("loaders.x")},
    "a very long kind": {"graph.yaml": uses("ab" * 50_000)},
    "a very long edge": {"graph.yaml": HEAD + "  a: {uses: text.encode, in: {text: a." + "b" * 50_000 + "}}\n" + TAIL},
    "a preset's name longer than a file system takes": {"graph.yaml": models("n" * 300 + ".yaml")},
    "a NUL in a preset's name": {"graph.yaml": models('"\\0.yaml"')},
    "a preset that extends itself": {"graph.yaml": models("p.yaml"), "p.yaml": "extends: p.yaml\n" + PRESET},
    "presets that extend each other": {
        "graph.yaml": models("p.yaml"), "p.yaml": "extends: q.yaml\n" + PRESET, "q.yaml": "extends: p.yaml\n" + PRESET,
    },
    "a NUL in a model's path": {"graph.yaml": models(ENTRY % 'path: "\\0"')},
    "a revision that is no text": {"graph.yaml": models(ENTRY % "hub: a/b, revision: {a: b}, part: [x], space: 3")},
    "sources that are no text": {"graph.yaml": models(ENTRY % "packaged: {a: b}, path: [a], hub: 3, endpoint: 3")},
    "sections without a value": {"graph.yaml": HEAD + "  a: {uses: text.encode, in: , with: , map: }\n" + TAIL},
    "keys that are no text": {"graph.yaml": HEAD + NODE + TAIL + "1: 2\ntrue: 3\nnull: 4\n"},
    "two thousand good nodes": {"graph.yaml": many("uses: text.encode, in: {text: inputs.text}, doc: %d", 2000)},
    "three hundred unknown kinds": {"graph.yaml": many("uses: text.encod, in: {text: inputs.tex}, doc: %d", 300)},
    "a thousand edges to nowhere": {"graph.yaml": many("uses: text.encode, in: {text: nn%d.cond}", 1000)},
    "a circle of two thousand": {"graph.yaml": many("uses: image.prepare, in: {image: n%d.image}", 2000)},
    "a chain of graphs": levels(1, 12),
    "graphs that treble at every level": levels(3, 15),
    "graphs that grow tenfold at every level": levels(10, 8),
    "graphs that are nested too deeply": levels(1, 30),
    "a few thousand nodes from a few files": levels(10, 3),
}  # fmt: skip

VALID = {"two thousand good nodes", "a chain of graphs", "a few thousand nodes from a few files"}


@pytest.mark.parametrize("name", CASES)
def test_hard_cases_are_a_graph_or_a_diagnostic(name: str, tmp_path: Path) -> None:
    verdict = judge({file: text.encode() for file, text in CASES[name].items()}, tmp_path)
    assert bool(verdict.codes) == (name not in VALID)


def test_the_seeds_themselves_are_valid(tmp_path: Path) -> None:
    for i, files in enumerate(seeds()):
        assert judge(files, tmp_path / str(i)).codes == ()


@pytest.mark.parametrize("seed", range(4))
def test_mutants_are_a_graph_or_diagnostics(seed: int, tmp_path: Path) -> None:
    outcomes = set()
    for i, (files, name) in enumerate(islice(mutants(seed), 150)):
        try:
            outcomes.update(judge(files, tmp_path).codes or ["valid"])
        except Exception as error:
            raise AssertionError(f"mutant {i} of seed {seed}, which lies in {tmp_path}: {name}") from error
    assert "valid" in outcomes
    assert len(outcomes) > 10, f"the mutants are too much alike: {outcomes}"
