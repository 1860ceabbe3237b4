"""Embeddings of pictures: what an image prompt is made of."""

from __future__ import annotations

from collections.abc import Sequence

from graphflow.node import BatchNode, Context, Field, Node, Ports
from graphflow.ports import Embedding, Image, Model


class EmbedImage(BatchNode, kind="embedding.image"):
    """The embedding of a picture, projected and not normalised, as IP-Adapter reads it."""

    class In(Ports):
        image: Image
        model: Model["image_encoder"]

    class Out(Ports):
        embedding: Embedding

    def run_many(self, xs: Sequence[In], ctx: Context) -> list[Out]:
        embeddings = xs[0].model.image([x.image for x in xs])
        return [self.Out(embedding=embedding) for embedding in embeddings.split(1)]


class Exemplar(Node, kind="embedding.exemplar"):
    """The change from one picture to another, mixed with a third picture that is to change so (ReEdit)."""

    edit_weight: float = Field(
        0.65,
        ge=0,
        le=1,
        description="λ of the paper: 0 is the picture itself, 1 the change alone; 0.55 to 0.8 is usual",
    )

    class In(Ports):
        before: Embedding
        after: Embedding
        image: Embedding

    class Out(Ports):
        embedding: Embedding

    def run(self, x: In, ctx: Context) -> Out:
        from graphflow.nodes.lib.reedit import exemplar_embedding

        return self.Out(embedding=exemplar_embedding(x.before, x.after, x.image, self.edit_weight))
