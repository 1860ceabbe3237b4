"""Training of the pocket vision-language model: the captioner learns to read an edit off a pair of pictures.

Three questions, those of `graphflow.nodes.lib.exemplar_prompts`: describe the edit, give it as a command, and caption
another picture as it will be after an edit in words. A transformers BLIP has a prompt in front of its answer and gives
it back without its last token; so answers begin with a colon, which callers cut off with the prompt.
"""

import functools
import random
import re
from pathlib import Path

import torch
from PIL import Image
from tokenizers import AddedToken
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    BatchFeature,
    BertTokenizerFast,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    BlipProcessor,
)

from graphflow.nodes.lib.captioner import Captioner
from graphflow.nodes.lib.exemplar_prompts import CAPTION, DESCRIBE, INSTRUCT, caption_question, side_by_side

from ..captions import describe, phrase
from ..catalogue import Vocabulary
from ..descriptions import description, request
from ..edits import sample_edit
from ..exemplars import Triple, sample_triple
from ..world import Split, render
from .captioner import HALF, SPECIAL
from .loop import Log, Loop, Step, Steps, fit, in_processes, is_main
from .saving import save_half

MAX_TOKENS = 96
BEGIN = ":"
CHAT = "{% for part in messages[0].content %}{{ part.text if part.type == 'text' }}{% endfor %}"
TASKS = ("describe", "describe", "caption", "caption", "instruct")  # a command is a description in fewer words


def example(rng: random.Random, words: Vocabulary, split: Split, task: str) -> tuple[Image.Image, str, str]:
    """A picture, what is asked about it and the answer. `task` is one of `TASKS`."""
    if task == "caption":
        triple = sample_triple(rng, words, split)
        picture = render(triple.edit.before, words.size)
        return picture, caption_question(CAPTION, edit_text(triple, rng)), phrase(describe(triple.edit.after))
    edit = sample_edit(rng, words, split)
    pair = side_by_side(render(edit.before, words.size), render(edit.after, words.size))
    if task == "describe":
        return pair, DESCRIBE, description(edit).lower()
    return pair, INSTRUCT, request(edit)


def edit_text(triple: Triple, rng: random.Random) -> str:
    """The edit in words: the description of the exemplar, or somebody's request."""
    way = rng.random()
    if way < 0.6:
        text = description(triple.exemplar)
        return text.lower() if way < 0.4 else text
    return triple.exemplar.instruction if way < 0.9 else triple.edit.instruction


@functools.cache  # drawing the examples takes a second
def new_exemplar_tokenizer(words: Vocabulary, num_examples: int = 6_000) -> BertTokenizerFast:
    """A token for each word of the examples and for each fixed question; any other word is spelt in letters."""
    rng = random.Random("exemplar tokenizer")
    known: set[str] = set()
    for _ in range(num_examples):
        triple = sample_triple(rng, words, Split.TRAIN)
        texts = [triple.exemplar.instruction, description(triple.exemplar), request(triple.exemplar)]
        texts.append(phrase(describe(triple.edit.after)))
        known |= {word for text in texts for word in re.findall("[a-z0-9]+", text.lower())}
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = [*SPECIAL, *".,:;!?'-", *letters, *(f"##{letter}" for letter in letters), *sorted(known - set(letters))]
    tokenizer = BertTokenizerFast(vocab={piece: n for n, piece in enumerate(pieces)}, model_max_length=MAX_TOKENS)
    whole = [DESCRIBE, INSTRUCT, *CAPTION.split("{edit}")]
    tokenizer.add_tokens([AddedToken(text, normalized=False, lstrip=True, rstrip=True) for text in whole])
    return tokenizer


