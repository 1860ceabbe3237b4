"""What holds for every registered node, every shipped preset and every shipped graph."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from graphflow import registry
from graphflow.check import check
from graphflow.errors import Mark
from graphflow.models.preset import load_preset, shipped_presets
from graphflow.node import Field, Node, Ports
from graphflow.ports import Model, Text, Weights, type_by_name
from graphflow.spec import load_spec, shipped_graphs
from graphflow.testing import check_node

KINDS = registry.all_kinds()


@pytest.mark.parametrize("kind", KINDS)
def test_every_node_keeps_the_contract(kind: str) -> None:
    cls = KINDS[kind]
    assert registry.find(kind) is cls
    check_node(cls)
    family = kind.partition(".")[0]
    if cls.__module__.startswith("graphflow.nodes."):
        assert cls.__module__ == f"graphflow.nodes.{family}", "a kind's family is its file"


@pytest.mark.parametrize("name", shipped_presets())
def test_every_preset_reads_and_pins_its_models(name: str) -> None:
    for role, ref in load_preset(name, Mark("test"), Path()).models.items():
        assert role == ref.role or role.startswith(f"{ref.role}_"), "further models of a role are called role_something"
        if ref.hub:
            assert ref.revision is not None
            assert len(ref.revision) == 40, "a commit, not a branch"


@pytest.mark.parametrize("name", shipped_graphs())
def test_every_shipped_graph_checks_without_warnings(name: str) -> None:
    spec = load_spec(shipped_graphs()[name])
    assert spec.title
    assert all(i.doc for i in spec.inputs.values()), "every input says what it is"
    assert check(spec).warnings == []


def test_importing_nodes_and_checking_graphs_leaves_torch_alone() -> None:
    code = """
import sys
from graphflow import registry
from graphflow.check import check
from graphflow.spec import load_spec, shipped_graphs
from graphflow.testing import check_node
registry.all_kinds()
for path in shipped_graphs().values():
    check(load_spec(path))
import graphflow.session, graphflow.run, graphflow.cli.app, graphflow.report
print([m for m in ("torch", "diffusers", "transformers", "huggingface_hub", "networkx") if m in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_node_without_a_description_is_refused() -> None:
    with pytest.raises(TypeError, match="parameter 'n' has no description"):

        class Bad(Node, kind="sample.bad"):
            """Bad."""

            n: int = Field(1)

            class In(Ports):
                text: Text

            class Out(Ports):
                text: Text


def test_ports_say_what_is_wrong() -> None:
    class In(Ports):
        text: Text
        more: list[Text] = []  # noqa: RUF012
        model: Model["vae"]

    with pytest.raises(TypeError, match=r"unknown: \['txt'\], missing: \['text', 'model'\]"):
        In(txt="x")
    assert In(text="x", model=None).more == []
    assert type_by_name("list[Weights[vae]]") == (Weights["vae"].__metadata__[0], True)

    class Wrong(Ports):
        thing: dict[str, int]

    with pytest.raises(TypeError, match="Wrong.thing: .* is not a port type"):
        Wrong(thing={})
