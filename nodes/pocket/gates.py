"""The quality gates of the pocket models, all on the held-out split: what was measured beside what is asked.

    python -m graphflow.nodes.pocket.gates --sheets out/

Lengths of a hue are degrees; PSNR is in dB of pixels in [0, 255]; shares are 0 to 1.
"""

import argparse
import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from graphflow.nodes.lib.ddim import ddim_inversion, ddim_sample
from graphflow.nodes.lib.vae import to_images, to_pixels

from .captions import Description, Thing, caption, describe, phrase, read
from .catalogue import BACKGROUNDS, STYLES, Vocabulary, vocabulary_for
from .edits import Edit, edit_mask, sample_edit
from .models import WEIGHTS, PocketModels, load_models
from .sheets import contact_sheet
from .world import Mixture, Scene, Split, colours_of, render, sample_scene

SHOWN = Mixture(empty=0.0, pair=0.12, colour=0.3, accessory=0.2)
LOCAL_EDITS = ("replace", "replace", "recolour", "accessory")
BATCH = 50


@dataclass(frozen=True)
class Counts:
    """How much to measure."""

    pictures: int = 200
    prompts: int = 200
    inversions: int = 40
    edits: int = 40
    writer_edits: int = 150
    num_inference_steps: int = 50
    guidance_scale: float = 4.0


Row = dict[str, object]
Sheets = dict[str, Image.Image]


def row(gate: str, measured: float, bar: float | None = None, at_most: bool = False) -> Row:
    """A line of the table. Without a bar it is a floor or a figure that others are read against."""
    passed = None if bar is None else bool(measured <= bar if at_most else measured >= bar)
    asked = "" if bar is None else f"{'≤' if at_most else '≥'} {bar:g}"
    return {"gate": gate, "measured": round(float(measured), 3), "bar": asked, "pass": passed}


