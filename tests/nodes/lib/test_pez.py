"""Hard prompts: the straight-through step against the formula, and what is learned."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkpoints import save_clip
from measures import picture, save_open_clip
from tiny import random_tensor
from torch.nn.functional import cosine_similarity

from graphflow.models.refs import ModelRef, loaders
from graphflow.nodes.lib.pez import nearest_words, no_words, optimise_prompt

PICTURE = picture(48, 40)


def load(name: str, folder: Path):
    ref = ModelRef("clip", name, "tiny", path=folder)
    return loaders()[name].load(ref, folder, torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return load("transformers.clip", save_clip(tmp_path_factory.mktemp("clip")))


def ids_of(clip, text):
    tokens = clip._tokens
    return tokens.encode(text) if hasattr(tokens, "sot_token_id") else tokens(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize("name", ["transformers.clip", "open_clip"])
def test_a_text_by_its_embeddings_is_the_text_by_its_letters(name, clip, tmp_path):
    if name == "open_clip":
        clip = load(name, save_open_clip(tmp_path))
    vocabulary, special = clip.vocabulary()
    texts = ["a cat", "two dogs in the snow"]
    for text in texts:
        ids = ids_of(clip, text)
        assert not set(ids) & set(special)
        assert clip.words(ids) == text
        torch.testing.assert_close(clip.text_of(vocabulary[ids][None]), clip.text([text]), rtol=1e-5, atol=1e-6)
    embeds = vocabulary[ids][None].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(clip.text_of(embeds).sum(), embeds)
    assert (gradient.abs().sum(-1) > 0).all()


def test_the_nearest_words_are_nearest_by_cosine_and_never_special():
    vocabulary = torch.tensor([[1.0, 0.0], [0.0, 2.0], [5.0, 5.0], [-1.0, 0.0]])
    embeds = torch.tensor([[0.1, 0.0], [3.0, 2.9], [0.0, 1.0]])
    unit, none = torch.nn.functional.normalize(vocabulary), torch.zeros(len(vocabulary), dtype=torch.bool)
    assert nearest_words(embeds, unit, none).tolist() == [0, 2, 1]
    assert nearest_words(embeds, unit, torch.arange(len(vocabulary)) < 2).tolist() == [2, 2, 2]


def test_three_steps_are_those_of_the_formula(clip):
    target = clip.image([PICTURE])
    found, similarity = optimise_prompt(clip, target, torch.Generator().manual_seed(1), 4, 3)

    vocabulary, special = clip.vocabulary()[0], no_words(clip)
    assert {clip._tokens.bos_token_id, clip._tokens.eos_token_id} < set(special)
    assert not any("�" in clip.words([i]) for i in range(len(vocabulary)) if i not in special)
    words = [i for i in range(len(vocabulary)) if i not in special]
    start = torch.randint(len(words), (4,), generator=torch.Generator().manual_seed(1))
    soft = torch.nn.Parameter(vocabulary[[words[i] for i in start]].clone())
    optimiser, met = torch.optim.AdamW([soft], lr=0.1, weight_decay=0.1), []
    for _ in range(3):
        unit = torch.nn.functional.normalize
        scores = unit(soft.detach(), dim=-1) @ unit(vocabulary, dim=-1).T
        scores[:, special] = -1e9
        ids = scores.argmax(-1)
        hard = vocabulary[ids].clone().requires_grad_()
        cosine = cosine_similarity(clip.text_of(hard[None]), target).mean()
        (1 - cosine).backward()
        met.append((cosine.item(), ids.tolist()))
        optimiser.zero_grad()
        soft.grad = hard.grad
        optimiser.step()
    best = max(met)
    assert (found, similarity) == (clip.words(best[1]), pytest.approx(best[0], abs=1e-6))
    assert len({tuple(ids) for _, ids in met}) > 1, "the words changed"


def test_the_words_come_nearer_to_the_picture(clip):
    target, generator = clip.image([PICTURE]), torch.Generator
    first = optimise_prompt(clip, target, generator().manual_seed(0), 6, 1)[1]
    text, best = optimise_prompt(clip, target, generator().manual_seed(0), 6, 60)
    assert best > first + 0.02
    again = clip.text_of(clip.vocabulary()[0][ids_of(clip, text)][None])
    assert len(text) >= 3
    assert again.shape == target.shape


def test_a_killed_search_ends_with_the_same_words(clip, tmp_path, monkeypatch):
    from graphflow.nodes.lib import pez

    monkeypatch.setattr(pez, "SAVE_EVERY", 3)
    target = random_tensor(2, 16, seed=4)
    whole = optimise_prompt(clip, target, torch.Generator().manual_seed(2), 5, 10)

    def killed(numbers):
        for number in numbers:
            if number == 7:
                raise KeyboardInterrupt
            yield number

    with pytest.raises(KeyboardInterrupt):
        optimise_prompt(clip, target, torch.Generator().manual_seed(2), 5, 10, checkpoint=tmp_path, steps=killed)
    ran = []

    def watched(numbers):
        ran.extend(numbers)
        return numbers

    resumed = optimise_prompt(clip, target, torch.Generator().manual_seed(2), 5, 10, checkpoint=tmp_path, steps=watched)
    assert ran == [6, 7, 8, 9]
    assert resumed == whole
