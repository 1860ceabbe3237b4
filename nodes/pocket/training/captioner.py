"""Training of the pocket captioner: a transformers BLIP that looks at patches and writes the plain caption."""

from itertools import chain
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    BatchEncoding,
    BertTokenizerFast,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    BlipProcessor,
)

from ..captions import caption
from ..catalogue import ACCESSORIES, BACKGROUNDS, COLOURS, KINDS, STYLES, Vocabulary
from ..world import Mixture, Split, sample_scene
from .loop import Log, Loop, Step, Steps, fit, in_processes, is_main
from .pictures import pixels_of
from .saving import save_half
from .warm_start import begin_as

MAX_TOKENS = 32
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VARIED = Mixture(empty=0.04, pair=0.2, colour=0.35, accessory=0.35, styled=0.3)
HALF = (0.5, 0.5, 0.5)


def new_word_tokenizer() -> BertTokenizerFast:
    """A token for each word that a plain caption can have."""
    phrases = chain(
        ("a an and next to wearing with empty scene",),
        (thing.names[0] for thing in KINDS.values()),
        COLOURS,
        (accessory.phrase for accessory in ACCESSORIES.values()),
        (place.phrases[0] for place in BACKGROUNDS.values()),
        chain.from_iterable(style.prefixes for style in STYLES.values()),
    )
    words = sorted({word for phrase in phrases for word in phrase.split()})
    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *words))}
    return BertTokenizerFast(vocab=vocabulary, model_max_length=MAX_TOKENS)


def new_captioner(size: int, tokenizer: BertTokenizerFast, width: int, patch: int, layers: int, text_layers: int):
    """An untrained BLIP captioner."""
    tower = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": width // 32}
    text = tower | {
        "num_hidden_layers": text_layers,
        "vocab_size": len(tokenizer),
        "encoder_hidden_size": width,
        "max_position_embeddings": MAX_TOKENS,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    vision = tower | {"num_hidden_layers": layers, "image_size": size, "patch_size": patch}
    config = BlipConfig(text_config=text, vision_config=vision, projection_dim=width, image_text_hidden_size=width)
    return BlipForConditionalGeneration(config)


def train_captioner(
    out: Path,
    words: Vocabulary,
    loop: Loop,
    *,
    width: int,
    patch: int,
    layers: int,
    text_layers: int,
    start: BlipForConditionalGeneration | None = None,
    checkpoint: Path | None,
    steps: Steps,
    log: Log,
) -> None:
    """Train on pictures drawn on the fly and their plain captions; save to `out` with its processor.

    `start` may have smaller patches.

    Raises:
        ValueError: `start` has another shape.
    """
    shape = {"width": width, "patch": patch, "layers": layers, "text_layers": text_layers}
    arguments = {"out": out, "words": words, "loop": loop, "shape": shape, "start": start}
    in_processes(_train, loop.workers, steps, log, checkpoint=checkpoint, **arguments)


def _train(
    out: Path,
    words: Vocabulary,
    loop: Loop,
    shape: dict[str, int],
    start: BlipForConditionalGeneration | None,
    checkpoint: Path | None,
    steps: Steps,
    log: Log,
) -> None:
    torch.manual_seed(loop.seed)
    tokenizer = new_word_tokenizer()
    model = new_captioner(words.size, tokenizer, **shape)
    if start is not None:
        begin_as(model, start)

    def draw(step: Step) -> tuple[Tensor, BatchEncoding]:
        scenes = [sample_scene(step.rng, words, Split.TRAIN, VARIED) for _ in range(step.batch_size)]
        tokens = tokenizer([caption(scene) for scene in scenes], padding=True, return_tensors="pt")
        return pixels_of(scenes, words.size), tokens

    def loss_of(step: Step) -> Tensor:
        x_BCHW, tokens = (part.to(step.device) for part in step.drawn)
        labels = tokens.input_ids.masked_fill(tokens.attention_mask == 0, -100)
        return model(
            pixel_values=x_BCHW,
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            labels=labels,
        ).loss

    fit(model, loss_of, loop, checkpoint, steps, log, draw)
    if is_main():
        save_half(model, out)
        pictures = BlipImageProcessorPil(
            size={"height": words.size, "width": words.size}, image_mean=HALF, image_std=HALF, resample=1
        )
        BlipProcessor(pictures, tokenizer).save_pretrained(out)
