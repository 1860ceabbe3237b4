"""The shipped graphs as tasks over many pictures, with sizes and times of real models from tables."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from graphflow.graph import Graph
from graphflow.models.refs import ModelRef
from graphflow.models.weights import model_key
from graphflow.scheduler import ModelSpec, Task
from graphflow.scheduler.from_plan import Expected, PlanTasks
from graphflow.session import open_session
from graphflow.spec import shipped_graphs

GB = 10**9
READ, MOVE = 2 * GB, 20 * GB  # bytes a second: a fast disk, PCIe 4
# Gigabytes by role. Pocket: the packaged models. sd15 as the preset, sdxl with 7B language models.
SIZES = {
    "pocket": {
        "vae": 0.0025, "denoiser": 0.033, "instruct_denoiser": 0.033, "text_encoder": 0.002, "clip": 0.0052,
        "image_encoder": 0.0032, "captioner": 0.0053, "caption_writer": 0.0046, "llm": 0.0046, "vlm": 0.0054,
        "ip_adapter": 0.0013,
    },
    "sd15": {
        "vae": 0.17, "denoiser": 1.72, "instruct_denoiser": 1.72, "text_encoder": 0.25, "clip": 0.6,
        "image_encoder": 1.26, "captioner": 0.94, "caption_writer": 5.6, "llm": 5.6, "vlm": 14.1, "ip_adapter": 0.05,
    },
    "sdxl": {
        "vae": 0.17, "denoiser": 5.14, "instruct_denoiser": 5.14, "text_encoder": 1.64, "clip": 1.97,
        "image_encoder": 3.69, "captioner": 7.75, "caption_writer": 14.5, "llm": 14.5, "vlm": 14.1, "ip_adapter": 0.7,
    },
}  # fmt: skip
ACTIVATIONS = {"pocket": 0.002, "sd15": 1.0, "sdxl": 3.0}  # gigabytes beside the weights
# Seconds of a node, about those of a GPU with 24 GB: 50 steps of inversion or sampling, a caption, an instruction.
SECONDS = {
    "image.prepare": 0.02, "instruct.prepare": 0.02, "caption": 0.4, "captions.before_after": 2.0, "text.encode": 0.02,
    "text.direction": 0.05, "vae.encode": 0.06, "vae.decode": 0.08, "invert.ddim": 3.0, "features.capture": 3.5,
    "score.clip": 0.05, "score.s_visual": 0.05, "embedding.image": 0.05, "embedding.exemplar": 0.1,
    "train_instruction.hard_prompt": 60.0, "train_instruction.visii": 300.0,
}  # fmt: skip
OTHERS = 6.0  # sampling with guidance, and what a large model describes

EDITS = [name for name in shipped_graphs() if "/" not in name]


def shipped_map(name: str, table: str, count: int) -> tuple[list[Task], dict[str, ModelSpec]]:
    """Tasks and models of a shipped graph over so many pictures."""
    graph, tasks = _planned(name)
    return mapped(graph, tasks, table, count)


@cache
def _planned(name: str) -> tuple[Graph, list[Task]]:
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(name, store=Path(folder))
        return session.graph, PlanTasks(session.plan(), session.graph, lambda node, planned: Expected()).all()


def mapped(graph: Graph, tasks: Sequence[Task], table: str, count: int) -> tuple[list[Task], dict[str, ModelSpec]]:
    """The tasks of a graph over so many pictures: what depends on the picture once for each, the rest once."""
    below: set[str] = set()
    for name in graph.order:
        node = graph.nodes[name]
        if any((r.node == "inputs" and r.port == "image") or r.node in below for r in node.refs):
            below.add(name)
    roles = {model_key(ref): ref for node in graph.nodes.values() for ref in node.models.values()}
    out = []
    for task in tasks:
        kind = graph.nodes[task.name].cls.kind
        memory = int(ACTIVATIONS[table] * GB) if kind.startswith(("denoise", "invert", "instruct.", "features")) else 0
        task = replace(task, seconds=SECONDS.get(kind, OTHERS), memory=memory, batch="")
        if task.name not in below:
            out.append(task)
            continue
        for i in range(count):
            needs = tuple(f"each[{i}]/{n}" if n in below else n for n in task.needs)
            out.append(replace(task, name=f"each[{i}]/{task.name}", needs=needs, element=("each", i)))
    used = {m for t in out for m in t.models}
    return out, {key: _spec(ref, table) for key, ref in roles.items() if key in used}


def _spec(ref: ModelRef, table: str) -> ModelSpec:
    sizes = SIZES[table]
    size = int(sizes.get(ref.name, sizes.get(ref.role, 1.0)) * GB)
    return ModelSpec(size, size / READ, size / MOVE)
