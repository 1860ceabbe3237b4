"""The quality gates of the pocket models for editing by example, all on the held-out split.

    python -m graphflow.nodes.pocket.exemplar_gates --sheets out/

Shares are 0 to 1. What doing nothing scores stands beside what the models do.
"""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from graphflow.nodes.lib import int8
from graphflow.nodes.lib.clip import CLIP
from graphflow.nodes.lib.ddim import ddim_sample
from graphflow.nodes.lib.denoiser import Denoiser
from graphflow.nodes.lib.exemplar_prompts import CAPTION, DESCRIBE, INSTRUCT, caption_question, side_by_side
from graphflow.nodes.lib.instruct_pix2pix import InstructDenoiser, instruct_sample
from graphflow.nodes.lib.ip_adapter import ImagePrompt, IPAdapter
from graphflow.nodes.lib.reedit import exemplar_embedding
from graphflow.nodes.lib.taps import Taps
from graphflow.nodes.lib.text_encoder import TextEncoder
from graphflow.nodes.lib.vae import VAE
from graphflow.nodes.lib.vlm import ChatVLM

from . import benchmark
from .benchmark import edit_scores
from .captions import Description, describe, read
from .catalogue import Vocabulary, vocabulary_for
from .descriptions import description, request
from .exemplars import SIZES, ExemplarEntry, entries, sample_triple
from .gates import BATCH, SHOWN, Row, Sheets, command, decode, encode, held_out_scenes, judged, row
from .models import WEIGHTS, load_models
from .sheets import contact_sheet
from .world import Split, render


@dataclass(frozen=True)
class ExemplarModels:
    """One model of each role."""

    vae: VAE
    denoiser: Denoiser
    text_encoder: TextEncoder
    clip: CLIP
    instruct: InstructDenoiser
    adapter: IPAdapter
    vlm: ChatVLM


@dataclass(frozen=True)
class ExemplarCounts:
    """How much to measure."""

    edits: int = 70
    pictures: int = 200
    mixes: int = 56
    answers: int = 140
    num_inference_steps: int = 30
    guidance_scale: float = 5.0
    image_guidance_scale: float = 1.5
    image_prompt_guidance: float = 7.5
    edit_weight: float = 0.65


