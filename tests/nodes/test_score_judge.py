"""The nodes that ask a vision-language model."""

from __future__ import annotations

import base64
import io
import json
import math

import httpx
import pytest
from measures import picture
from PIL import Image

from graphflow.node import Context
from graphflow.nodes.judge import ImgEdit, VieScore
from graphflow.nodes.lib.metrics.judge import AnswerError
from graphflow.nodes.lib.vlm import OpenAIVision

SOURCE, IMAGE = picture(40, 30, 1), picture(80, 60, 2)
EDIT = {"source": SOURCE, "image": IMAGE, "instruction": "make it snow"}


class Script:
    name = "script"

    def __init__(self, *answers):
        self.answers, self.asked = [json.dumps(a) if isinstance(a, dict) else a for a in answers], []

    def ask(self, images, question, **how):
        self.asked.append(([i.size for i in images], question))
        return self.answers.pop(0)


def run(node, model):
    return node.run(node.In(**EDIT, model=model), Context())


def test_viescore_asks_about_the_pair_and_about_the_picture_alone():
    script = Script({"success": 7, "restraint": 9}, {"naturalness": 8, "cleanness": 5})
    out = run(VieScore(), script)
    assert out.scores == {"viescore": pytest.approx(math.sqrt(35)), "viescore_sc": 7, "viescore_pq": 5}
    assert [sizes for sizes, _ in script.asked] == [[(40, 30), (80, 60)], [(80, 60)]]
    assert "make it snow" in script.asked[0][1]
    assert "make it snow" not in script.asked[1][1]
    assert out.how[0]["weights"] == "script"


def test_gedit_resizes_the_edited_picture_to_the_source():
    script = Script({"success": 7, "restraint": 9}, {"naturalness": 8, "cleanness": 5})
    run(VieScore(compat="gedit"), script)
    assert [sizes for sizes, _ in script.asked] == [[(40, 30), (40, 30)], [(40, 30)]]


def test_imgedit_asks_for_the_aspects_of_the_type():
    script = Script({"edit": 5, "look": 3, "rest": 4})
    out = run(ImgEdit(edit_type="background"), script)
    assert out.scores == {"imgedit": 4, "imgedit_1": 5, "imgedit_2": 3, "imgedit_3": 4}
    assert "whether the background is the asked one" in script.asked[0][1]
    assert out.how[0]["backbone"].endswith("type background")


def test_answers_that_never_count_are_an_error():
    with pytest.raises(AnswerError, match="no answer that counts in 2 attempts.*'fine'"):
        run(VieScore(max_retries=1), Script("well", "fine"))


def test_without_a_judge_there_is_no_score():
    assert run(VieScore(), None).scores == dict.fromkeys(["viescore", "viescore_sc", "viescore_pq"])
    out = run(ImgEdit(edit_type="add"), None)
    assert set(out.scores.values()) == {None}
    assert out.how[0]["missing"].startswith("there is no vlm")


def test_a_service_gets_pictures_and_question():
    sent = []

    def answer(request):
        sent.append(json.loads(request.content))
        return httpx.Response(200, json={"choices": [{"message": {"content": '{"edit": 4, "look": 4, "rest": 4}'}}]})

    model = OpenAIVision("https://host/v1", "judge-1", "secret")
    model._client = httpx.Client(transport=httpx.MockTransport(answer))
    out = run(ImgEdit(edit_type="add", max_new_tokens=77), model)
    assert out.scores["imgedit"] == 4
    assert out.how[0]["weights"] == "judge-1 at host"
    (body,) = sent
    assert (body["model"], body["max_tokens"], body["temperature"], body["seed"]) == ("judge-1", 77, 0.0, 42)
    *pictures, text = body["messages"][0]["content"]
    assert "make it snow" in text["text"]
    for part, original in zip(pictures, (SOURCE, IMAGE), strict=True):
        head, data = part["image_url"]["url"].split(",")
        assert head == "data:image/png;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).tobytes() == original.tobytes()
