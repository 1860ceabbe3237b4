"""Scores that only the pocket world can give: against the exact ground truth of an edit."""

from __future__ import annotations

from graphflow.node import Context, Node, Ports
from graphflow.ports import Image, Model, Scores, Text


class PocketEdit(Node, kind="pocket_score.edit"):
    """How well a picture does an edit of the pocket or the exemplar benchmark, which is found by its name.

    clip_success and truth_success are 1 or 0: whether CLIP prefers the caption after the edit to every other outcome,
    and whether the picture is closer to the ground truth than to the source inside the mask. psnr_inside and
    psnr_outside are in dB against the ground truth; the second is absent where the mask covers everything (styles).
    Read clip_success beside that of the ground truth itself: the pocket CLIP errs, mostly on pictures of two objects.
    """

    class In(Ports):
        image: Image
        name: Text
        model: Model["clip"]

    class Out(Ports):
        scores: Scores

    def run(self, x: In, ctx: Context) -> Out:
        from graphflow.nodes.pocket.benchmark import edit_scores

        return self.Out(scores=edit_scores(x.image, x.name, x.model))
