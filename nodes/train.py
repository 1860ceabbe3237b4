"""Training of the pocket models. Every hyper-parameter is a parameter here, so that a graph is the whole recipe.

A run that was killed goes on from its last checkpoint; `nodes/pocket/training` does the work and needs no engine.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Literal

from graphflow.node import Context, Field, Node, Ports
from graphflow.nodes.pocket.train_base import SPACE, OnPictures, Training, describe, runtime_of
from graphflow.ports import Image, Model, Table, Weights


class TrainAutoencoder(Training, kind="train.autoencoder"):
    """Train an AutoencoderKL on pictures of the pocket world, its latents normalised channel by channel."""

    channels: tuple[int, ...] = Field((16, 32, 64), description="width of each level; the side halves between levels")
    layers: int = Field(1, ge=1, description="residual blocks of a level")
    kl_weight: float = Field(5e-4, ge=0, description="weight of the Kullback-Leibler loss, a mean over the latents")

    class In(Ports):
        pass

    class Out(Ports):
        vae: Weights["vae"]

    def run(self, x: In, ctx: Context) -> Out:
        from graphflow.nodes.pocket.training.autoencoder import train_autoencoder

        out = ctx.folder()
        shape = {"channels": self.channels, "layers": self.layers, "kl_weight": self.kl_weight}
        train_autoencoder(out, self.words(), self.loop(ctx), **shape, **runtime_of(ctx, "autoencoder"))
        return self.Out(vae=describe(out, "vae", "diffusers.vae"))


class TrainLatents(OnPictures, kind="train.latents"):
    """Draw many scenes and keep their latents, so that the denoiser's training never waits for the autoencoder."""

    count: int = Field(ge=1, description="scenes, rounded up to a multiple of 512")
    scenes: Literal["single", "all"] = Field("all", description="single: one plain object; all: pairs, colours, hats")

    class In(Ports):
        vae: Model["vae"]

    class Out(Ports):
        latents: Weights["latents"]

    def run(self, x: In, ctx: Context) -> Out:
        from graphflow.nodes.pocket.training.latents import encode_scenes
        from graphflow.nodes.pocket.world import SINGLES, Mixture

        out, mixture = ctx.folder(), SINGLES if self.scenes == "single" else Mixture()
        runtime = runtime_of(ctx, f"latents of {self.scenes} scenes")
        numbers = {"count": self.count, "seed": self.seed, "workers": self.workers}
        encode_scenes(out, x.vae.model, self.words(), mixture, **numbers, **runtime)
        return self.Out(latents=out)


class TrainDenoiser(Training, kind="train.denoiser"):
    """Train a small Stable Diffusion, UNet and text encoder together: ε-prediction with min-SNR-5 weights."""

    channels: tuple[int, ...] = Field(description="width of each level; the first has no attention")
    layers: int = Field(1, ge=1, description="residual blocks of a level")
    heads: int = Field(4, ge=1, description="attention heads")
    text_width: int = Field(128, ge=32, multiple_of=32, description="width of the text encoder")
    text_layers: int = Field(2, ge=1, description="layers of the text encoder")
    simple_until: int = Field(ge=0, description="step up to which only single scenes are drawn")
    full_from: int = Field(ge=0, description="step from which only scenes of all sorts are drawn")
    drop_caption: float = Field(0.1, ge=0, le=1, description="share of empty captions, for guidance")
    drop_background: float = Field(0.1, ge=0, le=1, description="share of captions that leave the place open")

    class In(Ports):
        simple: Weights["latents"]
        full: Weights["latents"]

    class Out(Ports):
        denoiser: Weights["denoiser"]
        text_encoder: Weights["text_encoder"]

    def run(self, x: In, ctx: Context) -> Out:
        from graphflow.nodes.pocket.training.denoiser import Curriculum, Size, train_denoiser

        denoiser, text_encoder = ctx.folder(), ctx.folder()
        with tempfile.TemporaryDirectory(dir=denoiser.parent) as both:
            train_denoiser(
                Path(both),
                x.simple,
                x.full,
                self.loop(ctx),
                size=Size(self.channels, self.layers, self.heads, self.text_width, self.text_layers),
                curriculum=Curriculum(self.simple_until, self.full_from),
                drop_caption=self.drop_caption,
                drop_background=self.drop_background,
                **runtime_of(ctx, "denoiser"),
            )
            os.replace(Path(both) / "denoiser", denoiser)
            os.replace(Path(both) / "text_encoder", text_encoder)
        return self.Out(
            denoiser=describe(denoiser, "denoiser", "diffusers.unet"),
            text_encoder=describe(text_encoder, "text_encoder", "transformers.clip_text"),
        )


