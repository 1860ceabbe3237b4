"""Prompts for captions before and after an edit, and what is made of the answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphflow.nodes.lib.caption_examples import EXAMPLES
from graphflow.nodes.lib.edit_captions import (
    EditCaptions,
    Request,
    distinct,
    few_shot_prompt,
    number,
    parse_lists,
    parse_pair,
    reversed_pair,
    tidy,
    write_captions,
)

CAT = "a cat on a sofa"
GOOD = """ a cat lying down
Caption 3: a cat at home
After transformation:
Caption 1: a dog on a sofa
Caption 2: a dog lying down
Caption 3: a dog at home

###"""


class Scripted:
    """A language model that gives prepared answers and remembers how it was asked."""

    def __init__(self, *answers, template="few_shot", continues=True):
        self.answers, self.template, self.continues, self.asked = list(answers), template, continues, []

    def complete(self, prompt, n=1, **how):
        self.asked.append((prompt, n, how))
        given = self.answers.pop(0) if self.answers else ""
        return given if isinstance(given, list) else [given] * n


def ask(llm, n=3, retries=10, **request):
    return write_captions(llm, Request(CAT, "turn the cat into a dog", n, **request), range(1 + retries))


def test_numbers_stand_in_words_and_digits():
    assert [number(n) for n in (1, 3, 10)] == ["one (1)", "three (3)", "ten (10)"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e.instruction)
def test_examples_pass_the_rule_that_answers_must_pass(example):
    lists = [*example.before, *example.after]
    assert len(example.before) == len(example.after) == len(distinct(lists)) / 2


def test_prompt_holds_examples_number_and_instruction_and_opens_the_answer():
    prompt, opening = few_shot_prompt(Request(CAT, "turn the cat into a dog", 3, num_shots=2), continues=True)
    assert prompt.count("three (3) captions") == 2
    assert prompt.count("###") == 2
    assert prompt.endswith("Transformation: turn the cat into a dog\n")
    assert opening == f"Before transformation:\nCaption 1: {CAT}\nCaption 2:"


def test_the_prompt_says_how_many_captions_its_examples_have():
    prompt, _ = few_shot_prompt(Request(CAT, "turn the cat into a dog", 6, num_shots=2), continues=False)
    assert prompt.count("Caption 4: ") == 2 * 2
    assert "Caption 5: " not in prompt
    assert prompt.count("four (4) captions") == 2
    assert "For the last one there are six (6) of each." in prompt
    assert "Write the six (6) captions before" in prompt
    alone, _ = few_shot_prompt(Request(CAT, "x", 6, num_shots=0), continues=False)
    assert "four (4)" not in alone


def test_one_caption_leads_straight_to_the_other_side():
    _, opening = few_shot_prompt(Request(CAT, "x", 1), continues=True)
    assert opening == f"Before transformation:\nCaption 1: {CAT}\nAfter transformation:\nCaption 1:"


def test_a_chat_model_is_asked_for_the_whole_list():
    prompt, opening = few_shot_prompt(Request(CAT, "x", 2, num_shots=0), continues=False)
    assert opening == ""
    assert f"Caption 1: {CAT}" in prompt
    assert "Write the two (2) captions before" in prompt


def test_examples_are_drawn_with_the_seed():
    prompts = [few_shot_prompt(Request(CAT, "x", num_shots=3, seed=seed), True)[0] for seed in (0, 0, 1)]
    assert prompts[0] == prompts[1] != prompts[2]


def test_a_complete_answer_is_taken_at_once():
    llm = Scripted(GOOD)
    assert ask(llm) == EditCaptions(
        [CAT, "a cat lying down", "a cat at home"], ["a dog on a sofa", "a dog lying down", "a dog at home"]
    )
    assert len(llm.asked) == 1


def test_longer_lists_are_cut():
    assert ask(Scripted(GOOD), n=2) == EditCaptions([CAT, "a cat lying down"], ["a dog on a sofa", "a dog lying down"])


def test_incomplete_answers_are_asked_again_with_other_seeds():
    llm = Scripted("", "Caption nonsense", GOOD)
    assert ask(llm, seed=5).after[0] == "a dog on a sofa"
    assert [how["seed"] for _, _, how in llm.asked] == [5, 6, 7]


def test_partial_answers_are_pooled_when_no_attempt_was_complete():
    llm = Scripted("\nAfter transformation:\nCaption 1: a dog", "\nAfter transformation:\nCaption 1: a puppy\n")
    assert ask(llm) == EditCaptions([CAT], ["a dog", "a puppy"])
    assert len(llm.asked) == 11


