"""A graph for one picture, run over a folder of them (``--map image``): a graph around it with a single mapped node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphflow.errors import Diagnostic, Mark, UsageError, did_you_mean
from graphflow.ports import Port
from graphflow.spec import GraphSpec, NodeSpec, Ref

EACH = "each"  # the mapped node's name: instances are each[0]/caption, each[1]/caption, …


def map_over(spec: GraphSpec, names: Sequence[str]) -> GraphSpec:
    """The graph that runs `spec` once for each element of the inputs `names`, which become lists.

    Raises:
        UsageError: there is no such input, or it is a list already.
    """
    for name in names:
        if name not in spec.inputs:
            hint = did_you_mean(name, spec.inputs)
            raise UsageError(f"--map {name}: the graph has no such input" + (f"; {hint}" if hint else ""))
        if spec.inputs[name].is_list:
            raise UsageError(f"--map {name}: the input is a list already")
    mark = Mark("--map")
    inputs = {
        n: replace(i, is_list=True, default=None, has_default=False) if n in names else i
        for n, i in spec.inputs.items()
    }
    edges = {name: Ref("inputs", name, mark) for name in inputs}
    node = NodeSpec(EACH, EACH, mark, mark, edges, {}, {}, dict.fromkeys(edges, mark), frozenset(names))
    inner = replace(spec, place=f"./{spec.name}.yaml")  # not the place of the graph around it
    return replace(
        spec, inputs=inputs, nodes={EACH: node}, outputs={n: Ref(EACH, n, mark) for n in spec.outputs},
        mapped=tuple(names), subgraphs={EACH: inner},
    )  # fmt: skip


def without_lists(spec: GraphSpec, ports: dict[str, Port]) -> tuple[GraphSpec, list[Diagnostic]]:
    """`spec` without the outputs that can't be mapped, and a warning for each.

    Args:
        spec: the graph that is to be mapped.
        ports: its outputs' ports.
    """
    left_out = {}
    for name, ref in spec.outputs.items():
        if ports[name].is_list:
            left_out[name] = "is a list already"
        elif ref.node == "inputs":
            left_out[name] = "only passes on an input"
    warnings = [
        Diagnostic(spec.outputs[n].mark, "GF151", f"--map leaves out output '{n}': it {why}", severity="warning")
        for n, why in left_out.items()
    ]
    return replace(spec, outputs={n: r for n, r in spec.outputs.items() if n not in left_out}), warnings