class TrainCLIP(Training, kind="train.clip"):
    """Train a CLIP on pictures and captions of the pocket world."""

    width: int = Field(128, ge=32, multiple_of=32, description="width of both towers and of the common space")
    patch: int = Field(8, ge=1, description="side of a patch in pixels")
    layers: int = Field(4, ge=1, description="layers of the image tower")
    text_layers: int = Field(2, ge=1, description="layers of the text tower")
    open_background: float = Field(0.15, ge=0, le=1, description="share of captions that leave the place open")

    class In(Ports):
        pass

    class Out(Ports):
        clip: Weights["clip"]

    def run(self, x: In, ctx: Context) -> Out:
        from graphflow.nodes.pocket.training.clip import train_clip

        out = ctx.folder()
        names = ("width", "patch", "layers", "text_layers", "open_background")
        shape = {name: getattr(self, name) for name in names}
        train_clip(out, self.words(), self.loop(ctx), **shape, **runtime_of(ctx, "clip"))
        return self.Out(clip=describe(out, "clip", "transformers.clip", space=f"{SPACE}-clip"))


class TrainCaptioner(Training, kind="train.captioner"):
    """Train a BLIP that writes the plain caption of a picture of the pocket world."""

    width: int = Field(128, ge=32, multiple_of=32, description="width of encoder and decoder")
    patch: int = Field(8, ge=1, description="side of a patch in pixels")
    layers: int = Field(4, ge=1, description="layers of the image encoder")
    text_layers: int = Field(2, ge=1, description="layers of the text decoder")

    class In(Ports):
        pass

    class Out(Ports):
        captioner: Weights["captioner"]

    def run(self, x: In, ctx: Context) -> Out:
        from graphflow.nodes.pocket.training.captioner import train_captioner

        out = ctx.folder()
        shape = {name: getattr(self, name) for name in ("width", "patch", "layers", "text_layers")}
        train_captioner(out, self.words(), self.loop(ctx), **shape, **runtime_of(ctx, "captioner"))
        return self.Out(captioner=describe(out, "captioner", "transformers.blip"))


class TrainCaptionWriter(Training, kind="train.caption_writer"):
    """Train a T5 that turns a caption and a request into captions before and after the edit."""

    width: int = Field(128, ge=32, multiple_of=32, description="width of the model")
    layers: int = Field(3, ge=1, description="layers of the encoder, and of the decoder")

    class In(Ports):
        pass

    class Out(Ports):
        llm: Weights["llm"]

    def run(self, x: In, ctx: Context) -> Out:
        from graphflow.nodes.pocket.training.caption_writer import train_caption_writer

        out, shape = ctx.folder(), {"width": self.width, "layers": self.layers}
        train_caption_writer(out, self.words(), self.loop(ctx), **shape, **runtime_of(ctx, "caption writer"))
        return self.Out(llm=describe(out, "llm", "transformers.seq2seq", template="edit_pair"))


