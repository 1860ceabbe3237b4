"""Cosines in CLIP's space: against torchmetrics' CLIPScore and formulas, for transformers and open_clip."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from checkpoints import save_clip
from measures import picture
from torchmetrics.functional.multimodal import clip_score
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPProcessor, CLIPTokenizer

from graphflow.nodes.lib.clip import CLIP
from graphflow.nodes.lib.metrics import joint

IMAGE, SOURCE, TARGET = (picture(57, 40, seed) for seed in (1, 2, 3))
CLOSE = {"abs": 1e-5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def clip(folder):
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    return CLIP(CLIPModel.from_pretrained(folder), CLIPImageProcessorPil.from_pretrained(folder), tokenizer, "tiny")


def unit(vector):
    return vector / np.linalg.norm(vector)


def cos(a, b):
    return float(unit(a) @ unit(b))


@pytest.fixture(scope="module")
def embedded(clip):
    images = {k: clip.image([v])[0].numpy() for k, v in {"I": IMAGE, "S": SOURCE, "T": TARGET}.items()}
    texts = {k: clip.text([v])[0].numpy() for k, v in {"new": "a dog", "old": "a cat", "do": "make it a dog"}.items()}
    return images | texts


def test_every_score_is_its_formula(clip, embedded):
    e = embedded
    edit = joint.Edit(SOURCE, "a dog", "a cat", TARGET, "make it a dog")
    step = unit(e["I"]) - unit(e["S"])
    assert joint.similarities(clip, [IMAGE], [edit], "none")[0] == {
        "clip_text": pytest.approx(cos(e["I"], e["new"]), **CLOSE),
        "clip_text_distance": pytest.approx(1 - cos(e["I"], e["new"]), **CLOSE),
        "clip_image": pytest.approx(cos(e["I"], e["S"]), **CLOSE),
        "clip_target": pytest.approx(cos(e["I"], e["T"]), **CLOSE),
        "clip_direction": pytest.approx(cos(step, unit(e["new"]) - unit(e["old"])), **CLOSE),
        "clip_instruction": pytest.approx(cos(step, e["do"]), **CLOSE),
    }


def test_reedits_direction_is_not_the_usual_one(clip):
    edit = joint.Edit(SOURCE, "a dog", "a cat", None, "a dog")
    values = joint.similarities(clip, [IMAGE], [edit], "none")[0]
    assert abs(values["clip_direction"] - values["clip_instruction"]) > 1e-3


def test_only_what_is_known_is_scored(clip):
    assert list(joint.similarities(clip, [IMAGE], [joint.Edit(target=TARGET)], "none")[0]) == ["clip_target"]
    assert joint.Edit(text="a", source_text="b").names() == ["clip_text", "clip_text_distance"]
    assert joint.Edit(source=SOURCE, instruction="x").names() == ["clip_image", "clip_instruction"]
    with pytest.raises(ValueError, match="nothing to compare the picture with"):
        joint.similarities(clip, [IMAGE], [joint.Edit(source_text="b", instruction="c")], "none")


class OfTransformers4:
    """torchmetrics 1.9 expects the tensors that transformers 4 returned."""

    def __init__(self, model):
        self._model = model

    def __getattr__(self, name):
        return getattr(self._model, name)

    def to(self, device):
        return self

    def get_image_features(self, *args):
        return self._model.get_image_features(*args).pooler_output

    def get_text_features(self, *args):
        return self._model.get_text_features(*args).pooler_output


def test_clip_score_agrees_with_torchmetrics(clip, folder):
    processor = CLIPProcessor(CLIPImageProcessorPil.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder))
    for text in ("a dog", "a cat on a mat", "x"):
        raw = torch.from_numpy(np.asarray(IMAGE).copy()).permute(2, 0, 1)
        theirs = clip_score(raw, text, model_name_or_path=lambda: (OfTransformers4(clip.model), processor)).item()
        ours = joint.clip_score(clip.image([IMAGE]), clip.text([text])).item()
        assert ours == pytest.approx(theirs, abs=1e-4), text


def test_clip_score_is_never_negative():
    a = torch.tensor([[1.0, 0.0]])
    assert joint.clip_score(a, -a).item() == 0
    assert joint.clip_score(a, torch.tensor([[3.0, 4.0]])).item() == pytest.approx(60)


def test_s_visual_does_not_normalise_before_it_subtracts():
    rng = np.random.default_rng(0)
    before, after, source, image = (rng.normal(size=8).astype(np.float32) * k for k in (1, 3, 5, 2))
    rows = [torch.from_numpy(v)[None] for v in (before, after, source, image)]
    ours = joint.s_visual(*rows).item()
    assert ours == pytest.approx(cos(after - before, image - source), **CLOSE)
    assert abs(ours - cos(unit(after) - unit(before), unit(image) - unit(source))) > 1e-2


def test_preprocessing_changes_the_embedding(clip):
    found = {how: joint.embed_images(clip, [IMAGE], how) for how in ("none", "openai", "ip2p")}
    for a, b in (("none", "ip2p"), ("openai", "ip2p")):
        assert (found[a] - found[b]).abs().max() > 1e-3
    assert joint.setting(clip, "none")["resize"] == "PIL bicubic to shortest_edge 32, centre crop 32x32"
    assert joint.setting(clip, "ip2p")["resize"] == "tensor bicubic without antialiasing to 32x32, no crop"


def test_the_checkpoints_own_preprocessing_is_openais_when_margins_are_even(clip):
    even = picture(80, 40)
    torch.testing.assert_close(
        joint.embed_images(clip, [even], "none"), joint.embed_images(clip, [even], "openai"), atol=1e-5, rtol=1e-4
    )
