"""Training of the pocket models. Every hyper-parameter is a parameter here, so that a graph is the whole recipe.

A run that was killed goes on from its last checkpoint; `nodes/pocket/training` does the work and needs no engine.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Literal

from graphflow.node import Context, Field, Node, Ports
from graphflow.nodes.pocket.train_base import SPACE, OnPictures, Training, runtime_of
from graphflow.ports import Image, Model, Table, Weights


class TrainAutoencoder(Training, kind="train.autoencoder", version=3):
    """Train an AutoencoderKL on pictures of the pocket world, its latents normalised channel by channel.

    It begins as `start` if there is one, which may be narrower by whole factors, may have fewer latent channels, and
    may lack the outermost level: one for pictures half as large, whose latents the new one begins with. Otherwise it
    begins with random weights.
    """

    channels: tuple[int, ...] = Field((16, 32, 64), description="width of each level; the side halves between levels")
    layers: int = Field(1, ge=1, description="residual blocks of a level")
    latent_channels: int = Field(4, ge=1, description="channels of the latents; no fewer than those of `start`")
    kl_weight: float = Field(5e-4, ge=0, description="weight of the Kullback-Leibler loss, a mean over the latents")
    decoder_only: bool = Field(False, description="leave the encoder, and so the latents, as at the start, stored too")

    class In(Ports):
        start: Model["vae"] | None = None

    class Out(Ports):
        vae: Weights["vae"]

    def run(self, x: In, ctx: Context) -> Out:
        from graphflow.nodes.pocket.training.autoencoder import train_autoencoder

        out = ctx.folder()
        if self.decoder_only and x.start is None:
            raise ValueError("decoder_only needs an autoencoder to start from: connect 'start' or bind the role vae")
        names = ("channels", "layers", "latent_channels", "kl_weight", "decoder_only")
        how = {name: getattr(self, name) for name in names}
        how["start"] = x.start and x.start.model
        train_autoencoder(out, self.words(), self.loop(ctx), **how, **runtime_of(ctx, "autoencoder"))
        leave = ("encoder.", "quant_conv.") if self.decoder_only else ()
        return self.Out(vae=self.result(out, "vae", "diffusers.vae", leave=leave))


class TrainLatents(OnPictures, kind="train.latents"):
    """Draw many scenes and keep their latents, so that the denoiser's training never waits for the autoencoder."""

    count: int = Field(ge=1, description="scenes, rounded up to a multiple of 512")
    scenes: Literal["single", "all", "rare"] = Field(
        "all", description="single: one plain object; all: pairs, colours, hats; rare: most painted or in a style"
    )

    class In(Ports):
        vae: Model["vae"]

    class Out(Ports):
        latents: Weights["latents"]

    def run(self, x: In, ctx: Context) -> Out:
        from graphflow.nodes.pocket.training.latents import encode_scenes
        from graphflow.nodes.pocket.world import RARE, SINGLES, Mixture

        out, mixture = ctx.folder(), {"single": SINGLES, "all": Mixture(), "rare": RARE}[self.scenes]
        runtime = runtime_of(ctx, f"latents of {self.scenes} scenes")
        numbers = {"count": self.count, "seed": self.seed, "workers": self.workers}
        encode_scenes(out, x.vae.model, self.words(), mixture, **numbers, **runtime)
        return self.Out(latents=out)


