"""Questions to a judge and the strict reading of its answers."""

from __future__ import annotations

import json
import math

import pytest
from measures import picture

from graphflow.nodes.lib.metrics import judge

PAIR = json.dumps({"success": 8, "restraint": 6, "reason": "fine"})


class Script:
    """A judge that answers from a list and remembers what it was asked."""

    name = "script"

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def ask(self, images, question, **how):
        self.asked.append((len(images), question, how))
        return self.answers.pop(0)


def read(answer):
    return judge.read_answer(answer, judge.CONSISTENCY, 0, 10)


@pytest.mark.parametrize("around", ["{}", "```json\n{}\n```", "I see a dog. {} That is all.", "  {}\n"])
def test_text_around_the_object_is_passed_over(around):
    assert read(around.replace("{}", PAIR)) == {"success": 8.0, "restraint": 6.0}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("8 and 6", "no JSON object in it: '8 and 6'"),
        ("", "no JSON object"),
        ('{"success": 8, "restraint": ', "its JSON is broken"),
        ('{"success": 8}', "it has no 'restraint', expected a number from 0 to 10"),
        ('{"success": 8, "restraint": "6"}', "'restraint' is '6', expected a number"),
        ('{"success": 8, "restraint": true}', "'restraint' is True"),
        ('{"success": 8, "restraint": null}', "'restraint' is None"),
        ('{"success": 8, "restraint": 11}', "'restraint' is 11, expected 0 to 10"),
        ('{"success": -1, "restraint": 5}', "'success' is -1"),
        ('{"success": NaN, "restraint": 5}', "'success' is nan"),
        ("[8, 6]", "no JSON object"),
        ("x" * 500, "…'"),
    ],
)
def test_anything_else_is_an_error_that_shows_the_answer(answer, message):
    with pytest.raises(judge.AnswerError, match=message):
        read(answer)


def test_an_answer_that_can_not_be_read_is_asked_for_again_with_sampling():
    script = Script("hm", "eight", PAIR)
    how = {"max_new_tokens": 9, "max_retries": 2, "seed": 42}
    found = judge.ask(script, [picture()], "?", judge.CONSISTENCY, 0, 10, **how)
    assert found["success"] == 8
    assert [(a[2]["temperature"], a[2]["seed"]) for a in script.asked] == [(0.0, 42), (0.7, 43), (0.7, 44)]
    with pytest.raises(judge.AnswerError, match="no answer that counts in 2 attempts; the last: .*'two'"):
        judge.ask(Script("one", "two"), [], "?", judge.CONSISTENCY, 0, 10, **how | {"max_retries": 1})


def test_viescore_takes_the_lesser_marks_and_their_geometric_mean():
    found = judge.viescore({"success": 8, "restraint": 6}, {"naturalness": 9, "cleanness": 7})
    assert found == {"viescore": pytest.approx(math.sqrt(42)), "viescore_sc": 6, "viescore_pq": 7}
    assert judge.viescore({"a": 0, "b": 10}, {"c": 10})["viescore"] == 0


def test_imgedit_is_the_mean_of_three():
    found = judge.imgedit({"edit": 5, "look": 4, "rest": 4})
    assert found == {"imgedit": pytest.approx(13 / 3), "imgedit_1": 5, "imgedit_2": 4, "imgedit_3": 4}


def test_questions_name_every_key_they_want_and_the_instruction():
    text = judge.consistency_question('turn "it" red')
    for key in judge.CONSISTENCY:
        assert text.count(f'"{key}"') == 2
    assert 'turn "it" red' in text
    assert "red" not in judge.quality_question()
    for edit_type, aspects in judge.IMGEDIT.items():
        assert list(aspects) == ["edit", "look", "rest"]
        question = judge.imgedit_question("make it snow", edit_type)
        assert f"{edit_type!r}" in question
        assert "from 1 to 5" in question
        assert 'can\'t be higher than "edit"' in question
