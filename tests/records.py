"""A record with every kind of value in it, and the values behind its digests, for tests of what users look at."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from graphflow.ports import TextCond, Trajectory
from graphflow.record import InputRecord, ModelRecord, NodeRecord, RunRecord, ValueRecord

GRAPH = "graphflow: 1\nmodels: pocket\nnodes: {}\n"


def picture(colour: str, size: tuple[int, int] = (8, 6)) -> Image.Image:
    return Image.new("RGB", size, colour)


def values() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((1, 4, 6, 8)).astype(np.float32)
    return {
        "cat": picture("orange"),
        "dog": picture("brown"),
        "mask": Image.new("L", (8, 6), 255),
        "words": "a cat",
        "lines": ["a cat", "a dog"],
        "latents": latents,
        "path": Trajectory([-1, 1, 501], np.stack([latents, latents * 2, latents * 3])),
        "cond": TextCond(rng.standard_normal((1, 5, 3)).astype(np.float32)),
        "scores": {"clip_text": 0.31234567},
        "rows": [{"name": "one", "score": 0.5}, {"name": "two", "extra": True}],
    }


def value(type_name: str, digest: str, file: str | None = None) -> ValueRecord:
    return ValueRecord(type=type_name, digest=digest, bytes=2048, file=file)


def node(kind: str, inputs: dict[str, Any], outputs: dict[str, ValueRecord], **more: Any) -> NodeRecord:
    return NodeRecord(**{"kind": kind, "version": 1, "status": "ran", "inputs": inputs, "outputs": outputs, **more})


def record(**changes: Any) -> RunRecord:
    nodes = {
        "caption": node("caption", {"image": "inputs.image"}, {"text": value("Text", "words")}, seconds=0.5),
        "encode": node(
            "vae.encode", {"image": "inputs.image"}, {"latents": value("Latents", "latents")},
            status="cached", seconds=2.0, key="0123456789abcdef",
        ),
        "invert": node(
            "invert.ddim", {"latents": "encode.latents"}, {"trajectory": value("Trajectory", "path")},
            parameters={"num_inference_steps": 50, "guidance_scale": 1.0}, seconds=1.0, reason="no earlier result",
        ),
        "embed": node("text.encode", {"text": "caption.text"}, {"cond": value("TextCond", "cond")}),
        "words": node("captions", {"text": "caption.text"}, {"after": value("list[Text]", "lines")}),
        "score": node(
            "score.clip", {"image": "inputs.image"},
            {"scores": value("Scores", "scores"), "rows": value("Table", "rows"), "mask": value("Mask", "mask")},
        ),
        "decode": node("vae.decode", {"latents": "invert.trajectory"}, {"image": value("Image", "dog")}),
    }  # fmt: skip
    fields: dict[str, Any] = {
        "graphflow": "0.1.0",
        "graph": "edit",
        "title": "An edit",
        "text": GRAPH,
        "inputs": {
            "image": InputRecord(type="Image", digest="cat", source="cat.png"),
            "instruction": InputRecord(type="Text", value="turn the cat into a dog"),
            "seed": InputRecord(type="int", value=0),
        },
        "preset": "pocket",
        "models": {
            "vae": ModelRecord(
                loader="diffusers.vae", source="some/repo@0123abc/vae", space="pocket", fingerprint="feedbeef"
            )
        },
        "started": "2026-01-02T03:04:05+00:00",
        "seconds": 3.5,
        "nodes": nodes,
        "outputs": {"image": value("Image", "dog", "image.png"), "scores": value("Scores", "scores", "scores.json")},
    }
    return RunRecord(**{**fields, **changes})