def test_the_given_caption_is_always_among_those_before():
    llm = Scripted(*["x\nAfter transformation:\nCaption 1: a dog"] * 11)
    assert ask(llm).before[0] == CAT


def test_nothing_usable_is_an_error_that_shows_the_answer():
    with pytest.raises(
        ValueError, match=r"what 'turn the cat into a dog' makes of 'a cat on a sofa'.*'I can not do that'"
    ):
        ask(Scripted(*["I can not do that"] * 11))


def test_a_caption_that_stays_the_same_is_no_edit():
    with pytest.raises(ValueError, match="no caption that tells"):
        ask(Scripted(*[f" x\nAfter transformation:\nCaption 1: {CAT.upper()}"] * 11))


def test_without_sampling_nothing_is_asked_twice():
    llm = Scripted(*["\nAfter transformation:\nCaption 1: a dog"] * 11)
    assert ask(llm, temperature=0).after == ["a dog"]
    assert len(llm.asked) == 1


def test_a_caption_after_in_one_answer_and_before_in_another_counts_as_after():
    llm = Scripted("\nCaption 3: my pet", "\nAfter transformation:\nCaption 1: my pet")
    assert ask(llm) == EditCaptions([CAT], ["my pet"])


@pytest.mark.parametrize("blank", ["", "  ", "\n\t"])
def test_blank_instruction_and_blank_caption_are_refused(blank):
    with pytest.raises(ValueError, match="the instruction is empty; expected an edit such as"):
        write_captions(Scripted(GOOD), Request(CAT, blank), range(3))
    with pytest.raises(ValueError, match="the caption is empty"):
        write_captions(Scripted(GOOD), Request(blank, "x"), range(3))


def test_pairs_are_pooled_until_there_are_enough_and_the_first_is_the_likeliest():
    llm = Scripted(
        ["before: a cat after: a dog"],
        ["before: a cat after: a dog", "no pair", "before: one cat after: one cat"],
        ["before: a photo of a cat after: a photo of a dog", "before: my cat after: my dog", "before: x after: y"],
        template="edit_pair",
    )
    assert ask(llm) == EditCaptions(["a cat", "a photo of a cat", "my cat"], ["a dog", "a photo of a dog", "my dog"])
    assert llm.asked[0][0] == f"caption: {CAT} instruction: turn the cat into a dog"
    assert [(n, how["temperature"] > 0) for _, n, how in llm.asked] == [(1, False), (3, True), (3, True)]


def test_a_seed_samples_the_first_pair_too():
    llm = Scripted(["before: a cat after: a dog"], template="edit_pair")
    assert ask(llm, n=1, seed=7).after == ["a dog"]
    [(_, n, how)] = llm.asked
    assert (n, how["seed"], how["temperature"]) == (1, 7, 1.0)