class Gates(Node, kind="train.gates"):
    """Measure the pocket models on pictures that training never saw: a table with what is asked of each."""

    pictures: int = Field(200, ge=1, description="pictures for the autoencoder, CLIP and the captioner")
    prompts: int = Field(200, ge=1, description="prompts to paint and to judge")
    inversions: int = Field(40, ge=1, description="pictures to invert and to sample again")
    edits: int = Field(40, ge=1, description="edits for the floors")
    writer_edits: int = Field(150, ge=1, description="requests for the caption writer")
    num_inference_steps: int = Field(50, ge=1, le=999, description="sampling steps")
    guidance_scale: float = Field(4.0, ge=0, description="classifier-free guidance for the prompts")

    class In(Ports):
        vae: Model["vae"]
        denoiser: Model["denoiser"]
        text_encoder: Model["text_encoder"]
        clip: Model["clip"]
        captioner: Model["captioner"]
        llm: Model["llm"]

    class Out(Ports):
        table: Table
        autoencoder: Image
        prompts_sheet: Image
        inversion: Image
        edit_floors: Image

    def run(self, x: In, ctx: Context) -> Out:
        from graphflow.nodes.pocket.catalogue import POCKET_64
        from graphflow.nodes.pocket.gates import Counts, measure
        from graphflow.nodes.pocket.models import PocketModels

        models = PocketModels(x.vae, x.denoiser, x.text_encoder, x.clip, x.captioner, x.llm)
        counts = Counts(**self.model_dump())
        rows, sheets = measure(models, POCKET_64, counts, runtime_of(ctx, "gates")["steps"])
        sheets["prompts_sheet"] = sheets.pop("prompts")
        return self.Out(table=rows, **sheets)


# --- editing by example --------------------------------------------------------------------------------------------


class TrainEditLatents(OnPictures, kind="train.edit_latents"):
    """Draw many edits and keep the latents of both pictures, for the trainings that learn from pairs."""

    count: int = Field(ge=1, description="edits of all types, rounded up to a multiple of 512")

    class In(Ports):
        vae: Model["vae"]

    class Out(Ports):
        edits: Weights["edit_latents"]

    def run(self, x: In, ctx: Context) -> Out:
        from graphflow.nodes.pocket.training.edit_latents import encode_edits

        out, runtime = ctx.folder(), runtime_of(ctx, "latents of edits")
        numbers = {"count": self.count, "seed": self.seed, "workers": self.workers}
        encode_edits(out, x.vae.model, self.words(), **numbers, **runtime)
        return self.Out(edits=out)


class TrainInstructDenoiser(Training, kind="train.instruct_denoiser"):
    """Train an InstructPix2Pix denoiser from a text-to-image one: it also sees the latents of the picture to edit."""

    drop_text: float = Field(0.05, ge=0, le=1, description="share of samples without the request")
    drop_picture: float = Field(0.05, ge=0, le=1, description="share of samples without the picture")
    drop_both: float = Field(0.05, ge=0, le=1, description="share of samples without either")

    class In(Ports):
        edits: Weights["edit_latents"]
        denoiser: Model["denoiser"]
        text_encoder: Model["text_encoder"]

    class Out(Ports):
        denoiser: Weights["instruct_denoiser"]

    def run(self, x: In, ctx: Context) -> Out:
        from graphflow.nodes.pocket.training.instruct_denoiser import Dropout, train_instruct_denoiser

        out, dropout = ctx.folder(), Dropout(self.drop_text, self.drop_picture, self.drop_both)
        models = (x.denoiser, x.text_encoder)
        runtime = runtime_of(ctx, "instruct denoiser")
        train_instruct_denoiser(out, x.edits, *models, self.loop(ctx), dropout=dropout, **runtime)
        return self.Out(denoiser=describe(out, "instruct_denoiser", "diffusers.instruct_unet"))


