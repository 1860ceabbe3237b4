"""The shipped editing graphs, run with tiny models of Stable Diffusion's architecture and a language model by URL."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from checkpoints import save_blip, save_clip, save_sd
from PIL import Image

import graphflow

ANSWER = """Before transformation:
Caption 1: a cat
Caption 2: one cat
Caption 3: my cat
After transformation:
Caption 1: a dog
Caption 2: one dog
Caption 3: my dog"""


class Writer(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        data = json.dumps({"choices": [{"message": {"content": ANSWER}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def preset(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("models")
    save_sd(root / "sd")
    save_blip(root / "blip")
    save_clip(root / "clip")
    server = HTTPServer(("127.0.0.1", 0), Writer)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    (root / "tiny.yaml").write_text(
        f"""
graphflow-preset: 1
space: tiny
models:
  vae: {{loader: diffusers.vae, path: sd, part: vae}}
  denoiser: {{loader: diffusers.unet, path: sd, part: unet}}
  text_encoder: {{loader: transformers.clip_text, path: sd, part: text_encoder, options: {{tokenizer: tokenizer}}}}
  captioner: {{loader: transformers.blip, path: blip}}
  clip: {{loader: transformers.clip, path: clip}}
  llm: {{loader: openai, endpoint: "http://127.0.0.1:{server.server_address[1]}/v1", options: {{model: tiny}}}}
"""
    )
    yield root / "tiny.yaml"
    server.shutdown()
    server.server_close()


def run(name, preset, store, **inputs):
    settings = {"caption.num_beams": 1, "caption.max_new_tokens": 4}  # random weights end a searched caption at once
    session = graphflow.load(name, models=str(preset), settings=settings, store=store, device="cpu")
    return session.run(image=Image.effect_noise((80, 64), 60).convert("RGB"), steps=2, **inputs)


def test_pix2pix_on_the_fly(preset, tmp_path):
    result = run("pix2pix_on_the_fly", preset, tmp_path, captions=3)
    assert (result["image"].mode, result["image"].size) == ("RGB", (64, 64))
    assert result["after"] == ["a dog", "one dog", "my dog"]
    assert result["before"] == [result["caption"], "a cat", "one cat"]
    assert set(result["scores"]) == {"clip_text", "clip_text_distance", "clip_image", "clip_direction"}


def test_prompt_swap(preset, tmp_path):
    result = run("prompt_swap", preset, tmp_path)
    assert result["image"].size == (64, 64)
    assert result["target"] == "a dog"