def measure_exemplar(
    models: ExemplarModels,
    words: Vocabulary | None = None,
    counts: ExemplarCounts = ExemplarCounts(),
    steps: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> tuple[list[Row], Sheets]:
    """Every gate in turn, and the contact sheets that show what the figures mean.

    `words` is what the pictures show; None: what models for pictures of this size were trained on.
    """
    words = words or vocabulary_for(models.vae.native_size)
    gates = (instruct, image_prompts, mixes, answers)
    rows: list[Row] = []
    sheets: Sheets = {}
    for number in steps(range(len(gates))):
        found, pictures = gates[number](models, words, counts)
        rows += found
        sheets |= pictures
    return rows, sheets


# --- the gates ------------------------------------------------------------------------------------------------------


def instruct(models: ExemplarModels, words: Vocabulary, counts: ExemplarCounts) -> tuple[list[Row], Sheets]:
    """How often the instruction is done, on the first edits of the pocket benchmark, beside doing nothing."""
    chosen = benchmark.entries(benchmark.version_for(words.size, benchmark.SIZES))[: counts.edits]
    sources, asked = [e.before for e in chosen], [e.edit.instruction for e in chosen]
    edited = carry_out(models, sources, asked, counts)
    rows = []
    for name, pictures, bars in (("instructions", edited, (0.6, 0.7)), ("do nothing", sources, (None, None))):
        scores = [edit_scores(picture, e.name, models.clip) for picture, e in zip(pictures, chosen, strict=True)]
        for key, bar in zip(("truth_success", "clip_success"), bars, strict=True):
            rows.append(row(f"{name}: {key}", float(np.mean([s[key] for s in scores])), bar))
        outside = [s["psnr_outside"] for s in scores if "psnr_outside" in s]
        rows.append(row(f"{name}: PSNR outside the edit, dB", float(np.mean(outside)) if outside else float("nan")))
    trios = zip(sources[:32], edited[:32], (e.after for e in chosen[:32]), strict=True)
    labels = [text for request_ in asked[:32] for text in (request_, "edited", "truth")]
    return rows, {"instructions": contact_sheet([p for trio in trios for p in trio], 12, labels, side=96)}


def image_prompts(models: ExemplarModels, words: Vocabulary, counts: ExemplarCounts) -> tuple[list[Row], Sheets]:
    """Whether a picture comes back from its image tokens alone, in the eyes of CLIP."""
    scenes = held_out_scenes("image prompts", words, counts.pictures, SHOWN)
    pictures = [render(scene, words.size) for scene in scenes]
    embeds_BE = models.clip.image(pictures)
    painted = paint_from(models, embeds_BE, [""] * len(scenes), counts)
    right = judged(models, words, [describe(scene) for scene in scenes], painted)
    bars = {"object": 0.8, "background": 0.8, "style": 0.9}
    rows = [row(f"image tokens alone: {field}", share, bars.get(field)) for field, share in right.items()]
    pairs = [p for pair in zip(pictures[:36], painted[:36], strict=True) for p in pair]
    return rows, {"image_prompts": contact_sheet(pairs, 12, side=96)}


def mixes(models: ExemplarModels, words: Vocabulary, counts: ExemplarCounts) -> tuple[list[Row], Sheets]:
    """Whether λ(E(x') - E(x)) + (1 - λ)E(y) shows the edit of the exemplar on y: what CLIP prefers."""
    chosen = entries(benchmark.version_for(words.size, SIZES))[: counts.mixes]
    clip = models.clip
    before_BE, after_BE, image_BE = (
        clip.image(pictures)
        for pictures in (
            [e.exemplar_before for e in chosen],
            [e.exemplar_after for e in chosen],
            [e.before for e in chosen],
        )
    )
    mixed_BE = exemplar_embedding(before_BE, after_BE, image_BE, counts.edit_weight)
    painted = paint_from(models, mixed_BE, [""] * len(chosen), counts)
    floor = paint_from(models, image_BE, [""] * len(chosen), counts)
    rows = [
        row("mix of embeddings: edit shown", _shown(painted, chosen, clip), 0.5),
        row("the picture's own embedding: edit shown", _shown(floor, chosen, clip)),
    ]
    columns = [(e.exemplar_before, e.exemplar_after, e.before, p) for e, p in zip(chosen, painted, strict=True)]
    return rows, {"mixes": contact_sheet([p for four in columns[:27] for p in four], 12, side=96)}


def answers(models: ExemplarModels, words: Vocabulary, counts: ExemplarCounts) -> tuple[list[Row], Sheets]:
    """Whether the vision-language model reads edits off pairs, and captions pictures as they will be."""
    rng = random.Random("answers")
    right: dict[str, list[bool]] = {"description": [], "command": [], "caption": [], "caption, by its own words": []}
    kinds: dict[str, list[bool]] = {kind: [] for kind in benchmark.TYPES}
    shown, labels = [], []
    for number in range(counts.answers):
        triple = sample_triple(rng, words, Split.HELD_OUT, benchmark.TYPES[number % len(benchmark.TYPES)])
        pair = side_by_side(render(triple.exemplar.before, words.size), render(triple.exemplar.after, words.size))
        y = render(triple.edit.before, words.size)
        told, said = models.vlm.ask([pair], DESCRIBE), models.vlm.ask([pair], INSTRUCT)
        wanted = describe(triple.edit.after)
        right["description"].append(same_words(told, description(triple.exemplar)))
        right["command"].append(same_words(said, request(triple.exemplar)))
        for name, edit in (("caption", description(triple.exemplar)), ("caption, by its own words", told)):
            right[name].append(_says(models.vlm.ask([y], caption_question(CAPTION, edit)), wanted))
        kinds[triple.edit.kind].append(right["description"][-1])
        shown, labels = [*shown, pair], [*labels, told]
    bars = {"description": 0.8, "command": 0.8, "caption": 0.7}
    rows = [row(f"answers: {name}", float(np.mean(values)), bars.get(name)) for name, values in right.items()]
    rows += [row(f"answers: description of '{k}'", float(np.mean(v))) for k, v in kinds.items() if v]
    return rows, {"answers": contact_sheet(shown[:35], 7, labels[:35])}


# --- helpers --------------------------------------------------------------------------------------------------------


def carry_out(
    models: ExemplarModels, sources: list[Image.Image], asked: list[str], counts: ExemplarCounts
) -> list[Image.Image]:
    """The pictures edited as the instructions say."""
    empty_BLD, edited = models.text_encoder.encode([""]), []
    for start in range(0, len(sources), BATCH):
        part = slice(start, start + BATCH)
        z_BChw = instruct_sample(
            models.instruct,
            encode(models, sources[part]),
            models.text_encoder.encode(asked[part]),
            empty_BLD,
            torch.Generator().manual_seed(start),
            counts.num_inference_steps,
            guidance_scale=counts.guidance_scale,
            image_guidance_scale=counts.image_guidance_scale,
        )
        edited += decode(models, z_BChw)
    return edited


def paint_from(
    models: ExemplarModels, embeds_BE: Tensor, texts: list[str], counts: ExemplarCounts
) -> list[Image.Image]:
    """Pictures from image embeddings and captions by DDIM sampling with classifier-free guidance."""
    side = models.vae.native_size // models.vae.factor
    empty_BLD, pictures = models.text_encoder.encode([""]), []
    for start in range(0, len(texts), BATCH):
        part_BE = embeds_BE[start : start + BATCH]
        shape = (len(part_BE), models.denoiser.unet.config.in_channels, side, side)
        noise_BChw = torch.randn(shape, generator=torch.Generator().manual_seed(start))
        noise_BChw = noise_BChw.to(models.denoiser.unet.device)
        cond_BLD = models.text_encoder.encode(texts[start : start + BATCH])
        prompted = PicturePrompted(models.denoiser, ImagePrompt(models.adapter, part_BE))
        z_BChw = ddim_sample(
            prompted,
            noise_BChw,
            cond_BLD,
            counts.num_inference_steps,
            guidance_scale=counts.image_prompt_guidance,
            negative_BLD=empty_BLD,
        )
        pictures += decode(models, z_BChw)
    return pictures


class PicturePrompted(Denoiser):
    """A denoiser under an image prompt: of its rows the first half is negative, the second half conditional."""

    def __init__(self, denoiser: Denoiser, prompt: ImagePrompt) -> None:
        vars(self).update(vars(denoiser))
        self._taps, self._prompt = Taps(denoiser.unet), prompt

    def predict(self, latents_BChw: Tensor, timestep: int, embeds_BLD: Tensor) -> Tensor:
        """See `Denoiser.predict`."""
        edits = self._prompt.edits(self._taps, len(latents_BChw) // 2, 0, 2)
        with self._taps.replace(edits):
            return super().predict(latents_BChw, timestep, embeds_BLD)


def same_words(said: str, expected: str) -> bool:
    """Whether both say the same but for capitals, spaces and the full stop."""
    return " ".join(said.lower().rstrip(". ").split()) == " ".join(expected.lower().rstrip(". ").split())


def _says(caption: str, wanted: Description) -> bool:
    return wanted.same_as(read(caption))


def _shown(pictures: list[Image.Image], chosen: list[ExemplarEntry], clip: object) -> float:
    right = [benchmark.clip_prefers_edit(p, e.edit, clip) for p, e in zip(pictures, chosen, strict=True)]
    return float(np.mean(right))


def load_exemplar_models(folder: Path = WEIGHTS) -> ExemplarModels:
    """The models in the sub-folders of `folder`, in float32 on the CPU."""
    from diffusers import DDIMScheduler, UNet2DConditionModel
    from transformers import AutoModelForImageTextToText, AutoProcessor

    unet, adapter, vlm = (folder / name for name in ("instruct_denoiser", "ip_adapter", "vlm"))
    network = int8.from_pretrained(UNet2DConditionModel, unet, torch_dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(vlm, backend="pil")
    processor.chat_template = processor.tokenizer.chat_template  # BLIP's processor leaves it there
    pocket = load_models(folder)
    return ExemplarModels(
        *(pocket.vae, pocket.denoiser, pocket.text_encoder, pocket.clip),
        InstructDenoiser(network, DDIMScheduler.load_config(unet)),
        IPAdapter.from_tensors({k: v.float() for k, v in int8.read(adapter / "ip_adapter.safetensors").items()}),
        ChatVLM(
            int8.from_pretrained(AutoModelForImageTextToText, vlm, dtype=torch.float32),
            processor,
        ),
    )


if __name__ == "__main__":
    command(__doc__, lambda folder: measure_exemplar(load_exemplar_models(folder)))
