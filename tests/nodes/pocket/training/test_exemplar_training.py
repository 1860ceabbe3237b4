"""Training of the parts for editing by example, at tiny size: what each learns from, and resuming to the bit."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from graphflow.nodes.lib.captioner import Captioner
from graphflow.nodes.lib.clip import CLIP
from graphflow.nodes.lib.denoiser import Denoiser
from graphflow.nodes.lib.exemplar_prompts import CAPTION, DESCRIBE, INSTRUCT
from graphflow.nodes.lib.text_encoder import TextEncoder
from graphflow.nodes.lib.vlm import ChatVLM
from graphflow.nodes.pocket.captions import read
from graphflow.nodes.pocket.catalogue import POCKET_64, POCKET_128
from graphflow.nodes.pocket.descriptions import request
from graphflow.nodes.pocket.edits import EDITS
from graphflow.nodes.pocket.training.autoencoder import new_autoencoder
from graphflow.nodes.pocket.training.captioner import new_captioner, new_word_tokenizer
from graphflow.nodes.pocket.training.clip import image_processor_for, new_clip
from graphflow.nodes.pocket.training.denoiser import Size, new_denoiser, new_text_encoder
from graphflow.nodes.pocket.training.edit_latents import EncodedEdits, encode_edits, load_edits
from graphflow.nodes.pocket.training.exemplar_vlm import (
    BEGIN,
    MAX_TOKENS,
    TASKS,
    batch_of,
    example,
    new_exemplar_tokenizer,
    new_exemplar_vlm,
    processor_for,
    question_text,
    train_exemplar_vlm,
)
from graphflow.nodes.pocket.training.instruct_denoiser import (
    Dropout,
    draw_batch,
    train_instruct_denoiser,
    widened,
)
from graphflow.nodes.pocket.training.ip_adapter import (
    FILE,
    Conditions,
    Samples,
    adapted,
    alike,
    embeddings,
    published,
    train_ip_adapter,
)
from graphflow.nodes.pocket.training.loop import Loop, Step, all_steps
from graphflow.nodes.pocket.training.noise import Teacher, denoising_loss, new_scheduler, stratified_timesteps
from graphflow.nodes.pocket.training.pictures import pixels_of
from graphflow.nodes.pocket.training.tokenizer import TOKENIZER
from graphflow.nodes.pocket.world import Split

SIZE = Size(channels=(16, 32), layers=1, heads=2, text_width=32, text_layers=1)
SAMPLES = Samples(drop_text=0.4, drop_picture=0.1, mixed=0.3, weights=(0.5, 0.8), taught=0.75)
Train = Callable[[Path, Loop, Path | None, Any, Any], None]


class Killed(Exception):
    """Stands for a kill in the middle of a run."""


def quiet(message: str) -> None:
    pass


def until(last: int) -> Callable[[Iterable[int]], Iterator[int]]:
    def steps(numbers: Iterable[int]) -> Iterator[int]:
        for number in numbers:
            if number > last:
                raise Killed
            yield number

    return steps


def loop(count: int) -> Loop:
    return Loop(count=count, batch_size=5, learning_rate=2e-3, warmup=1, ema=0.5, save_seconds=0.0)


def step(number: int = 0, batch_size: int = 64) -> Step:
    rng = random.Random(number)
    return Step(number, 0.0, rng, torch.Generator().manual_seed(number), batch_size, torch.device("cpu"))


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    torch.manual_seed(0)
    return new_autoencoder((8, 8, 16), 1, 64).eval()


@pytest.fixture(scope="module")
def folder(vae: AutoencoderKL, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("edits")
    encode_edits(out, vae, POCKET_64, count=1, seed=0, workers=1, steps=all_steps, log=quiet)
    return out


@pytest.fixture(scope="module")
def pool(folder: Path) -> EncodedEdits:
    return load_edits(folder)


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    torch.manual_seed(1)
    return Denoiser(new_denoiser(SIZE, 4, 16), new_scheduler().config)


@pytest.fixture(scope="module")
def text_encoder() -> TextEncoder:
    torch.manual_seed(2)
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    return TextEncoder(tokenizer, new_text_encoder(SIZE, tokenizer))


@pytest.fixture(scope="module")
def clip() -> CLIP:
    torch.manual_seed(3)
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    return CLIP(new_clip(64, tokenizer, 32, 16, 1, 1), image_processor_for(64), tokenizer)


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    torch.manual_seed(4)
    tokenizer = new_word_tokenizer()
    return Captioner(new_captioner(64, tokenizer, 32, 16, 1, 1), None, tokenizer)


@pytest.fixture(params=["instruct_denoiser", "ip_adapter", "exemplar_vlm"])
def train(
    request: pytest.FixtureRequest,
    folder: Path,
    denoiser: Denoiser,
    text_encoder: TextEncoder,
    clip: CLIP,
    captioner: Captioner,
) -> Train:
    def run(out: Path, loop: Loop, checkpoint: Path | None, steps: Any, log: Any) -> None:
        runtime = {"checkpoint": checkpoint, "steps": steps, "log": log}
        if request.param == "instruct_denoiser":
            train_instruct_denoiser(out, folder, denoiser, text_encoder, loop, dropout=Dropout(), **runtime)
        elif request.param == "ip_adapter":
            train_ip_adapter(out, folder, denoiser, text_encoder, clip, loop, samples=SAMPLES, **runtime)
        else:
            train_exemplar_vlm(out, POCKET_64, captioner, loop, image_size=32, **runtime)

    return run


def weights(folder: Path) -> dict[str, torch.Tensor]:
    files = sorted(folder.rglob("*.safetensors"))
    assert files
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(train: Train, tmp_path: Path) -> None:
    train(tmp_path / "whole", loop(4), tmp_path / "a", all_steps, quiet)
    with pytest.raises(Killed):
        train(tmp_path / "cut", loop(4), tmp_path / "b", until(1), quiet)
    lines: list[str] = []
    train(tmp_path / "cut", loop(4), tmp_path / "b", all_steps, lines.append)
    assert any("resumed at step" in line for line in lines)
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert {t.dtype for t in whole.values() if t.is_floating_point()} == {torch.float16}


# --- pairs ----------------------------------------------------------------------------------------------------------


def test_latents_of_both_pictures_are_kept_with_their_edit(vae: AutoencoderKL, pool: EncodedEdits) -> None:
    assert len(pool.edits) == 512
    assert {edit.kind for edit in pool.edits} == set(EDITS)
    some = slice(30, 34)
    for side in ("before", "after"):
        x_BCHW = pixels_of([getattr(edit, side) for edit in pool.edits[some]], 64)
        with torch.no_grad():
            again = vae.encode(x_BCHW).latent_dist.mode() * vae.config.scaling_factor
        error = getattr(pool, side)[some].float() - again
        assert error.square().mean() < 1e-3 * again.square().mean()  # encoded in bfloat16


# --- InstructPix2Pix ------------------------------------------------------------------------------------------------


def test_a_widened_denoiser_ignores_the_picture_before_it_is_trained(denoiser: Denoiser) -> None:
    model = widened(denoiser.unet).eval()
    z, image = torch.randn(2, 2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    text = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        seen, alone = model(torch.cat([z, image], 1), 400, text).sample, denoiser.unet(z, 400, text).sample
    torch.testing.assert_close(seen, alone)
    assert "_name_or_path" not in model.config
    assert all(p.requires_grad for p in model.parameters())
    assert not any(p.requires_grad for p in denoiser.unet.parameters())


def test_conditions_are_left_out_at_the_given_rates(pool: EncodedEdits) -> None:
    counts = dict.fromkeys(("text", "picture", "both"), 0)
    for number in range(40):
        _, source, texts = draw_batch(step(number), pool, Dropout(text=0.1, picture=0.2, both=0.3))
        for image, text in zip(source, texts, strict=True):
            without = (not text, not image.any())
            counts["both"] += all(without)
            counts["text"] += without == (True, False)
            counts["picture"] += without == (False, True)
    shares = {name: count / (40 * 64) for name, count in counts.items()}
    assert shares == pytest.approx({"text": 0.1, "picture": 0.2, "both": 0.3}, abs=0.03)


def test_leaving_out_a_picture_leaves_the_pool_as_it_is(pool: EncodedEdits) -> None:
    before = pool.before.clone()
    draw_batch(step(), pool, Dropout(both=1.0))
    assert torch.equal(pool.before, before)


# --- IP-Adapter -----------------------------------------------------------------------------------------------------


def test_a_saved_adapter_is_read_by_diffusers_and_by_the_engine(
    folder: Path, denoiser: Denoiser, text_encoder: TextEncoder, clip: CLIP, tmp_path: Path
) -> None:
    from graphflow.nodes.lib.ip_adapter import IPAdapter

    runtime: dict[str, Any] = {"checkpoint": None, "steps": all_steps, "log": quiet}
    train_ip_adapter(tmp_path, folder, denoiser, text_encoder, clip, loop(2), samples=SAMPLES, **runtime)
    tensors = {name: value.float() for name, value in load_file(tmp_path / FILE).items()}
    parts = {part: _under(tensors, part) for part in ("image_proj", "ip_adapter")}
    unet = UNet2DConditionModel.from_config(denoiser.unet.config)
    unet.load_state_dict(denoiser.unet.state_dict())
    unet._load_ip_adapter_weights([parts], low_cpu_mem_usage=False)
    embedding = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    tokens = unet.encoder_hid_proj([embedding[:, None]])[0]
    adapter = IPAdapter.from_tensors(tensors)
    torch.testing.assert_close(adapter.tokens(embedding), tokens.flatten(1, -2))
    assert adapter.layers == sum("attn2" in name for name in unet.attn_processors)


def _under(tensors: dict[str, torch.Tensor], part: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(f"{part}."): value for name, value in tensors.items() if name.startswith(f"{part}.")}


def test_only_the_adapter_learns_and_the_text_attention_is_where_it_starts(denoiser: Denoiser) -> None:
    model = adapted(denoiser.unet, 32)
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learning
    assert all("ip" in name or name.startswith("encoder_hid_proj") for name in learning)
    assert sum(p.numel() for n, p in model.named_parameters() if n in learning) == sum(
        value.numel() for value in published(model).values()
    )
    first = next(n for n in denoiser.unet.attn_processors if "attn2" in n).removesuffix(".processor")
    torch.testing.assert_close(
        published(model)["ip_adapter.1.to_k_ip.weight"], denoiser.unet.get_submodule(first).to_k.weight
    )


def test_embeddings_are_clips_own(clip: CLIP, pool: EncodedEdits) -> None:
    from graphflow.nodes.pocket.world import render

    both = embeddings(clip, pool.edits[:3])
    assert both.shape == (2, 3, 32)
    torch.testing.assert_close(both[1], clip.image([render(edit.after, 64) for edit in pool.edits[:3]]))


def test_edits_that_do_the_same_are_found(pool: EncodedEdits) -> None:
    found = alike(pool.edits)
    assert max(map(len, found)) > 1
    for place, others in enumerate(found):
        assert place in others
        edit = pool.edits[place]
        for other in others:
            assert request(pool.edits[other]) == request(edit)
            assert pool.edits[other].before.style == edit.before.style


def test_image_conditions_are_the_picture_a_mix_or_nothing(clip: CLIP, pool: EncodedEdits) -> None:
    few = EncodedEdits(pool.before[:40], pool.after[:40], pool.edits[:40])
    both = embeddings(clip, few.edits)

    def share(samples: Samples) -> tuple[float, float]:
        _, images, texts, captions = Conditions(few, both, samples).draw(step(batch_size=400))
        whole = (images[:, None] == both[1]).all(-1).any(-1)
        assert samples.drop_text != 1 or set(texts) == {""}
        for image, text, caption in zip(images, texts, captions, strict=True):
            assert caption == text or (image.any() and not text), "the teacher knows what the image tokens can tell"
        return whole.float().mean().item(), (~images.any(-1)).float().mean().item()

    assert share(Samples(1.0, 0.0, 0.0, (0.5, 0.8))) == (1.0, 0.0)
    assert share(Samples(0.0, 1.0, 0.0, (0.5, 0.8))) == (0.0, 1.0)
    assert share(Samples(0.0, 0.2, 0.3, (0.5, 0.8))) == pytest.approx((0.5, 0.2), abs=0.08)


def test_the_teacher_is_told_what_the_picture_shows_when_the_caption_is_left_out(
    clip: CLIP, pool: EncodedEdits
) -> None:
    few = EncodedEdits(pool.before[:40], pool.after[:40], pool.edits[:40])
    both = embeddings(clip, few.edits)
    batch = Conditions(few, both, Samples(1.0, 0.5, 0.0, (0.5, 0.8))).draw(step(batch_size=200))
    for image, text, caption in zip(batch.image_BE, batch.texts, batch.captions, strict=True):
        assert text == ""
        assert bool(caption) == bool(image.any()), "the zero embedding can't tell anything"


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_teachers_prediction_is_mixed_into_the_noise(share: float) -> None:
    """The loss by its formula: min-SNR-5 weights times the mean square of ε̂ - ((1 - s)ε + s·ε_teacher)."""
    z, c = torch.randn(2, 4, 8, 8), torch.zeros(2, 1, 1)
    noise, seen = torch.Generator().manual_seed(7), []

    def predict(noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(noisy)
        return 0.5 * noisy

    def model(noisy: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> Any:
        return SimpleNamespace(sample=0.1 * noisy)

    scheduler, moment = new_scheduler(), step(batch_size=2)
    moment = replace(moment, torch_rng=noise)
    loss = denoising_loss(model, scheduler, moment, z, c, teacher=Teacher(predict, share))
    again = torch.Generator().manual_seed(7)
    t = stratified_timesteps(2, 1000, again)
    eps = torch.randn(z.shape, generator=again)
    alpha = scheduler.alphas_cumprod[t]
    noisy = alpha.sqrt().view(2, 1, 1, 1) * z + (1 - alpha).sqrt().view(2, 1, 1, 1) * eps
    torch.testing.assert_close(seen[0], noisy)
    target = (1 - share) * eps + share * 0.5 * noisy
    snr = alpha / (1 - alpha)
    wanted = (snr.clamp(max=5) / snr * (0.1 * noisy - target).square().mean((1, 2, 3))).mean()
    torch.testing.assert_close(loss, wanted)


def test_a_mix_with_itself_is_what_the_formula_says(clip: CLIP, pool: EncodedEdits) -> None:
    one = EncodedEdits(pool.before[:1], pool.after[:1], pool.edits[:1])
    both = embeddings(clip, one.edits)
    _, images, _, _ = Conditions(one, both, Samples(0.0, 0.0, 1.0, (0.6, 0.6))).draw(step(batch_size=1))
    torch.testing.assert_close(images[0], 0.6 * (both[1, 0] - both[0, 0]) + 0.4 * both[0, 0])


# --- the vision-language model --------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [POCKET_64, POCKET_128], ids=lambda words: words.name)
def test_every_question_is_one_token_and_every_answer_comes_back(words: Any) -> None:
    tokenizer = new_exemplar_tokenizer(words, num_examples=3000)
    rng = random.Random(4)
    for question in (DESCRIBE, INSTRUCT):
        assert len(tokenizer(question, add_special_tokens=False).input_ids) == 1
    assert len(tokenizer(CAPTION.replace("{edit}", ""), add_special_tokens=False).input_ids) == 2
    for number in range(200):
        _, question, answer = example(rng, words, Split.HELD_OUT, TASKS[number % len(TASKS)])
        assert tokenizer.decode(tokenizer(answer).input_ids, skip_special_tokens=True) == answer
        assert tokenizer.unk_token_id not in tokenizer(question).input_ids
    assert tokenizer.decode(tokenizer("a zebra").input_ids, skip_special_tokens=True) == "a zebra", "spelt"


def test_the_three_tasks_ask_the_questions_of_the_nodes() -> None:
    rng = random.Random(5)
    pair, question, answer = example(rng, POCKET_64, Split.TRAIN, "describe")
    assert (pair.size, question) == ((129, 64), DESCRIBE)
    assert answer.endswith("everything else stays the same.")
    pair, question, answer = example(rng, POCKET_64, Split.TRAIN, "instruct")
    assert (pair.size, question, len(answer.split()) <= 20) == ((129, 64), INSTRUCT, True)
    picture, question, answer = example(rng, POCKET_64, Split.TRAIN, "caption")
    assert picture.size == (64, 64)
    assert question.startswith(CAPTION.split("{edit}")[0])
    assert read(answer)


def test_training_gives_the_model_what_it_gets_when_it_is_asked(captioner: Captioner) -> None:
    """The tokens before the answer, and the picture, are those of `ChatVLM.ask`; labels are the answer and its end."""
    tokenizer = new_exemplar_tokenizer(POCKET_64)
    processor = processor_for(tokenizer, 32)
    model = new_exemplar_vlm(tokenizer, captioner.model, captioner._tokenizer.get_vocab(), 32)
    asked: list[dict[str, torch.Tensor]] = []

    def generate(**inputs: Any) -> torch.Tensor:
        asked.append(inputs)
        return inputs["input_ids"]

    model.generate = generate
    vlm = ChatVLM(model, processor)
    rng = random.Random(6)
    examples = [example(rng, POCKET_64, Split.TRAIN, task) for task in TASKS]
    batch = batch_of(processor, examples)
    for row, (picture, question, answer) in enumerate(examples):
        vlm.ask([picture], question)
        ids = asked[-1]["input_ids"][0, :-1]  # BLIP itself drops the end token
        labels, given = batch.labels[row], batch.input_ids[row]
        assert torch.equal(given[: len(ids)], ids)
        assert torch.equal(batch.pixel_values[row], asked[-1]["pixel_values"][0])
        said = labels[labels >= 0]
        assert torch.equal(given[labels >= 0], said)
        assert int((labels >= 0).nonzero()[0]) == len(ids)
        assert tokenizer.decode(said[:1]) == BEGIN
        assert said[-1] == tokenizer.sep_token_id
        assert tokenizer.decode(said[1:-1]) == answer
    assert question_text(processor, "why?") == "why?"


def test_a_model_that_never_ends_stops_where_it_can_read_no_further(captioner: Captioner) -> None:
    tokenizer = new_exemplar_tokenizer(POCKET_64)
    model = new_exemplar_vlm(tokenizer, captioner.model, captioner._tokenizer.get_vocab(), 32)
    model.text_decoder.cls.predictions.bias.data[tokenizer.vocab["cat"]] = 1e4
    vlm = ChatVLM(model, processor_for(tokenizer, 32))
    picture = example(random.Random(8), POCKET_64, Split.TRAIN, "describe")[0]
    answer = vlm.ask([picture], "what?", max_new_tokens=500)
    assert 70 < len(answer.split()) < MAX_TOKENS
    assert set(answer.split()) == {"cat"}
    with pytest.raises(
        ValueError, match=rf"the question has \d+ tokens with its pictures; the model reads {MAX_TOKENS}"
    ):
        vlm.ask([picture], "what? " * MAX_TOKENS)


def test_a_model_that_learnt_one_answer_gives_it_through_the_engine(captioner: Captioner, tmp_path: Path) -> None:
    from graphflow.models.refs import ModelRef, loaders
    from graphflow.nodes.pocket.training.loop import fit
    from graphflow.nodes.pocket.training.saving import save_half

    tokenizer = new_exemplar_tokenizer(POCKET_64)
    processor = processor_for(tokenizer, 32)
    torch.manual_seed(0)
    model = new_exemplar_vlm(tokenizer, captioner.model, captioner._tokenizer.get_vocab(), 32)
    batch = batch_of(processor, [example(random.Random(8), POCKET_64, Split.TRAIN, "instruct")])
    once = Loop(count=40, batch_size=1, learning_rate=1e-2, warmup=1, bfloat16=False)
    fit(model, lambda step: model(**batch).loss, once, None, all_steps, quiet)
    save_half(model, tmp_path)
    processor.save_pretrained(tmp_path)
    picture, question, answer = example(random.Random(8), POCKET_64, Split.TRAIN, "instruct")
    ref = ModelRef("vlm", "transformers.vlm", "x", path=tmp_path)
    vlm = loaders()["transformers.vlm"].load(ref, tmp_path, torch.device("cpu"), torch.float32)
    assert vlm.ask([picture], question, max_new_tokens=40) == answer


def test_what_the_captioner_knows_is_kept(captioner: Captioner) -> None:
    tokenizer = new_exemplar_tokenizer(POCKET_64)
    known = captioner._tokenizer.get_vocab()
    model = new_exemplar_vlm(tokenizer, captioner.model, known, 64)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model.vision_model(x)[0], captioner.model.vision_model(x)[0])
        texts = ["a cat wearing a top hat at night"]
        ours, theirs = (t(texts, return_tensors="pt").input_ids for t in (tokenizer, captioner._tokenizer))
        new, old = model(x[:1], ours).logits[0], captioner.model(x[:1], theirs).logits[0]
    columns = [(tokenizer.vocab[word], place) for word, place in known.items() if word in tokenizer.vocab]
    to, of = (torch.tensor(places) for places in zip(*columns, strict=True))
    torch.testing.assert_close(new[:, to], old[:, of], atol=1e-5, rtol=1e-4)


def test_captions_follow_descriptions_and_requests_in_other_words() -> None:
    from graphflow.nodes.pocket.descriptions import description
    from graphflow.nodes.pocket.exemplars import sample_triple
    from graphflow.nodes.pocket.training.exemplar_vlm import edit_text

    rng = random.Random(7)
    triple = sample_triple(rng, POCKET_64, Split.TRAIN)
    texts = {edit_text(triple, rng) for _ in range(100)}
    told = description(triple.exemplar)
    assert texts == {told, told.lower(), triple.exemplar.instruction, triple.edit.instruction}
