"""Training of the pocket CLIP: a transformers CLIPModel on pictures and captions of the pocket world."""

import random
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    BatchEncoding,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
)

from ..captions import Description, Thing, any_wording, describe, phrase
from ..catalogue import BACKGROUNDS, KINDS, STYLES, Vocabulary
from ..world import Mixture, Split, colours_of, sample_scene
from .loop import Log, Loop, Step, Steps, fit, in_processes, is_main
from .pictures import pixels_of
from .saving import save_half
from .tokenizer import MAX_LENGTH, TOKENIZER
from .warm_start import begin_as

HALF = (0.5, 0.5, 0.5)
VARIED = Mixture(pair=0.2, colour=0.35, accessory=0.35, styled=0.3)


def new_clip(
    size: int,
    tokenizer: CLIPTokenizer,
    width: int,
    patch: int,
    layers: int,
    text_layers: int,
) -> CLIPModel:
    """An untrained CLIP whose towers and common space are all `width` wide."""
    tower = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_attention_heads": width // 32,
    }
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text = tower | ids | {"num_hidden_layers": text_layers, "vocab_size": len(tokenizer)}
    text |= {"max_position_embeddings": MAX_LENGTH, "projection_dim": width}
    vision = tower | {
        "num_hidden_layers": layers,
        "image_size": size,
        "patch_size": patch,
        "projection_dim": width,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=width))


def train_clip(
    out: Path,
    words: Vocabulary,
    loop: Loop,
    *,
    width: int,
    patch: int,
    layers: int,
    text_layers: int,
    open_background: float,
    start: CLIPModel | None = None,
    checkpoint: Path | None,
    steps: Steps,
    log: Log,
) -> None:
    """Train contrastively and save to `out` with the processor; each picture also has a caption wrong in one field.

    `open_background` is the share of captions that leave the background out. `start` may have smaller patches.

    Raises:
        ValueError: `start` has another shape.
    """
    shape = {"width": width, "patch": patch, "layers": layers, "text_layers": text_layers}
    arguments = {"out": out, "words": words, "loop": loop, "shape": shape, "open_background": open_background}
    arguments |= {"start": start}
    in_processes(_train, loop.workers, steps, log, checkpoint=checkpoint, **arguments)


def _train(
    out: Path,
    words: Vocabulary,
    loop: Loop,
    shape: dict[str, int],
    open_background: float,
    start: CLIPModel | None,
    checkpoint: Path | None,
    steps: Steps,
    log: Log,
) -> None:
    torch.manual_seed(loop.seed)
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    model = new_clip(words.size, tokenizer, **shape)
    if start is not None:
        begin_as(model, start)

    def draw(step: Step) -> tuple[Tensor, BatchEncoding, Tensor]:
        scenes = [sample_scene(step.rng, words, Split.TRAIN, VARIED) for _ in range(step.batch_size)]
        shown = [describe(scene) for scene in scenes]
        said = [replace(d, background=None) if step.rng.random() < open_background else d for d in shown]
        said += [one_field_wrong(d, words, step.rng) for d in said]
        texts = [phrase(d, any_wording(step.rng)) for d in said]
        return pixels_of(scenes, words.size), tokenizer(texts, padding=True, return_tensors="pt"), fits(shown, said)

    def loss_of(step: Step) -> Tensor:
        x_BCHW, tokens, fitting = step.drawn
        found = model(pixel_values=x_BCHW.to(step.device), **tokens.to(step.device))
        return contrastive_loss(found.logits_per_image.float(), fitting)

    fit(model, loss_of, loop, checkpoint, steps, log, draw)
    if is_main():
        save_half(model, out)
        CLIPProcessor(image_processor_for(words.size), tokenizer).save_pretrained(out)


def image_processor_for(size: int) -> CLIPImageProcessorPil:
    """Pictures to (3, size, size) in [-1, 1]."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        image_mean=HALF,
        image_std=HALF,
        resample=1,
    )


def contrastive_loss(logits: Tensor, fitting: Tensor) -> Tensor:
    """Symmetric cross-entropy where a picture may have several fitting captions and a caption several pictures.

    `fitting` (pictures, captions) holds 0 and 1. Captions that fit no picture only take part as wrong answers.
    """
    fitting = fitting.to(logits)
    to_text = fitting / fitting.sum(1, keepdim=True)
    used = fitting.sum(0) > 0
    to_image = (fitting / fitting.sum(0).clamp(min=1)).T[used]
    return (F.cross_entropy(logits, to_text) + F.cross_entropy(logits.T[used], to_image)) / 2


def fits(shown: list[Description], said: list[Description]) -> Tensor:
    """(shown, said) of 0 and 1: whether the caption is true of the picture."""
    number: dict[object, int] = {}

    def column(values: list[object]) -> Tensor:
        return torch.tensor([number.setdefault(value, len(number)) for value in values])

    def equal(field: str) -> Tensor:
        a, b = (column([(field, getattr(d, field)) for d in side]) for side in (shown, said))
        return a[:, None] == b[None, :]

    left_open = torch.tensor([d.background is None for d in said])
    return (equal("things") & equal("style") & (equal("background") | left_open)).float()


def one_field_wrong(truth: Description, words: Vocabulary, rng: random.Random) -> Description:
    """The description with one field changed to another value that such a picture could have."""
    fields = ["style"] + ["background"] * 2 * (truth.background is not None) + ["thing"] * 5 * bool(truth.things)
    field = rng.choice(fields)
    if field == "style":
        return replace(truth, style=rng.choice([s for s in words.styles if s != truth.style]))
    coloured = STYLES[truth.style].shows_colour
    if field == "background":
        places = [b for b in words.backgrounds if b != truth.background and (coloured or not BACKGROUNDS[b].colour)]
        return replace(truth, background=rng.choice(places))
    which = rng.randrange(len(truth.things))
    wrong = _another_thing(truth.things[which], words, coloured, rng)
    return replace(truth, things=(*truth.things[:which], wrong, *truth.things[which + 1 :]))


def _another_thing(thing: Thing, words: Vocabulary, coloured: bool, rng: random.Random) -> Thing:
    colours = [c for c in {None, *colours_of(thing.kind, words)} if c != thing.colour] if coloured else []
    worn = [a for a in (None, *words.accessories) if a != thing.accessory] if KINDS[thing.kind].wears else []
    field = rng.choice(["kind"] * 2 + ["colour"] * bool(colours) + ["accessory"] * bool(worn))
    if field == "colour":
        return replace(thing, colour=rng.choice(sorted(colours, key=str)))
    if field == "accessory":
        return replace(thing, accessory=rng.choice(worn))
    return replace(thing, kind=rng.choice([k for k in words.kinds if k != thing.kind]))
