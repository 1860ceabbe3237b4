"""DINO-I's embedding and the structure distance: transformers and timm against each other and the formula."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from checkpoints import VISION
from measures import TIMM_ARGS, picture
from torch.nn.functional import mse_loss
from transformers import ViTConfig, ViTModel

from graphflow.nodes.lib.metrics import pixels, vit

A, B = (pixels.structure_pixels(pixels.to_unit(picture(48, 48, seed)), 32, 480, True) for seed in (1, 2))


@pytest.fixture(scope="module")
def ours():
    torch.manual_seed(0)
    return vit.ViT(ViTModel(ViTConfig(**VISION, layer_norm_eps=1e-6), add_pooling_layer=False), 8)


RENAMED = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layers.": "blocks.",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "layernorm.": "norm.",
    "attention.o_proj": "attn.proj",
}


def in_timms_layout(state):
    out = {}
    for name, tensor in state.items():
        for old, new in RENAMED.items():
            name = name.replace(old, new)
        out[name] = tensor
    for layer in range(TIMM_ARGS["depth"]):
        for end in ("weight", "bias"):
            parts = [out.pop(f"blocks.{layer}.attention.{p}_proj.{end}") for p in "qkv"]
            out[f"blocks.{layer}.attn.qkv.{end}"] = torch.cat(parts)
    return out


@pytest.fixture(scope="module")
def theirs(ours):
    """The same weights in timm's layout, which is the one of DINO's authors."""
    how = TIMM_ARGS | {"mlp_ratio": 2, "num_classes": 0, "dynamic_img_size": True}
    model = timm.create_model("vit_small_patch16_224", pretrained=False, **how)
    model.load_state_dict(in_timms_layout(ours.model.state_dict()), strict=True)
    return vit.ViT(model, 8)


def test_timm_and_transformers_agree(ours, theirs):
    torch.testing.assert_close(ours.embed(A), theirs.embed(A), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.keys(A), theirs.keys(A), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.keys(A, 0), theirs.keys(A, 0), atol=1e-5, rtol=1e-4)
    assert ours.keys(A).shape == (1, 17, 32)


def test_the_embedding_is_the_class_token_after_the_last_norm(ours):
    expected = ours.model(A).last_hidden_state[:, 0]
    assert torch.equal(ours.embed(A), expected)


def test_structure_distance_is_spliced_from_keys_as_the_script_does(ours):
    similarities = []
    for picture_ in (A, B):
        keys = ours.keys(picture_)[0].numpy()
        norms = np.linalg.norm(keys, axis=1)
        similarities.append(keys @ keys.T / np.maximum(norms[:, None] * norms[None], 1e-8))
    expected = mse_loss(*map(torch.from_numpy, similarities)).item()
    found = vit.structure_distance(ours.keys(A), ours.keys(B)).item()
    assert found == pytest.approx(expected, abs=1e-6)
    assert found > 1e-6
    assert vit.structure_distance(ours.keys(A), ours.keys(A)).item() == 0


def test_the_range_of_pie_bench_gives_another_number(ours):
    unit, raw = (
        [ours.keys(pixels.structure_pixels(read(picture(48, 48, s)), 32, 480, True)) for s in (1, 2)]
        for read in (pixels.to_unit, pixels.to_bytes)
    )
    right, wrong = vit.structure_distance(*unit).item(), vit.structure_distance(*raw).item()
    assert abs(right - wrong) / right > 0.1


def test_pictures_that_are_no_square_are_taken(ours, theirs):
    wide = pixels.structure_pixels(pixels.to_unit(picture(96, 48)), 32, 480, True)
    assert ours.keys(wide).shape == theirs.keys(wide).shape == (1, 1 + 4 * 8, 32)


def test_what_is_no_whole_patch_is_left_out(ours, theirs):
    odd = pixels.structure_pixels(pixels.to_unit(picture(75, 48)), 32, 480, True)
    assert odd.shape[-2:] == (32, 50)
    assert theirs.keys(odd).shape == ours.keys(odd).shape == (1, 1 + 4 * 6, 32)
    assert torch.equal(theirs.keys(odd), theirs.keys(odd[..., :48]))


def test_a_layer_that_does_not_exist_is_named(ours):
    with pytest.raises(ValueError, match="layer 11 does not exist: the ViT has 2 layers"):
        ours.keys(A, 11)
