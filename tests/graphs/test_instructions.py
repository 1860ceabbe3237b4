"""The graphs that edit by instructions, run with tiny models in the layouts of the published repositories."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from checkpoints import save_clip, save_instruct, save_ultra_edit
from measures import picture
from PIL import Image

import graphflow
from graphflow.errors import InvalidError


class Describer(BaseHTTPRequestHandler):
    """A vision-language model that always sees the same edit."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        data = json.dumps({"choices": [{"message": {"content": "Let me see.\nmake it blue"}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Iterator[Path]:
    root: Path = tmp_path_factory.mktemp("models")
    save_instruct(root / "ip2p")
    save_ultra_edit(root / "ultraedit")
    save_clip(root / "clip")
    server = HTTPServer(("127.0.0.1", 0), Describer)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    (root / "ip2p.yaml").write_text(
        f"""
graphflow-preset: 1
space: tiny
models:
  vae: {{loader: diffusers.vae, path: ip2p, part: vae}}
  instruct_denoiser: {{loader: diffusers.instruct_unet, path: ip2p, part: unet}}
  text_encoder: {{loader: transformers.clip_text, path: ip2p, part: text_encoder, options: {{tokenizer: tokenizer}}}}
  clip: {{loader: transformers.clip, path: clip}}
  vlm: {{loader: openai.vlm, endpoint: "http://127.0.0.1:{server.server_address[1]}/v1", options: {{model: tiny}}}}
"""
    )
    (root / "ultraedit.yaml").write_text(
        """
graphflow-preset: 1
space: tiny
models:
  vae: {loader: diffusers.vae, path: ultraedit, part: vae, options: {native_size: 128, shift_factor: 0}}
  instruct_denoiser: {loader: diffusers.instruct_sd3, path: ultraedit, part: transformer}
  text_encoder: {loader: transformers.sd3_text, path: ultraedit}
  clip: {loader: transformers.clip, path: clip}
"""
    )
    yield root
    server.shutdown()
    server.server_close()


def noise(seed: int) -> Image.Image:
    return picture(80, 64, seed)


def session(name: str, preset: Path, store: Path, **settings: Any) -> Any:
    return graphflow.load(name, models=str(preset), settings=settings, store=store, device="cpu")


@pytest.mark.parametrize(("preset", "size"), [("ip2p", (64, 64)), ("ultraedit", (128, 128))])
def test_one_graph_serves_every_family(preset, size, root, tmp_path):
    graph = session("instruct_pix2pix", root / f"{preset}.yaml", tmp_path)
    done = graph.run(image=noise(1), steps=2)
    assert done["image"].size == done["source"].size == size
    assert set(done["scores"]) == {"clip_image", "clip_instruction"}
    suffix = graph.run(image=noise(1), steps=2, suffix="image quality is five out of five")
    assert suffix["image"].tobytes() != done["image"].tobytes()


def test_another_instruction_encodes_the_new_text_and_edits_only(root, tmp_path):
    graph = session("instruct_pix2pix", root / "ip2p.yaml", tmp_path)
    graph.run(image=noise(1), steps=2)
    statuses = {n: p.status for n, p in graph.plan(image=noise(1), steps=2, instruction="make it red").nodes.items()}
    assert [n for n, s in statuses.items() if s == "cached"] == ["prepare", "negative"]


def visii_inputs(**changes: Any) -> dict[str, Any]:
    pair = {"before": noise(1), "after": noise(2), "image": noise(3)}
    return {**pair, "steps": 2, "prompt_steps": 2, "learning_steps": 3, "direction": 0.1, **changes}


def test_visii_learns_once_and_edits_every_picture(root, tmp_path):
    graph = session("visii", root / "ip2p.yaml", tmp_path)
    done = graph.run(**visii_inputs())
    assert done["image"].size == (64, 64)
    assert done["words"].strip()
    assert len(done["history"]) == 3
    assert all(row["direction"] for row in done["history"])
    assert set(done["scores"]) == {"s_visual"}
    plan = graph.plan(**visii_inputs(image=noise(4)))
    left = {name for name, node in plan.nodes.items() if node.status != "cached"}
    assert left == {"prepare", "edit", "decode", "score"}, "the exemplar's nodes are reused"


def test_visii_with_text_says_what_the_pair_shows(root, tmp_path):
    done = session("visii_text", root / "ip2p.yaml", tmp_path).run(**visii_inputs())
    assert done["instruction"] == "make it blue"
    plain = session("visii", root / "ip2p.yaml", tmp_path).run(**visii_inputs(), guidance=10.0)
    assert done["words"] == plain["words"]
    assert done["image"].tobytes() != plain["image"].tobytes()


def test_what_a_pair_shows_can_be_an_instruction(root, tmp_path):
    done = session("instruct_by_example", root / "ip2p.yaml", tmp_path).run(
        before=noise(1), after=noise(2), image=noise(3), steps=2
    )
    said = session("instruct_pix2pix", root / "ip2p.yaml", tmp_path).run(
        image=noise(3), instruction="make it blue", steps=2
    )
    assert done["instruction"] == "make it blue"
    assert done["image"].tobytes() == said["image"].tobytes()


def test_a_denoiser_of_another_family_is_refused_before_anything_loads(root, tmp_path):
    (root / "mixed.yaml").write_text(
        "graphflow-preset: 1\nextends: ip2p.yaml\nmodels:\n"
        "  text_encoder: {loader: transformers.sd3_text, path: ultraedit, space: other}\n"
    )
    with pytest.raises(InvalidError, match="instruct_denoiser"):
        session("instruct_pix2pix", root / "mixed.yaml", tmp_path)
