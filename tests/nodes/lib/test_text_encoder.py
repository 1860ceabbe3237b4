"""Text conditioning and edit directions."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_text_encoder, tiny_tokenizer

from graphflow.nodes.lib.text_encoder import TextEncoder, edit_direction


@pytest.fixture(scope="module")
def encoder():
    return TextEncoder(tiny_tokenizer(), tiny_text_encoder())


def test_embeddings_are_the_last_hidden_states_of_the_padded_prompt(encoder):
    ids = tiny_tokenizer()(["a cat", ""], padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        expected = tiny_text_encoder()(ids).last_hidden_state
    assert torch.equal(encoder.encode(["a cat", ""]), expected)


def test_many_prompts_are_encoded_in_parts(encoder):
    texts = [f"a cat and {i} dogs" for i in range(130)]
    assert torch.allclose(encoder.encode(texts)[129], encoder.encode(texts[129:])[0], atol=1e-6)


def test_what_is_cut_off_is_told(encoder):
    full = "x " * 75
    assert encoder.cut_off(["short", full]) == []
    assert encoder.cut_off(["short", full + "y z"]) == ["y z"]
    assert torch.equal(encoder.encode([full + "y z"]), encoder.encode([full]))


def test_direction_is_the_difference_of_the_means(encoder):
    before, after = ["a cat", "one cat"], ["a dog", "one dog", "my dog"]
    expected = torch.stack([encoder.encode([t])[0] for t in after]).mean(0)
    expected -= torch.stack([encoder.encode([t])[0] for t in before]).mean(0)
    direction = edit_direction(encoder, before, after)
    assert direction.shape == (77, 32)
    assert torch.allclose(direction, expected, atol=1e-6)
    assert torch.equal(edit_direction(encoder, before, before), torch.zeros(77, 32))


def test_a_tokenizer_without_a_limit_takes_the_models(encoder):
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = 10**30
    assert TextEncoder(tokenizer, tiny_text_encoder()).max_tokens == 77
