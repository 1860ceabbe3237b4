"""The nodes that learn instructions: what they pass on, and that a killed one goes on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from checkpoints import save_clip, tiny_sd3_transformer
from measures import picture
from tiny import SD_SCHEDULER, tiny_text_encoder, tiny_tokenizer, tiny_unet, tiny_vae

from graphflow.models.refs import ModelRef, loaders
from graphflow.node import Context
from graphflow.nodes.instruct import Hybrid
from graphflow.nodes.lib import pez, visii
from graphflow.nodes.lib.instruct_pix2pix import InstructDenoiser
from graphflow.nodes.lib.text_encoder import TextEncoder
from graphflow.nodes.lib.ultra_edit import InstructTransformer
from graphflow.nodes.lib.vae import VAE, to_pixels
from graphflow.nodes.lib.visii import Direction, Pair, edit_direction, hybrid_instruction, optimise_instruction
from graphflow.nodes.train_instruction import HardPrompt, Visii

BEFORE, AFTER = picture(seed=1), picture(seed=2)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Any]:
    folder = save_clip(tmp_path_factory.mktemp("clip"))
    ref = ModelRef("clip", "transformers.clip", "tiny", path=folder)
    return {
        "vae": VAE(tiny_vae()),
        "text_encoder": TextEncoder(tiny_tokenizer(), tiny_text_encoder()),
        "clip": loaders()["transformers.clip"].load(ref, folder, torch.device("cpu"), torch.float32),
        "model": InstructDenoiser(tiny_unet(in_channels=8), SD_SCHEDULER),
    }


class Killed(Exception):
    """Stands for a kill in the middle of a run."""


class KilledContext(Context):
    """A context whose run is killed before its sixth step."""

    def steps(self, iterable: Iterable[Any], total: int | None = None, label: str = "") -> Iterator[Any]:
        for number, item in enumerate(iterable):
            if number == 5:
                raise Killed
            yield item


def inputs(models, **changes):
    return Visii.In(**({"before": [BEFORE], "after": [AFTER], "prompt": "make it loud", **models} | changes))


def test_visii_passes_every_port_and_parameter_on(models):
    how = {"learning_rate": 0.01, "weight_decay": 0.1, "guidance_scale": 5.0, "image_guidance_scale": 1.2}
    node = Visii(num_steps=3, direction_weight=0.3, mse_weight=2.0, seed=5, keep="last", **how)
    out = node.run(inputs(models), Context())
    texts, vae, clip = models["text_encoder"], models["vae"], models["clip"]
    expected = optimise_instruction(
        models["model"],
        [Pair(vae.encode_unscaled(to_pixels([BEFORE])), vae.encode(to_pixels([AFTER])))],
        texts.encode(["make it loud"]),
        texts.encode([""]),
        texts.end_of("make it loud"),
        torch.Generator().manual_seed(5),
        3,
        direction=Direction(edit_direction(clip.image([BEFORE]), clip.image([AFTER])), clip.project_text, 0.3),
        mse_weight=2.0,
        keep_last=True,
        **how,
    )
    assert torch.equal(out.cond.embeds, expected.cond)
    assert (out.cond.pooled, out.end) == (None, texts.end_of("make it loud"))
    assert [row["timestep"] for row in out.history] == expected.timesteps.tolist()
    assert all(row["mse"] > 0 and -1 <= row["direction"] <= 1 for row in out.history)


def test_without_a_direction_no_clip_is_needed(models):
    node = Visii(num_steps=2, direction_weight=0)
    out = node.run(inputs(models, clip=None), Context())
    assert torch.equal(out.cond.embeds, node.run(inputs(models), Context()).cond.embeds)
    assert {row["direction"] for row in out.history} == {0.0}


def test_what_cannot_be_learned_is_refused_in_words(models):
    node = Visii(num_steps=1)
    with pytest.raises(ValueError, match="1 pictures before and 2 after"):
        node.run(inputs(models, after=[AFTER, AFTER]), Context())
    with pytest.raises(ValueError, match="needs a clip"):
        node.run(inputs(models, clip=None), Context())
    with pytest.raises(ValueError, match="has no words"):
        node.run(inputs(models, prompt=""), Context())
    with pytest.raises(ValueError, match="a denoiser that predicts noise"):
        node.run(inputs(models, model=InstructTransformer(tiny_sd3_transformer(8), {})), Context())
    wide = TextEncoder(tiny_tokenizer(), tiny_text_encoder(width=64))
    with pytest.raises(ValueError, match="of width 64 with a CLIP of text width 32"):
        node.run(inputs(models, text_encoder=wide), Context())


def test_a_killed_learning_goes_on_from_its_checkpoint(models, tmp_path, monkeypatch):
    monkeypatch.setattr(visii, "SAVE_EVERY", 2)
    node, x = Visii(num_steps=7), inputs(models)
    with pytest.raises(Killed):
        node.run(x, KilledContext(checkpoint=tmp_path))
    assert any(tmp_path.iterdir())
    resumed, whole = node.run(x, Context(checkpoint=tmp_path)), node.run(x, Context())
    assert torch.equal(resumed.cond.embeds, whole.cond.embeds)
    assert resumed.history == whole.history


def test_a_killed_search_for_words_goes_on_from_its_checkpoint(models, tmp_path, monkeypatch):
    monkeypatch.setattr(pez, "SAVE_EVERY", 2)
    node, x = HardPrompt(num_tokens=4, num_steps=7), HardPrompt.In(images=[AFTER], model=models["clip"])
    with pytest.raises(Killed):
        node.run(x, KilledContext(checkpoint=tmp_path))
    resumed, whole = node.run(x, Context(checkpoint=tmp_path)), node.run(x, Context())
    assert resumed.text == whole.text != ""
    with pytest.raises(ValueError, match="no pictures to find words for"):
        node.run(HardPrompt.In(images=[], model=models["clip"]), Context())


def test_a_hybrid_says_what_found_no_room(models, caplog):
    texts = models["text_encoder"]
    learned = Visii(num_steps=1).run(inputs(models), Context())
    x = Hybrid.In(learned=learned.cond, end=learned.end, text="a red hat", model=texts)
    expected, _ = hybrid_instruction(
        learned.cond.embeds, learned.end, texts.encode(["a red hat"]), texts.end_of("a red hat")
    )
    with caplog.at_level("INFO", "graphflow.node"):
        assert torch.equal(Hybrid().run(x, Context()).cond.embeds, expected)
        assert caplog.text == ""
        Hybrid().run(Hybrid.In(learned=learned.cond, end=72, text="a red hat", model=texts), Context())
    assert "no room behind the learned instruction" in caplog.text


def test_the_end_of_a_text_is_where_its_end_token_stands(models):
    texts = models["text_encoder"]
    for text in ("", "cat", "x" * 75, "x" * 200):
        ids = texts.tokenizer(text, padding="max_length", truncation=True, max_length=77).input_ids
        assert texts.end_of(text) == ids.index(texts.tokenizer.eos_token_id)
