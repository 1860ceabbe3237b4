"""Scores of edits."""

from __future__ import annotations

from graphflow.node import Context, Node, Ports
from graphflow.ports import Image, Model, Scores, Text


class ClipScore(Node, kind="score.clip"):
    """CLIP similarities of a picture to a text and to the source picture; what is not given is not scored.

    clip_text is cos(picture, text) and clip_text_distance is 1 - clip_text; clip_image is cos(picture, source);
    clip_direction is the cosine of the change of the picture and the change of the text. Values depend on the CLIP
    that the preset binds: compare only those of the same one.
    """

    class In(Ports):
        image: Image
        source: Image | None = None
        text: Text | None = None
        source_text: Text | None = None
        model: Model["clip"]

    class Out(Ports):
        scores: Scores

    def run(self, x: In, ctx: Context) -> Out:
        from torch.nn.functional import cosine_similarity

        from graphflow.nodes.lib.clip import directional_similarity

        if x.source is None and x.text is None:
            raise ValueError("there is nothing to compare the picture with: give 'text', 'source' or both")
        image = x.model.image([x.image])
        scores = {}
        if x.text is not None:
            text = x.model.text([x.text])
            scores["clip_text"] = cosine_similarity(image, text).item()
            scores["clip_text_distance"] = 1 - scores["clip_text"]
        if x.source is not None:
            source = x.model.image([x.source])
            scores["clip_image"] = cosine_similarity(image, source).item()
            if x.text is not None and x.source_text is not None:
                source_text = x.model.text([x.source_text])
                scores["clip_direction"] = directional_similarity(image, source, text, source_text).item()
        return self.Out(scores=scores)
