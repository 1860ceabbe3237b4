"""Scores by a vision-language model that judges, with questions of our own wording in the schemes of the papers.

The judge is what the preset binds to the role vlm: a model of transformers, or a service that speaks OpenAI's
protocol. Numbers of two judges can't be compared, nor with published ones. An answer that is not what was asked for is
asked again, with sampling, and then an error; nothing is guessed.
"""

from __future__ import annotations

from typing import Literal

from graphflow.node import Context, Field, Seed
from graphflow.nodes.measure import Measure, Scored
from graphflow.ports import Image, Model, Ports, Text


class Judged(Measure):
    """Base of the judges."""

    max_new_tokens: int = Field(512, ge=1, description="length limit of an answer")
    max_retries: int = Field(2, ge=0, le=20, description="further attempts when an answer can't be read")
    seed: Seed = Field(42, description="of the sampling; the first attempt does not sample")

    class In(Ports):
        source: Image
        image: Image
        instruction: Text
        model: Model["vlm"] | None = None


class VieScore(Judged, kind="judge.viescore"):
    """VIEScore of an edit (Ku et al. 2024; GEdit-Bench): SC, PQ and O = √(SC·PQ), from 0 to 10; higher is better.

    SC is the lesser of two marks for the pair of pictures: the instruction was carried out, nothing else was changed.
    PQ is the lesser of two marks for the edited picture alone: natural, free of artefacts.
    """

    compat: Literal["none", "gedit"] = Field(
        "none", description="gedit: the edited picture is first resized to the source, bicubic, as GEdit-Bench does"
    )

    def run(self, x: Judged.In, ctx: Context) -> Scored:
        from graphflow.nodes.lib.metrics import judge
        from graphflow.nodes.lib.metrics.pixels import stretched

        if x.model is None:
            return self.lacking("vlm", "viescore", "viescore_sc", "viescore_pq")
        image = stretched(x.image, x.source.size, "bicubic") if self.compat == "gedit" else x.image
        how = {"max_new_tokens": self.max_new_tokens, "max_retries": self.max_retries, "seed": self.seed}
        question = judge.consistency_question(x.instruction)
        pair = judge.ask(x.model, [x.source, image], question, judge.CONSISTENCY, 0, 10, **how)
        alone = judge.ask(x.model, [image], judge.quality_question(), judge.QUALITY, 0, 10, **how)
        return self.give(
            judge.viescore(pair, alone),
            backbone=f"{type(x.model).__name__}, wording {judge.WORDING}",
            weights=x.model.name,
            input_range="the model's own",
            resize="picture to the source, PIL bicubic" if self.compat == "gedit" else "the model's own",
            reduction="least mark of each kind, then the geometric mean",
            scale="0 … 10",
        )


class ImgEdit(Judged, kind="judge.imgedit"):
    """Judgement in the scheme of ImgEdit-Bench (Ye et al. 2025): mean of three marks from 1 to 5; higher is better.

    The marks depend on the type of the edit: is the edit there, does it look right, are details and the rest right.
    """

    edit_type: Literal["add", "adjust", "remove", "replace", "style", "background", "action", "extract", "compose"] = (
        Field(description="the type of the edit, which decides what the marks are for")
    )

    def run(self, x: Judged.In, ctx: Context) -> Scored:
        from graphflow.nodes.lib.metrics import judge

        if x.model is None:
            return self.lacking("vlm", "imgedit", "imgedit_1", "imgedit_2", "imgedit_3")
        aspects = judge.IMGEDIT[self.edit_type]
        question = judge.imgedit_question(x.instruction, self.edit_type)
        how = {"max_new_tokens": self.max_new_tokens, "max_retries": self.max_retries, "seed": self.seed}
        marks = judge.ask(x.model, [x.source, x.image], question, aspects, 1, 5, **how)
        return self.give(
            judge.imgedit(marks),
            backbone=f"{type(x.model).__name__}, wording {judge.WORDING}, type {self.edit_type}",
            weights=x.model.name,
            input_range="the model's own",
            resize="the model's own",
            reduction="mean of three marks",
            scale="1 … 5",
        )
