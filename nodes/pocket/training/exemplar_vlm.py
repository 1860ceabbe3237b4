"""Training of the pocket vision-language model: a LLaVA that reads an edit off a pair of pictures.

Three questions, those of `graphflow.nodes.lib.exemplar_prompts`: describe the edit, give it as a command, and caption
another picture as it will be after an edit in words.
"""

import functools
import random
import re
from pathlib import Path

import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    CLIPImageProcessorPil,
    CLIPModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from graphflow.nodes.lib.exemplar_prompts import CAPTION, DESCRIBE, INSTRUCT, caption_question, side_by_side

from ..captions import describe, phrase
from ..catalogue import Vocabulary
from ..descriptions import description, request
from ..edits import sample_edit
from ..exemplars import Triple, sample_triple
from ..world import Split, render
from .caption_writer import LETTERS
from .loop import Log, Loop, Step, Steps, fit, in_processes, is_main
from .saving import save_half

PAD, END, UNKNOWN, IMAGE = "<pad>", "</s>", "<unk>", "<image>"
CHAT = "{% for part in messages[0].content %}{{ '<image>' if part.type == 'image' else part.text }}{% endfor %}"
HALF = (0.5, 0.5, 0.5)
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
def new_exemplar_tokenizer(words: Vocabulary, num_examples: int = 6_000) -> PreTrainedTokenizerFast:
    """A piece for each word of the examples, single letters for every other word, and one token a fixed question."""
    rng = random.Random("exemplar tokenizer")
    known: set[str] = set()
    for _ in range(num_examples):
        triple = sample_triple(rng, words, Split.TRAIN)
        texts = [triple.exemplar.instruction, description(triple.exemplar), request(triple.exemplar)]
        texts.append(phrase(describe(triple.edit.after)))
        known |= {word for text in texts for word in re.findall("[a-z0-9]+", text.lower())}
    pieces = [(PAD, 0.0), (END, 0.0), (UNKNOWN, 0.0), ("▁", -9.0)]
    pieces += [(f"▁{word}", -1.0) for word in sorted(known)] + [(letter, -9.0) for letter in LETTERS]
    learnt = Tokenizer(models.Unigram(pieces, unk_id=2))
    learnt.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    learnt.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    learnt.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=learnt, pad_token=PAD, eos_token=END, unk_token=UNKNOWN, padding_side="right"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    whole = [DESCRIBE, INSTRUCT, *CAPTION.split("{edit}")]
    tokenizer.add_tokens([AddedToken(text, normalized=False, lstrip=True, rstrip=True) for text in whole])
    return tokenizer


def new_exemplar_vlm(
    tokenizer: PreTrainedTokenizerFast, clip: CLIPModel, image_size: int, width: int, layers: int
) -> LlavaForConditionalGeneration:
    """A LLaVA with the image tower of `clip` at another size and an untrained language model."""
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = type(clip.config.vision_config)(**{**clip.config.vision_config.to_dict(), "image_size": image_size})
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=(image_size // vision.patch_size) ** 2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config)
    tower = {name: value.float() for name, value in clip.vision_model.state_dict().items()}
    positions = "embeddings.position_embedding.weight"
    tower[positions] = resized_positions(tower[positions], image_size // vision.patch_size)
    tower.pop("embeddings.position_ids", None)  # not a weight
    model.model.vision_tower.load_state_dict(tower)
    model.model.vision_tower.post_layernorm.requires_grad_(False)  # patches don't pass it
    return model


def resized_positions(table_PD: Tensor, side: int) -> Tensor:
    """Position embeddings of a class token and a square grid, for a grid of side² patches (bicubic)."""
    grid_PD = table_PD[1:]
    old = round(len(grid_PD) ** 0.5)
    grid_1Dhw = grid_PD.T.reshape(1, -1, old, old)
    resized_1Dhw = F.interpolate(grid_1Dhw, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat([table_PD[:1], resized_1Dhw.flatten(2)[0].T])


def processor_for(tokenizer: PreTrainedTokenizerFast, image_size: int, patch: int) -> LlavaProcessor:
    """Pictures of any shape, a pair among them, are stretched to the tower's square."""
    pictures = CLIPImageProcessorPil(
        size={"height": image_size, "width": image_size},
        do_center_crop=False,
        image_mean=HALF,
        image_std=HALF,
        resample=Image.Resampling.BILINEAR,
    )
    return LlavaProcessor(
        pictures,
        tokenizer,
        patch_size=patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    )


def train_exemplar_vlm(
    out: Path,
    words: Vocabulary,
    clip: CLIPModel,
    loop: Loop,
    *,
    image_size: int,
    width: int,
    layers: int,
    checkpoint: Path | None,
    steps: Steps,
    log: Log,
) -> None:
    """Train on edits drawn on the fly, the image tower from `clip`'s; save to `out` with the processor."""
    arguments = {"out": out, "words": words, "clip": clip, "loop": loop, "checkpoint": checkpoint}
    shape = {"image_size": image_size, "width": width, "layers": layers}
    in_processes(_train, loop.workers, steps, log, shape=shape, **arguments)


def _train(
    out: Path,
    words: Vocabulary,
    clip: CLIPModel,
    loop: Loop,
    shape: dict[str, int],
    checkpoint: Path | None,
    steps: Steps,
    log: Log,
) -> None:
    torch.manual_seed(loop.seed)
    tokenizer = new_exemplar_tokenizer(words)
    model = new_exemplar_vlm(tokenizer, clip, **shape)
    processor = processor_for(tokenizer, shape["image_size"], model.config.vision_config.patch_size)

    def loss_of(step: Step) -> Tensor:
        tasks = [TASKS[n % len(TASKS)] for n in range(step.batch_size)]
        examples = [example(step.rng, words, Split.TRAIN, task) for task in tasks]
        return model(**batch_of(processor, examples).to(step.device)).loss

    fit(model, loss_of, loop, checkpoint, steps, log)
    if is_main():
        save_half(model, out)
        processor.save_pretrained(out, save_jinja_files=False)  # .json alone


def batch_of(processor: LlavaProcessor, examples: list[tuple[Image.Image, str, str]]):  # type: ignore[no-untyped-def]
    """Model inputs with labels at the answers and their end; what `ChatVLM.ask` gives a model, and the answer."""
    given = [question_text(processor, question) for _, question, _ in examples]
    texts = [f"{text} {answer}{END}" for text, (_, _, answer) in zip(given, examples, strict=True)]
    inputs = processor(images=[picture for picture, _, _ in examples], text=texts, padding=True, return_tensors="pt")
    answered = processor.tokenizer([f" {answer}{END}" for _, _, answer in examples]).input_ids
    labels = torch.full_like(inputs.input_ids, -100)
    lengths = inputs.attention_mask.sum(1)
    for row, ids in enumerate(answered):
        end = int(lengths[row])
        labels[row, end - len(ids) : end] = torch.tensor(ids)
    inputs["labels"] = labels
    return inputs


def question_text(processor: LlavaProcessor, question: str) -> str:
    """A question about one picture in the chat template."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    chat = [{"role": "user", "content": content}]
    return str(processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))