def new_exemplar_vlm(
    tokenizer: BertTokenizerFast, captioner: BlipForConditionalGeneration, words: dict[str, int], image_size: int
) -> BlipForConditionalGeneration:
    """A BLIP with the weights of `captioner`, at another picture size and with more words.

    Args:
        tokenizer: its words.
        captioner: what it starts from.
        words: the vocabulary of `captioner`; words that both have keep their embeddings.
        image_size: side of the square that it sees.
    """
    config = BlipConfig.from_dict(captioner.config.to_dict())
    config.vision_config.image_size = image_size
    config.text_config.vocab_size = len(tokenizer)
    config.text_config.max_position_embeddings = MAX_TOKENS
    model = BlipForConditionalGeneration(config)
    old, new = captioner.state_dict(), model.state_dict()
    shared = [(tokenizer.vocab[word], place) for word, place in words.items() if word in tokenizer.vocab]
    to, of = (torch.tensor(places) for places in zip(*shared, strict=True))
    for name, value in old.items():
        known = value.float()
        if name == "vision_model.embeddings.position_embedding":
            new[name] = resized_positions(known[0], image_size // config.vision_config.patch_size)[None]
        elif value.shape == new[name].shape:
            new[name] = known
        elif "position" in name:
            new[name][: len(known)] = known
        else:  # rows are words
            new[name][to] = known[of]
    model.load_state_dict(new)
    return model


def resized_positions(table_PD: Tensor, side: int) -> Tensor:
    """Position embeddings of a class token and a square grid, for a grid of side² patches (bicubic)."""
    grid_PD = table_PD[1:]
    old = round(len(grid_PD) ** 0.5)
    grid_1Dhw = grid_PD.T.reshape(1, -1, old, old)
    resized_1Dhw = F.interpolate(grid_1Dhw, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat([table_PD[:1], resized_1Dhw.flatten(2)[0].T])


def processor_for(tokenizer: BertTokenizerFast, image_size: int) -> BlipProcessor:
    """Pictures of any shape, a pair among them, are stretched to a square."""
    pictures = BlipImageProcessorPil(
        size={"height": image_size, "width": image_size}, image_mean=HALF, image_std=HALF, resample=2
    )
    processor = BlipProcessor(pictures, tokenizer)
    processor.chat_template = CHAT
    return processor


def train_exemplar_vlm(
    out: Path,
    words: Vocabulary,
    captioner: Captioner,
    loop: Loop,
    *,
    image_size: int,
    checkpoint: Path | None,
    steps: Steps,
    log: Log,
) -> None:
    """Train on edits drawn on the fly, starting from `captioner`; save to `out` with the processor."""
    arguments = {"out": out, "words": words, "model": captioner.model, "known": captioner._tokenizer.get_vocab()}
    in_processes(_train, loop.workers, steps, log, loop=loop, size=image_size, checkpoint=checkpoint, **arguments)


def _train(
    out: Path,
    words: Vocabulary,
    model: BlipForConditionalGeneration,
    known: dict[str, int],
    loop: Loop,
    size: int,
    checkpoint: Path | None,
    steps: Steps,
    log: Log,
) -> None:
    torch.manual_seed(loop.seed)
    tokenizer = new_exemplar_tokenizer(words)
    model, processor = new_exemplar_vlm(tokenizer, model, known, size), processor_for(tokenizer, size)

    def draw(step: Step) -> BatchFeature:
        tasks = [TASKS[n % len(TASKS)] for n in range(step.batch_size)]
        return batch_of(processor, [example(step.rng, words, Split.TRAIN, task) for task in tasks])

    def loss_of(step: Step) -> Tensor:
        return model(**step.drawn.to(step.device)).loss

    fit(model, loss_of, loop, checkpoint, steps, log, draw)
    if is_main():
        save_half(model, out)
        processor.save_pretrained(out)


def batch_of(processor: BlipProcessor, examples: list[tuple[Image.Image, str, str]]) -> BatchFeature:
    """Model inputs with labels at the answers and their end: what `ChatVLM.ask` gives a model, and the answer."""
    texts = [f"{question_text(processor, question)} {BEGIN} {answer}" for _, question, answer in examples]
    inputs = processor(images=[picture for picture, _, _ in examples], text=texts, padding=True, return_tensors="pt")
    answered = processor.tokenizer([f"{BEGIN} {answer}" for _, _, answer in examples], add_special_tokens=False)
    labels = torch.full_like(inputs.input_ids, -100)
    for row, ids in enumerate(answered.input_ids):
        end = int(inputs.attention_mask[row].sum())
        labels[row, end - len(ids) - 1 : end] = inputs.input_ids[row, end - len(ids) - 1 : end]
    inputs["labels"] = labels
    inputs["input_ids"][:, 0] = processor.tokenizer.cls_token_id
    return inputs


def question_text(processor: BlipProcessor, question: str) -> str:
    """A question about one picture in the chat template."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    chat = [{"role": "user", "content": content}]
    return str(processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))
