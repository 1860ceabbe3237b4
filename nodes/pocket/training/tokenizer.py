"""The tokenizer of the pocket text encoder and CLIP: byte-level BPE as CLIP's own, trained on pocket captions.

The result is committed (`nodes/pocket/tokenizer/`), because the BPE trainer breaks ties in no fixed order.
"""

import json
import random
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from ..captions import caption
from ..catalogue import Vocabulary
from ..world import Split, sample_scene

TOKENIZER = Path(__file__).parents[1] / "tokenizer"
START, END = "<|startoftext|>", "<|endoftext|>"
MAX_LENGTH = 32


def train_tokenizer(out: Path, words: Vocabulary, num_captions: int = 20_000, seed: int = 0) -> CLIPTokenizer:
    """Learn one token for each word of the captions; any other text falls apart into bytes."""
    rng = random.Random(seed)
    empty = CLIPTokenizer(vocab={START: 0, END: 1}, merges=[])
    learner = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix="</w>"))
    learner.normalizer = empty.backend_tokenizer.normalizer
    learner.pre_tokenizer = empty.backend_tokenizer.pre_tokenizer
    captions = [caption(sample_scene(rng, words, Split.TRAIN), rng) for _ in range(num_captions)]
    learner.train_from_iterator(captions, trainers.BpeTrainer(vocab_size=4096, end_of_word_suffix="</w>"))
    merges = [tuple(merge) for merge in json.loads(learner.to_str())["model"]["merges"]]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [
        *alphabet,
        *(f"{letter}</w>" for letter in alphabet),
        *("".join(merge) for merge in merges),
    ]
    # CLIPTextModel pools at the largest id, so that the end token comes last.
    vocabulary = {piece: number for number, piece in enumerate([*dict.fromkeys(pieces), START, END])}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_LENGTH)
    tokenizer.save_pretrained(out)
    return tokenizer