def measure(
    models: PocketModels,
    words: Vocabulary | None = None,
    counts: Counts = Counts(),
    steps: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> tuple[list[Row], Sheets]:
    """Every gate in turn, and the contact sheets that show what the figures mean.

    `words` is what the pictures show; None: what models for pictures of this size were trained on.
    """
    words = words or vocabulary_for(models.vae.native_size)
    gates = (autoencoder, judge, prompts, inversion, captioner, caption_writer, edit_floors)
    rows: list[Row] = []
    sheets: Sheets = {}
    for number in steps(range(len(gates))):
        found, pictures = gates[number](models, words, counts)
        rows += found
        sheets |= pictures
    return rows, sheets


# --- the gates ------------------------------------------------------------------------------------------------------


def autoencoder(models: PocketModels, words: Vocabulary, counts: Counts) -> tuple[list[Row], Sheets]:
    """How well pictures survive encoding and decoding."""
    scenes = held_out_scenes("vae", words, counts.pictures, Mixture())
    pictures = [render(scene, words.size) for scene in scenes]
    decoded = decode(models, encode(models, pictures))
    values = [psnr(a, b) for a, b in zip(pictures, decoded, strict=True)]
    hue = [hue_error(a, b) for a, b in zip(pictures, decoded, strict=True)]
    sheet = contact_sheet([p for pair in zip(pictures[:24], decoded[:24], strict=True) for p in pair], columns=8)
    rows = [
        row("autoencoder: PSNR, dB", float(np.mean(values)), 30.0),
        row("autoencoder: hue error, degrees", float(np.nanmean(hue)), 6.0, at_most=True),
    ]
    return rows, {"autoencoder": sheet}


def judge(models: PocketModels, words: Vocabulary, counts: Counts) -> tuple[list[Row], Sheets]:
    """Whether CLIP, which judges the prompts below, tells real pictures apart."""
    scenes = held_out_scenes("judge", words, counts.pictures, SHOWN)
    right = judged(models, words, [describe(s) for s in scenes], [render(s, words.size) for s in scenes])
    return [row(f"CLIP on real pictures: {field}", share, 0.95) for field, share in right.items()], {}


def prompts(models: PocketModels, words: Vocabulary, counts: Counts) -> tuple[list[Row], Sheets]:
    """Whether pictures made from prompts show what the prompts say, in the eyes of CLIP and of the captioner."""
    scenes = held_out_scenes("prompts", words, counts.prompts, SHOWN)
    said = [describe(scene) for scene in scenes]
    texts = [phrase(description) for description in said]
    pictures = paint(models, texts, seed=0, counts=counts)
    rows = [row(f"prompt → picture: {f}", share, 0.9) for f, share in judged(models, words, said, pictures).items()]
    agreed = [d.same_as(seen(models, picture)) for d, picture in zip(said, pictures, strict=True)]
    rows.append(row("prompt → picture: captioner reads the whole prompt", float(np.mean(agreed))))
    return rows, {"prompts": contact_sheet(pictures[:48], columns=8, labels=texts[:48])}


def inversion(models: PocketModels, words: Vocabulary, counts: Counts) -> tuple[list[Row], Sheets]:
    """DDIM inversion and sampling again, guidance 1, against what the autoencoder alone gives back."""
    scenes = held_out_scenes("inversion", words, counts.inversions, SHOWN)
    z_BChw = encode(models, [render(scene, words.size) for scene in scenes])
    cond_BLD = models.text_encoder.encode([caption(scene) for scene in scenes])
    noise_BChw = invert(models, z_BChw, cond_BLD, counts)
    again_BChw = ddim_sample(models.denoiser, noise_BChw, cond_BLD, counts.num_inference_steps)
    before, after = decode(models, z_BChw), decode(models, again_BChw)
    value = float(np.mean([psnr(a, b) for a, b in zip(before, after, strict=True)]))
    sheet = contact_sheet([p for pair in zip(before[:16], after[:16], strict=True) for p in pair], columns=8)
    return [row("inversion replay: PSNR, dB", value, 35.0)], {"inversion": sheet}


def captioner(models: PocketModels, words: Vocabulary, counts: Counts) -> tuple[list[Row], Sheets]:
    """Whether the captioner gets every field of a scene right."""
    right: dict[str, list[bool]] = {"objects": [], "colours": [], "accessories": [], "background": [], "style": []}
    for scene in held_out_scenes("captioner", words, counts.pictures, SHOWN):
        truth, said = describe(scene), seen(models, render(scene, words.size))
        fields = zip(right.values(), _fields(truth), _fields(said) if said else itertools.repeat(None), strict=False)
        for answers, asked, answered in fields:
            answers.append(asked == answered)
    return [row(f"captioner: {field}", float(np.mean(answers)), 0.95) for field, answers in right.items()], {}


def _fields(description: Description) -> tuple[object, ...]:
    things = description.things
    by_field = [tuple(getattr(t, name) for t in things) for name in ("kind", "colour", "accessory")]
    return (*by_field, description.background, description.style)


def caption_writer(models: PocketModels, words: Vocabulary, counts: Counts) -> tuple[list[Row], Sheets]:
    """Whether both captions mean what they should, on edits with a combination that training never saw."""
    rng = random.Random("writer")
    right: dict[str, list[bool]] = {"likeliest answer": [], "sampled answers": []}
    for _ in range(counts.writer_edits):
        edit = next(e for _ in iter(int, 1) if (e := sample_edit(rng, words, Split.HELD_OUT)).unseen())
        prompt = f"caption: {caption(edit.before)} instruction: {edit.instruction}"
        for name, temperature in zip(right, (0.0, 1.0), strict=True):
            answer = models.caption_writer.complete(prompt, seed=len(right[name]), temperature=temperature)[0]
            before, _, after = answer.removeprefix("before: ").partition(" after: ")
            fits = (describe(edit.before).same_as(read(before)), describe(edit.after).same_as(read(after)))
            right[name].append(all(fits))
    bars = (0.97, 0.95)
    rows = [
        row(f"caption writer: {n}", float(np.mean(v)), bar) for (n, v), bar in zip(right.items(), bars, strict=True)
    ]
    return rows, {}


def edit_floors(models: PocketModels, words: Vocabulary, counts: Counts) -> tuple[list[Row], Sheets]:
    """What an editing method has to beat on fixed edits: doing nothing, and swapping the prompt after inversion."""
    edits = fixed_edits(words, counts.edits)
    before = [render(edit.before, words.size) for edit in edits]
    after = [render(edit.after, words.size) for edit in edits]
    masks = [np.asarray(edit_mask(edit, words.size)) > 0 for edit in edits]
    source_BLD, target_BLD = (
        models.text_encoder.encode([caption(scene) for scene in scenes])
        for scenes in ([edit.before for edit in edits], [edit.after for edit in edits])
    )
    noise_BChw = invert(models, encode(models, before), source_BLD, counts)
    swapped = decode(models, ddim_sample(models.denoiser, noise_BChw, target_BLD, counts.num_inference_steps))
    rows = []
    for name, results in (("do nothing", before), ("prompt swap", swapped)):
        for region, keep in (("background", False), ("object", True)):
            values = [psnr(a, b, m == keep) for a, b, m in zip(results, after, masks, strict=True)]
            rows.append(row(f"{name}: {region} PSNR, dB", float(np.mean(values))))
    shown = [p for trio in zip(before[:16], swapped[:16], after[:16], strict=True) for p in trio]
    return rows, {"edit_floors": contact_sheet(shown, columns=12)}


# --- helpers --------------------------------------------------------------------------------------------------------


def held_out_scenes(seed: str, words: Vocabulary, count: int, mixture: Mixture) -> list[Scene]:
    """The same scenes at every call with the same arguments."""
    rng = random.Random(seed)
    return [sample_scene(rng, words, Split.HELD_OUT, mixture) for _ in range(count)]


def fixed_edits(words: Vocabulary, count: int) -> list[Edit]:
    """Edits of a single object, half of them replacements."""
    rng = random.Random("edits")
    kinds = itertools.islice(itertools.cycle(LOCAL_EDITS), count)
    return [sample_edit(rng, words, Split.HELD_OUT, kind) for kind in kinds]


def judged(
    models: PocketModels, words: Vocabulary, said: Sequence[Description], pictures: Sequence[Image.Image]
) -> dict[str, float]:
    """Share of the pictures for which CLIP prefers the true caption to all that differ from it in one field."""
    image_BD = torch.nn.functional.normalize(models.clip.image(list(pictures)), dim=-1)
    right: dict[str, list[bool]] = {"object": [], "colour": [], "background": [], "style": []}
    for description, image_D in zip(said, image_BD, strict=True):
        for field, others in alternatives(description, words).items():
            text_BD = models.clip.text([phrase(d) for d in (description, *others)])
            scores = torch.nn.functional.normalize(text_BD, dim=-1) @ image_D
            right[field].append(int(scores.argmax()) == 0)
    return {field: float(np.mean(answers)) for field, answers in right.items() if answers}


def alternatives(truth: Description, words: Vocabulary) -> dict[str, list[Description]]:
    """For each field the descriptions that differ from `truth` in it alone; the first object stands for all."""
    coloured = STYLES[truth.style].shows_colour
    first, rest = truth.things[0], truth.things[1:]

    def with_first(thing: Thing) -> Description:
        return replace(truth, things=(thing, *rest))

    taken = {thing.kind for thing in truth.things}
    places = [b for b in words.backgrounds if b != truth.background and (coloured or not BACKGROUNDS[b].colour)]
    found = {
        "object": [with_first(replace(first, kind=k)) for k in words.kinds if k not in taken],
        "background": [replace(truth, background=b) for b in places],
        "style": [replace(truth, style=s) for s in words.styles if s != truth.style],
    }
    colours = sorted({None, *colours_of(first.kind, words)} - {first.colour}, key=str)
    if coloured and colours:
        found["colour"] = [with_first(replace(first, colour=c)) for c in colours]
    return found


def seen(models: PocketModels, picture: Image.Image) -> Description | None:
    """What the captioner says of a picture; None where that makes no sense."""
    try:
        return read(models.captioner.caption(picture))
    except ValueError:  # it said nothing at all
        return None


def paint(models: PocketModels, texts: list[str], seed: int, counts: Counts) -> list[Image.Image]:
    """Pictures from prompts by DDIM sampling with classifier-free guidance against the empty prompt."""
    side = models.vae.native_size // models.vae.factor
    shape = (len(texts), models.denoiser.unet.config.in_channels, side, side)
    noise_BChw = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(models.denoiser.unet.device)
    empty_BLD = models.text_encoder.encode([""])
    pictures: list[Image.Image] = []
    for start in range(0, len(texts), BATCH):
        part = slice(start, start + BATCH)
        z_BChw = ddim_sample(
            models.denoiser,
            noise_BChw[part],
            models.text_encoder.encode(texts[part]),
            counts.num_inference_steps,
            guidance_scale=counts.guidance_scale,
            negative_BLD=empty_BLD,
        )
        pictures += decode(models, z_BChw)
    return pictures


def invert(models: PocketModels, z_BChw: Tensor, cond_BLD: Tensor, counts: Counts) -> Tensor:
    """The noise that latents come from, by DDIM inversion with guidance 1."""
    return ddim_inversion(models.denoiser, z_BChw, cond_BLD, counts.num_inference_steps)[1][-1]


def encode(models: PocketModels, pictures: list[Image.Image]) -> Tensor:
    """Latents of pictures."""
    return torch.cat([models.vae.encode(x_BCHW) for x_BCHW in to_pixels(pictures).split(BATCH)])


def decode(models: PocketModels, z_BChw: Tensor) -> list[Image.Image]:
    """Pictures of latents."""
    return [picture for part in z_BChw.split(BATCH) for picture in to_images(models.vae.decode(part))]


def psnr(a: Image.Image, b: Image.Image, where: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB, of the pixels `where` a mask is true; 60 for equal pictures."""
    squares = (np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2
    error = float(squares.mean() if where is None else squares[where].mean())
    return min(60.0, 10 * float(np.log10(255**2 / max(error, 1e-9))))


def hue_error(a: Image.Image, b: Image.Image) -> float:
    """Mean difference of hue in degrees over the pixels of `a` that have one (saturation and value of at least 0.3)."""
    hue_a, hue_b = (np.asarray(image.convert("HSV"), np.float32) for image in (a, b))
    vivid = (hue_a[..., 1] > 77) & (hue_a[..., 2] > 77)
    turn = np.abs(hue_a[..., 0] - hue_b[..., 0])[vivid] * 360 / 256
    return float(np.minimum(turn, 360 - turn).mean()) if vivid.any() else float("nan")


def command(about: str | None, measured: Callable[[Path], tuple[list[Row], Sheets]]) -> None:
    """Gates as a command: print the table; with --sheets also save the contact sheets.

    Args:
        about: what --help says.
        measured: measures the models in a folder.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder with the models")
    parser.add_argument("--sheets", type=Path, help="folder for the contact sheets")
    arguments = parser.parse_args()
    rows, sheets = measured(arguments.weights)
    for line in rows:
        verdict = {True: "pass", False: "FAIL", None: ""}[line["pass"]]
        print(f"{line['gate']:55} {line['measured']:8} {line['bar']:8} {verdict}")
    if arguments.sheets:
        arguments.sheets.mkdir(parents=True, exist_ok=True)
        for name, sheet in sheets.items():
            sheet.save(arguments.sheets / f"{name}.png", optimize=True)


if __name__ == "__main__":
    command(__doc__, lambda folder: measure(load_models(folder)))
