"""Training of the pocket caption writer: a T5 that turns a caption and a request into captions before and after.

caption: a cat on the beach instruction: Turn the cat into a dog.
before: a photo of a cat on a sandy beach after: a photo of a dog on a sandy beach
"""

import functools
import random
import re
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import BatchEncoding, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from ..captions import PLAIN, any_wording, describe, phrase
from ..catalogue import Vocabulary
from ..edits import Edit, sample_edit
from ..world import Split
from .loop import Log, Loop, Step, Steps, fit, in_processes, is_main
from .saving import save_half

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,:;!?'\"()-"
MAX_TOKENS = 96


def prompt(caption: str, instruction: str) -> str:
    """What the model is given."""
    return f"caption: {caption} instruction: {instruction}"


def example(rng: random.Random, words: Vocabulary, split: Split) -> tuple[Edit, str, str]:
    """An edit, its prompt and its answer. Both captions of the answer are in the same wording, drawn at random."""
    edit = sample_edit(rng, words, split)
    before, after = describe(edit.before), describe(edit.after)
    if edit.kind != "background" and rng.random() < 0.05:
        before, after = replace(before, background=None), replace(after, background=None)
    given = phrase(before, PLAIN if rng.random() < 0.5 else any_wording(rng))
    if rng.random() < 0.15:
        given = given[0].upper() + given[1:] + rng.choice(("", "."))
    wording = any_wording(rng)
    answer = f"before: {phrase(before, wording)} after: {phrase(after, wording)}"
    return edit, prompt(given, edit.instruction), answer


@functools.cache  # drawing the examples takes seconds
def new_writer_tokenizer(words: Vocabulary, num_examples: int = 20_000) -> PreTrainedTokenizerFast:
    """A unigram tokenizer: a piece for each word of the examples, single letters for every other word."""
    rng = random.Random("tokenizer")
    texts = (text for _ in range(num_examples) for text in example(rng, words, Split.TRAIN)[1:])
    known = sorted({word for text in texts for word in re.findall("[a-z0-9]+", text.lower())})
    pieces = [(PAD, 0.0), (END, 0.0), (UNKNOWN, 0.0), ("▁", -9.0)]
    pieces += [(f"▁{word}", -1.0) for word in known] + [(letter, -9.0) for letter in LETTERS]
    learnt = Tokenizer(models.Unigram(pieces, unk_id=2))
    learnt.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip()])
    learnt.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    learnt.decoder = decoders.Metaspace()
    learnt.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=learnt, pad_token=PAD, eos_token=END, unk_token=UNKNOWN, model_max_length=MAX_TOKENS
    )


def new_writer(tokenizer: PreTrainedTokenizerFast, width: int, layers: int) -> T5ForConditionalGeneration:
    """An untrained T5."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=32,
        d_ff=2 * width,
        num_heads=width // 32,
        num_layers=layers,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    return T5ForConditionalGeneration(config)


def train_caption_writer(
    out: Path,
    words: Vocabulary,
    loop: Loop,
    *,
    width: int,
    layers: int,
    checkpoint: Path | None,
    steps: Steps,
    log: Log,
) -> None:
    """Train on edits drawn on the fly and save to `out` with the tokenizer."""
    shape = {"width": width, "layers": layers}
    in_processes(_train, loop.workers, steps, log, out=out, words=words, loop=loop, shape=shape, checkpoint=checkpoint)


def _train(
    out: Path, words: Vocabulary, loop: Loop, shape: dict[str, int], checkpoint: Path | None, steps: Steps, log: Log
) -> None:
    torch.manual_seed(loop.seed)
    tokenizer = new_writer_tokenizer(words)
    model = new_writer(tokenizer, **shape)

    def draw(step: Step) -> list[BatchEncoding]:
        examples = [example(step.rng, words, Split.TRAIN)[1:] for _ in range(step.batch_size)]
        return [tokenizer(list(texts), padding=True, return_tensors="pt") for texts in zip(*examples, strict=True)]

    def loss_of(step: Step) -> Tensor:
        given, answer = (tokens.to(step.device) for tokens in step.drawn)
        labels = answer.input_ids.masked_fill(answer.attention_mask == 0, -100)
        return model(input_ids=given.input_ids, attention_mask=given.attention_mask, labels=labels).loss

    fit(model, loss_of, loop, checkpoint, steps, log, draw)
    if is_main():
        save_half(model, out)
        tokenizer.save_pretrained(out)
