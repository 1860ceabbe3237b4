"""Training of the pocket models that edit by instruction and by example, and their gates."""

from __future__ import annotations

from graphflow.node import Context, Field, Node, Ports
from graphflow.nodes.pocket.train_base import OnPictures, Training, runtime_of
from graphflow.ports import Image, Model, Table, Weights


class TrainEditLatents(OnPictures, kind="train_exemplar.latents"):
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


class TrainInstructDenoiser(Training, kind="train_exemplar.instruct_denoiser"):
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
        return self.Out(denoiser=self.result(out, "instruct_denoiser", "diffusers.instruct_unet"))


class TrainIPAdapter(Training, kind="train_exemplar.ip_adapter", version=2):
    """Train an IP-Adapter on a frozen denoiser: four image tokens from the image embedding of CLIP."""

    drop_text: float = Field(0.4, ge=0, le=1, description="share of empty captions: the image tokens carry everything")
    drop_picture: float = Field(0.08, ge=0, le=1, description="share of zero embeddings, for guidance")
    mixed: float = Field(
        0.3, ge=0, le=1, description="share of embeddings that are mixes λ(E(x') - E(x)) + (1 - λ)E(y)"
    )
    mix_from: float = Field(0.5, ge=0, le=1, description="least λ of a mix")
    mix_to: float = Field(0.8, ge=0, le=1, description="largest λ of a mix")
    taught: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the target that the denoiser predicts from the caption; the rest is noise",
    )

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
        samples = Samples(self.drop_text, self.drop_picture, self.mixed, (self.mix_from, self.mix_to), self.taught)
        runtime = runtime_of(ctx, "ip adapter")
        train_ip_adapter(out, x.edits, *models, self.loop(ctx), samples=samples, **runtime)
        return self.Out(adapter=self.result(out, "ip_adapter", "ip_adapter"))


class TrainExemplarVLM(Training, kind="train_exemplar.vlm"):
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
        return self.Out(vlm=self.result(out, "vlm", "transformers.vlm"))


class ExemplarGates(Node, kind="train_exemplar.gates"):
    """Measure the pocket models for editing by example on pictures that training never saw, beside doing nothing."""

    edits: int = Field(70, ge=1, description="edits of the pocket benchmark to carry out as instructions")
    pictures: int = Field(200, ge=1, description="pictures to paint again from their image tokens alone")
    mixes: int = Field(56, ge=1, description="triples of the exemplar benchmark whose embeddings to mix")
    answers: int = Field(140, ge=1, description="pairs to ask the vision-language model about")
    num_inference_steps: int = Field(30, ge=1, le=999, description="sampling steps")
    guidance_scale: float = Field(5.0, ge=0, description="text guidance of the instructions")
    image_guidance_scale: float = Field(1.5, ge=0, description="image guidance of the instructions")
    image_prompt_guidance: float = Field(7.5, ge=0, description="guidance of the image prompts")
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
        from graphflow.nodes.pocket.catalogue import vocabulary_for
        from graphflow.nodes.pocket.exemplar_gates import ExemplarCounts, ExemplarModels, measure_exemplar

        models = ExemplarModels(x.vae, x.denoiser, x.text_encoder, x.clip, x.instruct_denoiser, x.ip_adapter, x.vlm)
        counts = ExemplarCounts(**self.model_dump())
        words = vocabulary_for(x.vae.native_size)
        rows, sheets = measure_exemplar(models, words, counts, runtime_of(ctx, "gates")["steps"])
        return self.Out(table=rows, **sheets)
