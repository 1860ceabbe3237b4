"""An edit in words: the pair as one picture, the questions, and what is made of the answers."""

from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest
import torch

from graphflow.models.refs import ModelRef, loaders
from graphflow.node import Context
from graphflow.nodes.exemplar import Caption, Describe, Instruct
from graphflow.nodes.lib.exemplar_prompts import (
    CAPTION,
    DESCRIBE,
    INSTRUCT,
    caption_question,
    last_line,
    shortened,
    side_by_side,
)
from tests.checkpoints import save_llava

RED, BLUE = PIL.Image.new("RGB", (64, 64), "red"), PIL.Image.new("RGB", (64, 64), "blue")


class Model:
    """Answers as told, and remembers what it was asked."""

    def __init__(self, answer: str) -> None:
        self.answer, self.asked, self.name = answer, [], "parrot"

    def ask(self, images: list[PIL.Image.Image], question: str, *, max_new_tokens: int) -> str:
        self.asked.append((images, question, max_new_tokens))
        return self.answer


def describe(model: Model, **parameters: object) -> str:
    text: str = Describe(**parameters).run(Describe.In(before=RED, after=BLUE, model=model), Context()).text
    return text


def test_a_pair_stands_side_by_side_with_a_white_stripe() -> None:
    large = side_by_side(RED.resize((900, 700)), BLUE.resize((600, 600)))
    assert large.size == (1034, 512)
    assert [large.getpixel((x, 200)) for x in (0, 511, 512, 521, 522, 1033)] == [
        *([(255, 0, 0)] * 2),
        *([(255, 255, 255)] * 2),
        *([(0, 0, 255)] * 2),
    ]
    assert side_by_side(RED, BLUE).size == (129, 64), "small pictures are not enlarged"
    assert side_by_side(RED, BLUE, max_side=32).size == (65, 32)


def test_transparent_and_grey_pictures_are_shown_as_rgb() -> None:
    assert side_by_side(RED.convert("RGBA"), BLUE.convert("L")).mode == "RGB"


def test_the_pair_is_described_by_one_greedy_question() -> None:
    model = Model("  a dog instead of the cat\n")
    assert describe(model) == "a dog instead of the cat"
    [([picture], question, limit)] = model.asked
    assert (picture.size, question, limit) == ((129, 64), DESCRIBE, 512)
    assert describe(model, question="what?", max_new_tokens=3, max_side=16)
    assert (model.asked[1][0][0].size, *model.asked[1][1:]) == ((33, 16), "what?", 3)


def test_silence_is_an_error() -> None:
    with pytest.raises(ValueError, match="the vision-language model parrot said nothing"):
        describe(Model(" \n"))


def test_of_a_command_with_thoughts_before_it_the_last_line_counts() -> None:
    x = Instruct.In(before=RED, after=BLUE, model=Model("The cat is now a dog.\n\n  Turn the cat into a dog. \n\n"))
    assert Instruct().run(x, Context()).text == "Turn the cat into a dog."
    assert x.model.asked[0][1] == INSTRUCT
    assert last_line("\n \n") == ""


def test_a_caption_is_asked_for_with_the_edit_in_the_question() -> None:
    x = Caption.In(image=RED, edit=" a {crown} was added \n", model=Model("a cat\nwith a crown"))
    assert Caption().run(x, Context()).text == "a cat with a crown"
    [([picture], question, _)] = x.model.asked
    assert picture is RED
    assert question == CAPTION.replace("{edit}", "a {crown} was added")
    with pytest.raises(ValueError, match=r"no \{edit\}"):
        caption_question("what now?", "x")


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("one two three", "one two three"),
        ("a b. c d. e f", "a b. c d."),
        ("a b c d e f g", "a b c d e"),
        ('he said "no." and then more', 'he said "no."'),
        ("a b c d e. f", "a b c d e."),
        ("one. two three four five", "one."),
        ("", ""),
    ],
)
def test_a_long_caption_ends_with_its_last_whole_sentence_or_is_cut(caption: str, expected: str) -> None:
    assert shortened(caption, max_words=5) == expected


def test_forty_words_are_too_many_as_in_the_paper() -> None:
    assert len(shortened("word " * 39).split()) == 39
    assert shortened("a b. " + "word " * 38) == "a b."
    assert len(shortened("word " * 50).split()) == 40, "never empty"


def test_the_questions_ask_for_what_the_paper_asks_for() -> None:
    assert "at most 100 words" in DESCRIBE
    assert "at most 20 words" in INSTRUCT
    assert "fewer than 20 words" in CAPTION
    assert CAPTION.count("{edit}") == 1


def test_a_real_llava_answers_every_question(tmp_path: Path) -> None:
    ref = ModelRef("vlm", "transformers.vlm", "x", path=save_llava(tmp_path))
    model = loaders()["transformers.vlm"].load(ref, ref.path, torch.device("cpu"), torch.float32)
    short = {"max_new_tokens": 8}
    try:
        texts = [
            Describe(**short).run(Describe.In(before=RED, after=BLUE, model=model), Context()).text,
            Instruct(**short).run(Instruct.In(before=RED, after=BLUE, model=model), Context()).text,
            Caption(**short).run(Caption.In(image=RED, edit="x", model=model), Context()).text,
        ]
    except ValueError as error:
        assert "said nothing" in str(error)  # noqa: PT017  random weights may end at once
    else:
        assert all(isinstance(text, str) for text in texts)
