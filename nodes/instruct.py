"""Editing by instructions: InstructPix2Pix and the models of its kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from graphflow.node import BatchNode, Context, Field, Node, Ports, Seed
from graphflow.ports import Image, Latents, Mask, Model, Text, TextCond, TextCondPort


class Phrase(Node, kind="instruct.phrase"):
    """The instruction as a model was trained to read it: with a suffix, if it has one.

    HIVE's conditional-reward checkpoint (Zhang et al. 2024) reads how good the edit shall be after the instruction.
    """

    suffix: str = Field(
        "", description="stands after the instruction and a comma, as 'image quality is five out of five' for HIVE"
    )

    class In(Ports):
        instruction: Text

    class Out(Ports):
        text: Text

    def run(self, x: In, ctx: Context) -> Out:
        return self.Out(text=f"{x.instruction}, {self.suffix}" if self.suffix.strip() else x.instruction)


class Prepare(Node, kind="instruct.prepare"):
    """Bring a picture to a size that can be edited, keeping its proportions: InstructPix2Pix's rule.

    The longer side becomes about the resolution, and both sides multiples of eight latents; what sticks out is cut off.
    """

    resolution: int | None = Field(
        None, ge=8, description="pixels of the longer side, about; left out: what the models were trained on"
    )

    class In(Ports):
        image: Image
        model: Model["vae"]

    class Out(Ports):
        image: Image

    def run(self, x: In, ctx: Context) -> Out:
        from graphflow.nodes.lib.instruct_pix2pix import fit_for_edit

        return self.Out(image=fit_for_edit(x.image, self.resolution or x.model.native_size, 8 * x.model.factor))


class Denoise(BatchNode, kind="instruct.denoise", version=2):
    """Edit a picture as an instruction says (Brooks et al. 2023): two guidances, one by the text, one by the picture.

    A seed gives the picture that diffusers' pipeline gives for it. A model that reads a mask, as UltraEdit, edits
    inside it, and everywhere if it is left out.
    """

    num_inference_steps: int = Field(100, ge=1, le=999, description="sampling steps")
    guidance_scale: float = Field(7.5, ge=0, description="guidance by the instruction; higher edits more")
    image_guidance_scale: float = Field(1.5, ge=0, description="guidance by the picture; higher keeps more of it")
    sampler: Literal["auto", "euler_ancestral", "ddim"] = Field(
        "auto", description="auto: what the model was published with; ddim: noise at the beginning only"
    )
    seed: Seed = Field(0, description="of the noise: another seed, another edit")

    class In(Ports):
        image: Image
        cond: TextCondPort
        negative: TextCondPort
        mask: Mask | None = None
        vae: Model["vae"]
        model: Model["instruct_denoiser"]

    class Out(Ports):
        latents: Latents

    def run_many(self, xs: Sequence[In], ctx: Context) -> list[Out]:
        from graphflow.nodes.lib.batches import in_groups

        def alike(x: Denoise.In) -> tuple[object, ...]:
            return x.image.size, x.mask is None, x.cond.pooled is None, x.negative.pooled is None

        return in_groups(xs, alike, lambda group: self._edit(group, ctx))

    def _edit(self, xs: Sequence[In], ctx: Context) -> list[Out]:
        import torch

        from graphflow.nodes.lib.batches import stacked
        from graphflow.nodes.lib.instruct_pix2pix import instruct_sample

        model, ones = xs[0].model, [1] * len(xs)
        embeds = [stacked([text.embeds for text in texts], ones, ctx.device) for texts in _texts(xs)]
        pooled = [stacked([text.pooled for text in texts], ones, ctx.device) for texts in _texts(xs)]
        latents = instruct_sample(
            model,
            torch.cat([model.condition(x.vae, x.image, x.mask) for x in xs]).to(ctx.device),
            *embeds,
            [ctx.rng(self.seed) for _ in xs],  # each picture draws what it would draw alone
            self.num_inference_steps,
            pooled=None if None in pooled else tuple(pooled),
            guidance_scale=self.guidance_scale,
            image_guidance_scale=self.image_guidance_scale,
            sampler=self.sampler,
            steps=lambda numbers: ctx.steps(numbers, total=len(numbers), label="editing"),
            on_step=ctx.preview,
        )
        return [self.Out(latents=part) for part in latents.split(1)]


def _texts(xs: Sequence[Denoise.In]) -> tuple[list[TextCond], list[TextCond]]:
    """The instructions, and what stands for none."""
    return [x.cond for x in xs], [x.negative for x in xs]


class Hybrid(Node, kind="instruct.hybrid"):
    """A learned instruction and one in words together: VISII's hybrid instruction.

    The words' embeddings stand behind the end token of the learned ones.
    """

    class In(Ports):
        learned: TextCondPort
        end: int
        text: Text
        model: Model["text_encoder"]

    class Out(Ports):
        cond: TextCondPort

    def run(self, x: In, ctx: Context) -> Out:
        from graphflow.nodes.lib.visii import hybrid_instruction

        text = x.model.encode([x.text]).to(x.learned.embeds)
        cond, lost = hybrid_instruction(x.learned.embeds, x.end, text, x.model.end_of(x.text))
        if lost:
            ctx.log("warning: no room behind the learned instruction for the last %d tokens of '%s'", lost, x.text)
        return self.Out(cond=TextCond(cond))
