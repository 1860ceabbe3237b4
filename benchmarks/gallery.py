"""The README's pictures of edits beside the exact truth, on held-out scenes of the pocket world.

python benchmarks/gallery.py graphs/pictures/readme_edits.png                 by instruction, Pix2Pix-OnTheFly
python benchmarks/gallery.py graphs/pictures/readme_examples.png --by-example  by a pair of pictures, ReEdit
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import graphflow
from graphflow.nodes.pocket.catalogue import POCKET_64
from graphflow.nodes.pocket.edits import held_out_edits
from graphflow.nodes.pocket.exemplars import entries
from graphflow.nodes.pocket.sheets import INK, PAPER
from graphflow.nodes.pocket.world import render

SIDE, GAP, LABEL = 150, 8, 34


def sheet(columns: list[tuple[str, list[Image.Image]]], rows: list[str]) -> Image.Image:
    """One column an edit with its instruction above it, one row a stage with its name on the left."""
    left, font = 92, ImageFont.load_default(size=13)
    size = (left + len(columns) * (SIDE + GAP), LABEL + len(rows) * (SIDE + GAP))
    out = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(out)
    for row, name in enumerate(rows):
        draw.text((left - 10, LABEL + row * (SIDE + GAP) + SIDE / 2), name, INK, font, anchor="rm")
    for number, (instruction, pictures) in enumerate(columns):
        x = left + number * (SIDE + GAP)
        text = "\n".join(textwrap.wrap(instruction, 30, max_lines=2))
        draw.text((x + SIDE / 2, LABEL - 6), text, INK, ImageFont.load_default(size=11), anchor="md", align="center")
        for row, picture in enumerate(pictures):
            big = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            out.paste(big, (x, LABEL + row * (SIDE + GAP)))
    return out


def by_instruction(numbers: list[int]) -> Image.Image:
    """Before, edited, truth."""
    session = graphflow.load("pix2pix_on_the_fly", device="cpu")
    edits = held_out_edits(max(numbers) + 1, POCKET_64)
    columns = []
    for edit in (edits[number] for number in numbers):
        before, truth = render(edit.before, POCKET_64.size), render(edit.after, POCKET_64.size)
        done = session.run(image=before, instruction=edit.instruction)
        columns.append((edit.instruction, [before, done["image"], truth]))
    return sheet(columns, ["before", "edited", "truth"])


def by_example(numbers: list[int]) -> Image.Image:
    """The pair, the picture, edited, truth."""
    session = graphflow.load("reedit", device="cpu")
    triples = entries()
    columns = []
    for triple in (triples[number] for number in numbers):
        pair = [triple.exemplar_before, triple.exemplar_after]
        done = session.run(before=pair[0], after=pair[1], image=triple.before)
        columns.append(
            (f"{triple.edit.kind}: {triple.edit.instruction}", [*pair, triple.before, done["image"], triple.after])
        )
    return sheet(columns, ["pair, before", "pair, after", "picture", "edited", "truth"])


def main() -> None:
    """Edit and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the picture to write")
    parser.add_argument("--by-example", action="store_true", help="ReEdit on exemplars that no setting was chosen on")
    parser.add_argument("--edits", type=int, nargs="*", help="which of the held-out edits or exemplars")
    arguments = parser.parse_args()
    if arguments.by_example:
        drawn = by_example(arguments.edits or list(range(14, 21)))
    else:
        drawn = by_instruction(arguments.edits or list(range(6)))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    drawn.save(arguments.out, optimize=True)


if __name__ == "__main__":
    main()
