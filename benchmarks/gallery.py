"""The README's pictures: what every shipped method makes of one edit of each type, beside the exact ground truth.

    python benchmarks/gallery.py graphs/pictures                             both pages; minutes on two cores
    python benchmarks/gallery.py out --number replace=3 --number add=1       other edits of the pocket benchmark

A row is an edit of the pocket benchmark, a column a method; the last column is the truth. Nothing is chosen among
several tries: each method runs once, with its graph's defaults.
"""

from __future__ import annotations

import argparse
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import graphflow
from graphflow.nodes.pocket import benchmark, exemplars
from graphflow.nodes.pocket.catalogue import SHIPPED
from graphflow.nodes.pocket.sheets import INK, PAPER

SIDE, GAP, LEFT, TOP = 128, 6, 150, 30
LARGE, SMALL = ImageFont.load_default(size=13), ImageFont.load_default(size=11)
BY_INSTRUCTION = {
    "Pix2Pix-OnTheFly": "pix2pix_on_the_fly",
    "Plug-and-Play": "plug_and_play",
    "InstructPix2Pix": "instruct_pix2pix",
    "prompt swap": "prompt_swap",
}
BY_EXAMPLE = {
    "ReEdit": "reedit",
    "VISII with text": "visii_text",
    "VISII": "visii",
    "InstructPix2Pix, told": "instruct_by_example",
}


@dataclass(frozen=True)
class Row:
    """One edit: its type, what it says below, and its pictures from left to right."""

    kind: str
    says: str
    pictures: Sequence[Image.Image]


def page(columns: Sequence[str], rows: Sequence[Row]) -> Image.Image:
    """A table of pictures with the names of the columns above and of the edits on the left."""
    out = Image.new("RGB", (LEFT + len(columns) * (SIDE + GAP), TOP + len(rows) * (SIDE + GAP)), PAPER)
    draw = ImageDraw.Draw(out)
    for number, name in enumerate(columns):
        draw.text((LEFT + number * (SIDE + GAP) + SIDE / 2, TOP - 8), name, INK, LARGE, anchor="ms")
    for number, row in enumerate(rows):
        top = TOP + number * (SIDE + GAP)
        draw.text((12, top + SIDE / 2 - 10), row.kind, INK, LARGE, anchor="ls")
        text = "\n".join(textwrap.wrap(row.says, 23, max_lines=4))
        draw.multiline_text((12, top + SIDE / 2 - 2), text, INK, SMALL)
        for column, picture in enumerate(row.pictures):
            big = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            out.paste(big, (LEFT + column * (SIDE + GAP), top))
    return out


def by_instruction(numbers: Mapping[str, int], store: Path) -> Image.Image:
    """Before, each method, truth."""
    version = benchmark.version_for(SHIPPED.size, benchmark.SIZES)
    chosen = [benchmark.entry(f"{version}/{kind}/{number:02d}") for kind, number in numbers.items()]
    edited = [
        [_edited(graph, store, image=e.before, instruction=e.edit.instruction) for e in chosen]
        for graph in BY_INSTRUCTION.values()
    ]
    rows = [
        Row(e.edit.kind, e.edit.instruction, [e.before, *made, e.after])
        for e, made in zip(chosen, zip(*edited, strict=True), strict=True)
    ]
    return page(["before", *BY_INSTRUCTION, "truth"], rows)


def by_example(numbers: Mapping[str, int], store: Path) -> Image.Image:
    """The pair that shows the edit, the picture before, each method, truth."""
    version = benchmark.version_for(SHIPPED.size, exemplars.SIZES)
    chosen = [exemplars.entry(f"{version}/{kind}/{number:02d}") for kind, number in numbers.items()]
    edited = [
        [_edited(graph, store, before=e.exemplar_before, after=e.exemplar_after, image=e.before) for e in chosen]
        for graph in BY_EXAMPLE.values()
    ]
    rows = [
        Row(e.edit.kind, "as the pair shows", [e.exemplar_before, e.exemplar_after, e.before, *made, e.after])
        for e, made in zip(chosen, zip(*edited, strict=True), strict=True)
    ]
    return page(["shown: this", "becomes this", "before", *BY_EXAMPLE, "truth"], rows)


def _edited(graph: str, store: Path, **inputs: object) -> Image.Image:
    # The methods share a store, so that each picture is captioned and inverted once.
    picture: Image.Image = graphflow.load(graph, store=store, device="cpu").run(**inputs)["image"]
    return picture


def main() -> None:
    """Draw both pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for readme_edits.png and readme_examples.png")
    parser.add_argument("--number", action="append", default=[], metavar="TYPE=N", help="which edit of a type; 0")
    parser.add_argument("--only", choices=["edits", "examples"], help="draw one of the pages")
    arguments = parser.parse_args()
    numbers = dict.fromkeys(benchmark.TYPES, 0)
    for chosen in arguments.number:
        kind, _, number = chosen.partition("=")
        if kind not in numbers or not number.isdecimal() or int(number) >= exemplars.PER_TYPE:
            types, last = ", ".join(numbers), exemplars.PER_TYPE - 1
            parser.error(f"--number {chosen}: expected TYPE=N with a type of {types} and N from 0 to {last}")
        numbers[kind] = int(number)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as store:
        for name, drawn in (("edits", by_instruction), ("examples", by_example)):
            if arguments.only in (None, name):
                drawn(numbers, Path(store)).save(arguments.out / f"readme_{name}.png", optimize=True)


if __name__ == "__main__":
    main()
