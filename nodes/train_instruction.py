"""Learning an instruction from pictures: words by PEZ, an embedding by VISII."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from graphflow.node import Context, Field, Node, Ports, Seed
from graphflow.ports import Image, Model, Table, Text, TextCond, TextCondPort


class HardPrompt(Node, kind="train_instruction.hard_prompt"):
    """Find words whose CLIP embedding is that of the pictures (PEZ, Wen et al. 2023); VISII begins with them.

    The words are seldom a sentence. A run that was killed goes on from its last checkpoint.
    """

    num_tokens: int = Field(10, ge=1, le=70, description="tokens of the prompt")
    num_steps: int = Field(3000, ge=1, description="optimiser steps")
    learning_rate: float = Field(0.1, gt=0, description="AdamW's")
    weight_decay: float = Field(0.1, ge=0, description="AdamW's")
    seed: Seed = Field(0, description="of the tokens at the beginning")

    class In(Ports):
        images: list[Image]
        model: Model["clip"]

    class Out(Ports):
        text: Text

    def run(self, x: In, ctx: Context) -> Out:
        from graphflow.nodes.lib.pez import optimise_prompt

        if not x.images:
            raise ValueError("there are no pictures to find words for")
        text, similarity = optimise_prompt(
            x.model,
            x.model.image(list(x.images)),
            ctx.rng(self.seed),
            self.num_tokens,
            self.num_steps,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            checkpoint=ctx.checkpoint,
            steps=_steps(ctx, "words"),
        )
        ctx.log("cosine %.3f: %s", similarity, text)
        return self.Out(text=text)


class Visii(Node, kind="train_instruction.visii"):
    """Learn the embedding of the instruction that turns the pictures before into those after (Nguyen et al. 2023).

    `end` is the position of the end token, which `instruct.hybrid` needs. The direction loss compares the embedding,
    in CLIP's joint space, with the change of the pictures; that has a meaning where the text encoder is the text tower
    of the CLIP, as with the preset instruct_pix2pix. A run that was killed goes on from its last checkpoint, and ends
    with the same numbers.
    """

    num_steps: int = Field(1000, ge=1, description="optimiser steps; 1000 take every timestep once")
    learning_rate: float = Field(1e-3, gt=0, description="AdamW's; the authors take its 8-bit form")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's")
    guidance_scale: float = Field(7.5, ge=0, description="guidance by the instruction, inside the loss")
    image_guidance_scale: float = Field(1.5, ge=0, description="guidance by the picture, inside the loss")
    mse_weight: float = Field(4.0, ge=0, description="weight of the error of the predicted noise")
    direction_weight: float = Field(0.1, ge=0, description="weight of the direction loss; 0 leaves it out")
    keep: Literal["lowest_mse", "last"] = Field(
        "lowest_mse", description="lowest_mse: the embedding of the step with the lowest noise error, as the authors"
    )
    seed: Seed = Field(0, description="of the noises and of the order of the timesteps")

    class In(Ports):
        before: list[Image]
        after: list[Image]
        prompt: Text
        vae: Model["vae"]
        text_encoder: Model["text_encoder"]
        clip: Model["clip"] | None = None
        model: Model["instruct_denoiser"]

    class Out(Ports):
        cond: TextCondPort
        end: int
        history: Table

    def run(self, x: In, ctx: Context) -> Out:
        from graphflow.nodes.lib.instruct_pix2pix import InstructDenoiser
        from graphflow.nodes.lib.visii import optimise_instruction

        if not isinstance(x.model, InstructDenoiser):
            raise ValueError("VISII learns with a denoiser that predicts noise; take one of InstructPix2Pix's kind")
        if len(x.before) != len(x.after):
            raise ValueError(f"{len(x.before)} pictures before and {len(x.after)} after; expected as many")
        cond, negative = (x.text_encoder.encode([text]).to(ctx.device) for text in (x.prompt, ""))
        end = x.text_encoder.end_of(x.prompt)
        learned = optimise_instruction(
            x.model,
            _pairs(x, ctx),
            cond,
            negative,
            end,
            ctx.rng(self.seed),
            self.num_steps,
            direction=_direction(x, cond, self.direction_weight) if self.direction_weight else None,
            guidance_scale=self.guidance_scale,
            image_guidance_scale=self.image_guidance_scale,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            mse_weight=self.mse_weight,
            keep_last=self.keep == "last",
            checkpoint=ctx.checkpoint,
            steps=_steps(ctx, "instruction"),
        )
        ctx.log("kept step %d of %d, noise error %.4f", learned.best, self.num_steps, learned.mse[learned.best, 0])
        rows = [
            {"step": number, "timestep": int(t), "mse": round(mse, 6), "direction": round(cos, 6)}
            for number, (t, (mse, cos)) in enumerate(zip(learned.timesteps, learned.mse.tolist(), strict=True))
        ]
        return self.Out(cond=TextCond(learned.cond), end=end, history=rows)


def _pairs(x: Any, ctx: Context) -> list[Any]:
    from graphflow.nodes.lib.vae import to_pixels
    from graphflow.nodes.lib.visii import Pair

    return [
        Pair(x.vae.encode_unscaled(to_pixels([before])).to(ctx.device), x.vae.encode(to_pixels([after])).to(ctx.device))
        for before, after in zip(x.before, x.after, strict=True)
    ]


def _direction(x: Any, cond_1LD: Any, weight: float) -> Any:
    from graphflow.nodes.lib.visii import Direction, edit_direction

    if x.clip is None:
        raise ValueError("the direction loss needs a clip; bind one, or set direction_weight to 0")
    width = x.clip.vocabulary()[0].shape[1]
    if width != cond_1LD.shape[-1]:
        raise ValueError(
            f"the direction loss projects text embeddings of width {cond_1LD.shape[-1]} with a CLIP of text width "
            f"{width}; bind the CLIP whose text tower the text encoder is, or set direction_weight to 0"
        )
    before, after = (x.clip.image(list(images)) for images in (x.before, x.after))
    return Direction(edit_direction(before, after), x.clip.project_text, weight)


def _steps(ctx: Context, label: str) -> Any:
    def steps(numbers: range) -> Iterable[int]:
        return ctx.steps(numbers, total=len(numbers), label=label)

    return steps