class TrainDenoiser(Training, kind="train.denoiser", version=2):
    """Train a small Stable Diffusion, UNet and text encoder together: ε-prediction with min-SNR-5 weights.

    Where `denoiser` or `text_encoder` is given, of the same widths, that one begins as it is; otherwise at random.
    """

    channels: tuple[int, ...] = Field(description="width of each level; the first has no attention")
    layers: int = Field(1, ge=1, description="residual blocks of a level")
    heads: int = Field(4, ge=1, description="attention heads")
    text_width: int = Field(128, ge=32, multiple_of=32, description="width of the text encoder")
    text_layers: int = Field(2, ge=1, description="layers of the text encoder")
    simple_until: int = Field(ge=0, description="step up to which only scenes of `simple` are drawn")
    full_from: int = Field(ge=0, description="step from which only scenes of `full` are drawn")
    drop_caption: float = Field(0.1, ge=0, le=1, description="share of empty captions, for guidance")
    drop_background: float = Field(0.1, ge=0, le=1, description="share of captions that leave the place open")
    train_text_encoder: bool = Field(True, description="false: that of the port stays as it is")

    class In(Ports):
        simple: Weights["latents"]
        full: Weights["latents"]
        denoiser: Model["denoiser"] | None = None
        text_encoder: Model["text_encoder"] | None = None

    class Out(Ports):
        denoiser: Weights["denoiser"]
        text_encoder: Weights["text_encoder"]

    def run(self, x: In, ctx: Context) -> Out:
        from graphflow.nodes.pocket.training.denoiser import Curriculum, Size, Start, train_denoiser

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
                start=Start(x.denoiser and x.denoiser.unet, x.text_encoder and x.text_encoder.model),
                train_text_encoder=self.train_text_encoder,
                **runtime_of(ctx, "denoiser"),
            )
            os.replace(Path(both) / "denoiser", denoiser)
            os.replace(Path(both) / "text_encoder", text_encoder)
        return self.Out(
            denoiser=self.result(denoiser, "denoiser", "diffusers.unet"),
            text_encoder=self.result(text_encoder, "text_encoder", "transformers.clip_text"),
        )


class TrainCLIP(Training, kind="train.clip", version=2):
    """Train a CLIP on pictures and captions of the pocket world.

    It begins as `start` if there is one, of the same shape but for smaller patches, or at random.
    """

    width: int = Field(128, ge=32, multiple_of=32, description="width of both towers and of the common space")
    patch: int = Field(8, ge=1, description="side of a patch in pixels")
    layers: int = Field(4, ge=1, description="layers of the image tower")
    text_layers: int = Field(2, ge=1, description="layers of the text tower")
    open_background: float = Field(0.15, ge=0, le=1, description="share of captions that leave the place open")

    class In(Ports):
        start: Model["clip"] | None = None

    class Out(Ports):
        clip: Weights["clip"]

    def run(self, x: In, ctx: Context) -> Out:
        from graphflow.nodes.pocket.training.clip import train_clip

        out = ctx.folder()
        names = ("width", "patch", "layers", "text_layers", "open_background")
        shape = {name: getattr(self, name) for name in names}
        start = x.start and x.start.model
        train_clip(out, self.words(), self.loop(ctx), start=start, **shape, **runtime_of(ctx, "clip"))
        return self.Out(clip=self.result(out, "clip", "transformers.clip", space=f"{SPACE}-clip"))


class TrainCaptioner(Training, kind="train.captioner", version=2):
    """Train a BLIP that writes the plain caption of a picture of the pocket world.

    It begins as `start` if there is one, of the same shape but for smaller patches, or at random.
    """

    width: int = Field(128, ge=32, multiple_of=32, description="width of encoder and decoder")
    patch: int = Field(8, ge=1, description="side of a patch in pixels")
    layers: int = Field(4, ge=1, description="layers of the image encoder")
    text_layers: int = Field(2, ge=1, description="layers of the text decoder")

    class In(Ports):
        start: Model["captioner"] | None = None

    class Out(Ports):
        captioner: Weights["captioner"]

    def run(self, x: In, ctx: Context) -> Out:
        from graphflow.nodes.pocket.training.captioner import train_captioner

        out = ctx.folder()
        shape = {name: getattr(self, name) for name in ("width", "patch", "layers", "text_layers")}
        start = x.start and x.start.model
        train_captioner(out, self.words(), self.loop(ctx), start=start, **shape, **runtime_of(ctx, "captioner"))
        return self.Out(captioner=self.result(out, "captioner", "transformers.blip"))


class TrainCaptionWriter(Training, kind="train.caption_writer", version=2):
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
        return self.Out(llm=self.result(out, "llm", "transformers.seq2seq", template="edit_pair"))


class Gates(Node, kind="train.gates", version=2):
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
        from graphflow.nodes.pocket.catalogue import vocabulary_for
        from graphflow.nodes.pocket.gates import Counts, measure
        from graphflow.nodes.pocket.models import PocketModels

        models = PocketModels(x.vae, x.denoiser, x.text_encoder, x.clip, x.captioner, x.llm)
        counts = Counts(**self.model_dump())
        rows, sheets = measure(models, vocabulary_for(x.vae.native_size), counts, runtime_of(ctx, "gates")["steps"])
        sheets["prompts_sheet"] = sheets.pop("prompts")
        return self.Out(table=rows, **sheets)