class TrainIPAdapter(Training, kind="train.ip_adapter"):
    """Train an IP-Adapter on a frozen denoiser: four image tokens from the image embedding of CLIP."""

    drop_text: float = Field(0.4, ge=0, le=1, description="share of empty captions: the image tokens carry everything")
    drop_picture: float = Field(0.08, ge=0, le=1, description="share of zero embeddings, for guidance")
    mixed: float = Field(
        0.3, ge=0, le=1, description="share of embeddings that are mixes λ(E(x') - E(x)) + (1 - λ)E(y)"
    )
    mix_from: float = Field(0.5, ge=0, le=1, description="least λ of a mix")
    mix_to: float = Field(0.8, ge=0, le=1, description="largest λ of a mix")

    class In(Ports):
        edits: Weights["edit_latents"]
        denoiser: Model["denoiser"]
        text_encoder: Model["text_encoder"]
        clip: Model["clip"]

    class Out(Ports):
        adapter: Weights["ip_adapter"]

    def run(self, x: In, ctx: Context) -> Out:
        from graphflow.nodes.pocket.training.ip_adapter import Samples, train_ip_adapter

        out, models = ctx.folder(), (x.denoiser, x.text_encoder, x.clip)
        samples = Samples(self.drop_text, self.drop_picture, self.mixed, (self.mix_from, self.mix_to))
        runtime = runtime_of(ctx, "ip adapter")
        train_ip_adapter(out, x.edits, *models, self.loop(ctx), samples=samples, **runtime)
        return self.Out(adapter=describe(out, "ip_adapter", "ip_adapter"))


class TrainExemplarVLM(Training, kind="train.exemplar_vlm"):
    """Train the captioner further: it reads an edit off a pair of pictures, and captions a picture as it will be."""

    image_size: int = Field(80, ge=16, description="side of the square that a picture or a pair is stretched to")

    class In(Ports):
        captioner: Model["captioner"]

    class Out(Ports):
        vlm: Weights["vlm"]

    def run(self, x: In, ctx: Context) -> Out:
        from graphflow.nodes.pocket.training.exemplar_vlm import train_exemplar_vlm

        out, size, runtime = ctx.folder(), self.image_size, runtime_of(ctx, "exemplar vlm")
        train_exemplar_vlm(out, self.words(), x.captioner, self.loop(ctx), image_size=size, **runtime)
        return self.Out(vlm=describe(out, "vlm", "transformers.vlm"))


class ExemplarGates(Node, kind="train.exemplar_gates"):
    """Measure the pocket models for editing by example on pictures that training never saw, beside doing nothing."""

    edits: int = Field(70, ge=1, description="edits of the pocket benchmark to carry out as instructions")
    pictures: int = Field(70, ge=1, description="pictures to paint again from their image tokens alone")
    mixes: int = Field(56, ge=1, description="triples of the exemplar benchmark whose embeddings to mix")
    answers: int = Field(140, ge=1, description="pairs to ask the vision-language model about")
    num_inference_steps: int = Field(30, ge=1, le=999, description="sampling steps")
    guidance_scale: float = Field(5.0, ge=0, description="text guidance of the instructions")
    image_guidance_scale: float = Field(1.5, ge=0, description="image guidance of the instructions")
    image_prompt_guidance: float = Field(3.0, ge=0, description="guidance of the image prompts")
    edit_weight: float = Field(0.65, ge=0, le=1, description="λ of the mixes")

    class In(Ports):
        vae: Model["vae"]
        denoiser: Model["denoiser"]
        text_encoder: Model["text_encoder"]
        clip: Model["clip"]
        instruct_denoiser: Model["instruct_denoiser"]
        ip_adapter: Model["ip_adapter"]
        vlm: Model["vlm"]

    class Out(Ports):
        table: Table
        instructions: Image
        image_prompts: Image
        mixes: Image
        answers: Image

    def run(self, x: In, ctx: Context) -> Out:
        from graphflow.nodes.pocket.catalogue import POCKET_64
        from graphflow.nodes.pocket.exemplar_gates import ExemplarCounts, ExemplarModels, measure_exemplar

        models = ExemplarModels(x.vae, x.denoiser, x.text_encoder, x.clip, x.instruct_denoiser, x.ip_adapter, x.vlm)
        counts = ExemplarCounts(**self.model_dump())
        rows, sheets = measure_exemplar(models, POCKET_64, counts, runtime_of(ctx, "gates")["steps"])
        return self.Out(table=rows, **sheets)
