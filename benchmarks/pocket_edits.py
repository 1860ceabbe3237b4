"""Edits with exact ground truth: methods against doing nothing, on held-out scenes of the pocket world.

    python benchmarks/pocket_edits.py                  40 'replace' edits, a table in Markdown
    python benchmarks/pocket_edits.py --sheet out.png  also a picture: before, each method, ground truth

Columns: edit success (the pocket CLIP prefers the new object's caption to those of all other objects), PSNR to the
ground truth inside the edited region and outside it. Below the table stand 95 % bootstrap intervals of the
differences that matter.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

import graphflow
from graphflow.nodes.pocket.captions import describe, phrase
from graphflow.nodes.pocket.catalogue import POCKET_64
from graphflow.nodes.pocket.edits import Edit, edit_mask, held_out_edits
from graphflow.nodes.pocket.gates import alternatives, psnr
from graphflow.nodes.pocket.models import load_models
from graphflow.nodes.pocket.sheets import contact_sheet
from graphflow.nodes.pocket.world import render

METHODS: dict[str, tuple[str, dict[str, float]]] = {
    "prompt swap, no guidance": ("prompt_swap", {"guidance": 1.0}),
    "prompt swap": ("prompt_swap", {}),
    "Pix2Pix-OnTheFly": ("pix2pix_on_the_fly", {}),
    "Plug-and-Play": ("plug_and_play", {}),
}
TUNED_ON = 10  # the first held-out edits, on which the graphs' defaults were chosen, are left out


@dataclass
class Column:
    """What was measured of one method, an entry an edit."""

    pictures: list[Image.Image] = field(default_factory=list)
    success: list[bool] = field(default_factory=list)
    inside: list[float] = field(default_factory=list)
    outside: list[float] = field(default_factory=list)


def run_graph(graph: str, edits: Sequence[Edit], inputs: dict[str, float], store: Path) -> list[Image.Image]:
    """The edited pictures. The methods share a store, so that each picture is captioned and inverted once."""
    session = graphflow.load(graph, store=store, device="cpu")
    return [
        session.run(image=render(edit.before, POCKET_64.size), instruction=edit.instruction, **inputs)["image"]
        for edit in edits
    ]


def measure(column: Column, edits: Sequence[Edit]) -> None:
    """Compare a method's pictures with the ground truth."""
    clip = load_models().clip
    for edit, picture in zip(edits, column.pictures, strict=True):
        truth, mask = render(edit.after, POCKET_64.size), np.asarray(edit_mask(edit, POCKET_64.size)) > 0
        column.inside.append(psnr(picture, truth, mask))
        column.outside.append(psnr(picture, truth, ~mask))
        said = describe(edit.after)
        texts = [phrase(d) for d in (said, *alternatives(said, POCKET_64)["object"])]
        image, text = clip.image([picture])[0], clip.text(texts)
        scores = (text / text.norm(dim=-1, keepdim=True)) @ (image / image.norm())
        column.success.append(int(scores.argmax()) == 0)


def interval(differences: Sequence[float]) -> str:
    """Mean and 95 % bootstrap interval."""
    values = np.asarray(differences, np.float64)
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (2000, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{values.mean():+.2f} [{low:+.2f}, {high:+.2f}]"


def replay(edits: Sequence[Edit]) -> float:
    """Mean PSNR of inversion and replay at guidance 1 against the autoencoder's own reconstruction, in dB."""
    from graphflow.nodes.lib.ddim import ddim_inversion, ddim_sample
    from graphflow.nodes.lib.vae import to_images, to_pixels

    models = load_models()
    values = []
    for edit in edits:
        latents = models.vae.encode(to_pixels([render(edit.before, POCKET_64.size)]))
        cond = models.text_encoder.encode([phrase(describe(edit.before))])
        noise = ddim_inversion(models.denoiser, latents, cond, 50)[1][-1]
        again = ddim_sample(models.denoiser, noise, cond, 50)
        pair = [to_images(models.vae.decode(z))[0] for z in (again, latents)]
        values.append(psnr(pair[0], pair[1]))
    return float(np.mean(values))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=40, help="number of edits, at least 30 for a figure to quote")
    parser.add_argument("--sheet", type=Path, help="where to save before, methods and ground truth of 12 edits")
    arguments = parser.parse_args()

    edits = held_out_edits(TUNED_ON + arguments.count, POCKET_64)[TUNED_ON:]
    before = [render(edit.before, POCKET_64.size) for edit in edits]
    columns = {"do nothing": Column(pictures=before)}
    with tempfile.TemporaryDirectory() as store:
        for name, (graph, inputs) in METHODS.items():
            columns[name] = Column(pictures=run_graph(graph, edits, inputs, Path(store)))
    print(f"{len(edits)} held-out 'replace' edits at {POCKET_64.size} px\n")
    print("| method | edit success | object PSNR, dB | background PSNR, dB |")
    print("|---|---|---|---|")
    for name, column in columns.items():
        measure(column, edits)
        print(
            f"| {name} | {np.mean(column.success):.0%} | {np.mean(column.inside):.1f} | {np.mean(column.outside):.1f} |"
        )
    ours, swap, nothing = columns["Pix2Pix-OnTheFly"], columns["prompt swap"], columns["do nothing"]
    print("\nobject PSNR, Pix2Pix-OnTheFly minus doing nothing:", interval(np.subtract(ours.inside, nothing.inside)))
    print("background PSNR, Pix2Pix-OnTheFly minus prompt swap:", interval(np.subtract(ours.outside, swap.outside)))
    print(f"inversion replay against the autoencoder's reconstruction: {replay(edits):.1f} dB")
    if arguments.sheet:
        truth = [render(edit.after, POCKET_64.size) for edit in edits]
        rows = [before, *(columns[name].pictures for name in METHODS), truth]
        contact_sheet([picture for row in rows for picture in row[:12]], columns=12).save(arguments.sheet)


if __name__ == "__main__":
    main()
