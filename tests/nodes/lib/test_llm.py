"""Language models: sampling that depends on nothing but its seed, limits, stops."""

from __future__ import annotations

import threading

import pytest
import torch
from checkpoints import byte_tokenizer, save_t5
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PhiConfig, PhiForCausalLM

from graphflow.nodes.lib.llm import CausalLM, GumbelNoise, Seq2SeqLM


@pytest.fixture(scope="module")
def phi():
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    config = PhiConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        max_position_embeddings=256, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return CausalLM(tokenizer, PhiForCausalLM(config))


def test_gumbel_noise_samples_the_distribution():
    logits = torch.log(torch.tensor([0.5, 0.3, 0.2, 0.0]))
    noisy = GumbelNoise(0)(torch.zeros(20_000, 1), logits.expand(20_000, 4))
    counts = torch.bincount(noisy.argmax(-1), minlength=4) / 20_000
    assert torch.allclose(counts, torch.tensor([0.5, 0.3, 0.2, 0.0]), atol=0.012)


def test_the_seed_decides_and_the_global_generator_does_not(phi):
    torch.manual_seed(1)
    first = phi.complete("a cat", 3, seed=5, max_new_tokens=12)
    torch.manual_seed(2)
    assert phi.complete("a cat", 3, seed=5, max_new_tokens=12) == first
    assert len(set(first)) == 3
    assert phi.complete("a cat", 3, seed=6, max_new_tokens=12) != first


def test_threads_do_not_disturb_each_other(phi):
    alone = {seed: phi.complete("a cat", seed=seed, max_new_tokens=12) for seed in range(4)}
    together = {}

    def work(seed):
        together[seed] = phi.complete("a cat", seed=seed, max_new_tokens=12)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_temperature_zero_is_the_models_own_greedy_search(phi):
    ids = phi.tokenizer("a cat", return_tensors="pt").input_ids
    expected = phi.model.generate(ids, max_new_tokens=9, do_sample=False, attention_mask=torch.ones_like(ids))
    text = phi.tokenizer.decode(expected[0, ids.shape[1] :], skip_special_tokens=True)
    assert phi.complete("a cat", 2, temperature=0, max_new_tokens=9) == [text, text]


def test_a_stop_text_ends_the_completion_and_is_not_part_of_it(phi):
    whole = phi.complete("a cat", seed=2, max_new_tokens=60)[0]
    stop = next(c for c in whole[5:] if c.isascii() and c.isalpha() and c not in whole[:5])
    assert phi.complete("a cat", seed=2, max_new_tokens=60, stop=stop) == [whole.partition(stop)[0]]


def test_a_prompt_that_does_not_fit_is_refused_with_figures(phi):
    with pytest.raises(ValueError, match="the prompt has 250 tokens and up to 20 are asked for; the model reads 256"):
        phi.complete("x" * 250, max_new_tokens=20)


def test_a_chat_template_wraps_the_prompt():
    tokenizer = byte_tokenizer(chat=True)
    seen = {}

    class Spy(PhiForCausalLM):
        def generate(self, input_ids, **kwargs):
            seen["prompt"] = tokenizer.decode(input_ids[0])
            return super().generate(input_ids=input_ids, **kwargs)

    config = PhiConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    CausalLM(tokenizer, Spy(config)).complete("hello", max_new_tokens=2)
    assert seen["prompt"] == "user: hello\nassistant:"


def test_t5_answers_and_refuses_what_is_too_long(tmp_path):
    save_t5(tmp_path)
    t5 = Seq2SeqLM(
        AutoTokenizer.from_pretrained(tmp_path), AutoModelForSeq2SeqLM.from_pretrained(tmp_path), "edit_pair"
    )
    assert t5.complete("a cat", 2, seed=1, max_new_tokens=8) == t5.complete("a cat", 2, seed=1, max_new_tokens=8)
    assert len(t5.complete("a cat", 3, temperature=0, max_new_tokens=8)) == 3
    with pytest.raises(ValueError, match="the model reads 128"):
        t5.complete("x" * 200)