B, A = "Before transformation", "After transformation"
MALFORMED = {
    "bold markdown": f"**{B}:**\n**Caption 1:** a cat\n\n**{A}:**\n**Caption 1:** a dog",
    "markdown headings": f"### {B}\nCaption 1: a cat\n\n### {A}\nCaption 1: a dog",
    "heading with a number": f"{B} (one (1) caption):\nCaption 1: a cat\n{A} (1):\nCaption 1: a dog",
    "bullets": f"{B}\n- Caption 1: a cat\n{A}\n- Caption 1: a dog",
    "quotes": f'{B}:\nCaption 1: "a cat"\n{A}:\nCaption 1: “a dog”',
    "other case": f"{B.upper()}:\ncaption 1: a cat\n{A.upper()}:\nCAPTION 1: a dog",
    "dots": f"{B}:\nCaption 1. a cat\n{A}:\nCaption 1. a dog",
    "windows lines": f"{B}:\r\nCaption 1: a cat\r\n{A}:\r\nCaption 1: a dog\r\n",
    "chatter": f"Sure!\n\n{B}:\nCaption 1: a cat\n\n{A}:\nCaption 1: a dog\n\nI hope it helps.",
    "next example": f"Caption 1: a cat\n{A}:\nCaption 1: a dog\n\nTransformation: add a hat\n"
    f"{B}:\nCaption 1: a man\n{A}:\nCaption 1: a man with a hat",
    "next example behind a separator": f"Caption 1: a cat\n{A}:\nCaption 1: a dog\n###\nCaption 1: a man",
    "the heading twice": f"Caption 1: a cat\n{A}:\nCaption 1: a dog\n{A}:\nCaption 1: a fox",
    "repeated lines": f"Caption 1: a cat\nCaption 2: A cat\n{A}:\nCaption 1: a dog\nCaption 2: a dog",
    "empty lines": f"Caption 1: a cat\nCaption 2:\nCaption 3: ...\n{A}:\nCaption 1: a dog\nCaption 2:\n",
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
def test_untidy_answers_are_understood(text):
    assert parse_lists(text, "a cat") == EditCaptions(["a cat"], ["a dog"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Caption 1: a dog",
        "a dog",
        "After transformation:",
        "After transformation:\na dog",
        "After transformation: a dog",
    ],
)
def test_answers_without_a_second_list_have_no_captions_after(text):
    assert parse_lists(text, CAT).after == []


def test_what_follows_an_unfinished_first_list_does_not_count_as_its_second():
    text = f"Caption 2: a kitten\n###\nTransformation: x\n{B}:\nCaption 1: y\n{A}:\nCaption 1: z"
    assert parse_lists(text, CAT) == EditCaptions([CAT, "a kitten"], [])


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("before: a cat after: a dog", ("a cat", "a dog")),
        ("Before:a cat\nAfter:  a  dog ", ("a cat", "a dog")),
        ("before: 'a cat' after: 'a dog'", ("a cat", "a dog")),
        ("before: a cat after: A CAT", None),
        ("before: after: a dog", None),
        ("before: a cat after:", None),
        ("before: ... after: a dog", None),
        ("a cat", None),
    ],
)
def test_pairs(text, pair):
    assert parse_pair(text) == pair


@pytest.mark.parametrize(
    ("before", "after", "turned"),
    [
        ("a cat at home", "a dog at home", False),
        ("a dog at home", "a cat at home", True),
        ("a cat", "a cat with a crown", False),
        ("my pet", "my toy", False),
        ("a kitten at home", "a dog at home", False),
        ("a dog at home", "a kitten at home", True),
    ],
)
def test_pairs_that_describe_the_edit_backwards_are_left_out(before, after, turned):
    assert reversed_pair(before, after, Request(CAT, "turn the cat into a dog")) is turned
    llm = Scripted([f"before: {before} after: {after}"], ["before: one cat after: one dog"], template="edit_pair")
    assert ask(llm, n=1).before == (["one cat"] if turned else [before])


NOISE = st.lists(
    st.sampled_from(
        ["Before transformation:", "After transformation:", "Caption 1: a cat", "Caption 2:", "Caption", "###", "a dog",
         "Caption 3: “x”", "Transformation: y", "**After transformation**", "caption 9. z", "", "\r", "1: 2"]
    )
).map("\n".join)  # fmt: skip


@given(st.one_of(st.text(), NOISE), st.text(min_size=1).filter(tidy))
def test_whatever_the_model_says_the_lists_are_tidy_and_disjoint(text, caption):
    found = parse_lists(text, caption)
    assert found.before[0] == tidy(caption)
    everything = [c.lower() for c in found.before + found.after]
    assert len(set(everything)) == len(everything)
    assert all(c == tidy(c) != "" for c in found.before + found.after)


@given(st.one_of(st.text(), st.text().map(lambda t: f"before: {t} after: {t}x"), NOISE))
def test_whatever_the_model_says_a_pair_differs(text):
    pair = parse_pair(text)
    assert pair is None or (pair[0] and pair[1] and pair[0].lower() != pair[1].lower())


@given(st.lists(st.one_of(st.text(), NOISE), max_size=6), st.integers(1, 4), st.booleans())
def test_any_answers_give_captions_on_both_sides_or_an_error(answers, n, continues):
    llm = Scripted(*answers, continues=continues)
    usable = any(parse_lists(answer, CAT).after for answer in answers)
    if continues:  # the beginning of the answer stands in the prompt
        usable = any(parse_lists(few_shot_prompt(Request(CAT, "x", n), True)[1] + a, CAT).after for a in answers)
    if not usable:
        with pytest.raises(ValueError, match="no caption that tells"):
            write_captions(llm, Request(CAT, "x", n), range(6))
        return
    found = write_captions(llm, Request(CAT, "x", n), range(6))
    assert 1 <= len(found.before) <= n
    assert 1 <= len(found.after) <= n
    assert found.before[0] == CAT
