"""Records of runs on several devices, with loads, waits, batches and host workers, as the engine writes them."""

from __future__ import annotations

from typing import Any

import records

from graphflow.record import LoadRecord, NodeRecord, RunRecord

GIB = 2**30


def done(kind: str, device: str, started: float, seconds: float, *sources: str, **more: Any) -> NodeRecord:
    inputs: dict[str, Any] = {f"x{i}": source for i, source in enumerate(sources)}
    fields = {"status": "ran", "started": started, "seconds": seconds, "device": device, "inputs": inputs}
    return NodeRecord(**{"kind": kind, "version": 1, **fields, **more})


def load(model: str, stage: Any, device: str, started: float, seconds: float, gib: float) -> LoadRecord:
    return LoadRecord(
        model=model, device=device, stage=stage, started=started, seconds=seconds, bytes=int(gib * GIB)
    )  # fmt: skip


def swapped(**changes: Any) -> RunRecord:
    """One picture on one GPU, where the second model makes the first one go."""
    nodes = {
        "fit": done("image.prepare", "host", 0.1, 0.4, "inputs.image"),
        "caption": done("caption", "cuda:0", 2.0, 1.0, "fit.image", peak=GIB, key="c0ffee", reason="image changed"),
        "edit": done("denoise.ddim", "cuda:0", 5.0, 4.0, "caption.text", peak=2 * GIB),
        "grade": done("image.grade", "host", 9.0, 2.0, "edit.image"),
        "check": done("score.clip", "cuda:0", 11.0, 0.5, "grade.image"),
        "old": NodeRecord(kind="vae.encode", version=1, status="cached", seconds=3.0),
    }
    loads = [
        load("qwen", "host", "cuda:0", 0.5, 1.2, 4),
        load("qwen", "device", "cuda:0", 1.7, 0.3, 4),
        load("qwen", "released", "cuda:0", 3.0, 0.1, 4),
        load("unet", "host", "cuda:0", 1.8, 2.8, 3),
        load("unet", "device", "cuda:0", 4.6, 0.4, 3),
    ]
    fields: dict[str, Any] = {
        "nodes": nodes, "loads": loads, "memory": {"cuda:0": 6 * GIB}, "device": "cuda:0", "seconds": 12.0,
        "inputs": {}, "outputs": {},
    }  # fmt: skip
    return records.record(**{**fields, **changes})


def mapped(count: int, devices: int = 2, batch: int = 4, **changes: Any) -> RunRecord:
    """Elements that are prepared by four host workers, edited in batches and decoded one by one."""
    nodes: dict[str, NodeRecord] = {}
    for i in range(count):
        nodes[f"each[{i}]/fit"] = done("image.prepare", "host", 0.25 * (i // 4), 0.25, f"inputs.image[{i}]")
    at = dict.fromkeys(range(devices), 1.0)
    for first in range(0, count, batch):
        device = (first // batch) % devices
        together = range(first, min(first + batch, count))
        for i in together:
            nodes[f"each[{i}]/edit"] = done(
                "denoise.ddim", f"cuda:{device}", at[device], 0.5, f"each[{i}]/fit.image",
                batch=len(together), peak=GIB,
            )  # fmt: skip
        at[device] += 0.5 * len(together)
        for i in together:
            nodes[f"each[{i}]/decode"] = done(
                "vae.decode", f"cuda:{device}", at[device], 0.125, f"each[{i}]/edit.latents"
            )
            at[device] += 0.125
    fields: dict[str, Any] = {
        "nodes": nodes, "device": "cuda:0", "seconds": max(at.values()), "inputs": {}, "outputs": {},
    }  # fmt: skip
    return records.record(**{**fields, **changes})
