"""The shipped weights for editing by example know the pocket world; `exemplar_gates` measures how well."""

from __future__ import annotations

import numpy as np
import pytest

from graphflow.node import Context
from graphflow.nodes.exemplar import Caption, Describe, Instruct
from graphflow.nodes.pocket.benchmark import edit_scores, version_for
from graphflow.nodes.pocket.captions import describe, read
from graphflow.nodes.pocket.catalogue import SHIPPED
from graphflow.nodes.pocket.descriptions import description
from graphflow.nodes.pocket.exemplar_gates import (
    ExemplarCounts,
    ExemplarModels,
    carry_out,
    load_exemplar_models,
    paint_from,
    same_words,
)
from graphflow.nodes.pocket.exemplars import SIZES, entries
from graphflow.nodes.pocket.gates import judged
from graphflow.nodes.pocket.world import Item, Scene, render

SOME = entries(version_for(SHIPPED.size, SIZES))[:14]
FEW = ExemplarCounts(num_inference_steps=15)


@pytest.fixture(scope="module")
def models() -> ExemplarModels:
    return load_exemplar_models()


def test_requests_are_carried_out_more_often_than_by_doing_nothing(models: ExemplarModels) -> None:
    edited = carry_out(models, [e.before for e in SOME], [e.edit.instruction for e in SOME], FEW)
    scores = [edit_scores(picture, e.name, models.clip) for picture, e in zip(edited, SOME, strict=True)]
    assert np.mean([s["truth_success"] for s in scores]) > 0.4
    assert np.mean([s["clip_success"] for s in scores]) > 0.4


def test_image_tokens_alone_bring_back_place_and_style(models: ExemplarModels) -> None:
    scenes = [Scene((Item("cat", 0.5, 0.9, 0.6),), place, 100_003) for place in ("beach", "night", "snow", "room")]
    pictures = [render(scene, SHIPPED.size) for scene in scenes]
    painted = paint_from(models, models.clip.image(pictures), [""] * len(scenes), FEW)
    right = judged(models, SHIPPED, [describe(scene) for scene in scenes], painted)
    assert right["style"] >= 0.75
    assert right["background"] >= 0.75  # one in eleven by chance


def test_the_vlm_reads_edits_and_captions_their_results(models: ExemplarModels) -> None:
    told, said, read_as = [], [], []
    for e in SOME:
        pair = {"before": e.exemplar_before, "after": e.exemplar_after, "model": models.vlm}
        told.append(Describe().run(Describe.In(**pair), Context()).text)
        said.append(Instruct().run(Instruct.In(**pair), Context()).text)
        x = Caption.In(image=e.before, edit=description(e.exemplar), model=models.vlm)
        read_as.append(read(Caption().run(x, Context()).text))
    assert sum(same_words(t, description(e.exemplar)) for t, e in zip(told, SOME, strict=True)) >= 7
    assert sum(same_words(t, e.edit.instruction) for t, e in zip(said, SOME, strict=True)) >= 7
    assert sum(describe(e.edit.after).same_as(r) for r, e in zip(read_as, SOME, strict=True)) >= 7
