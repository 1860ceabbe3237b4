"""The README's page of pictures made from prompts alone, none chosen among several tries.

python -m graphflow.nodes.pocket.prompt_sheet graphs/pictures/pocket_prompts.png
"""

import argparse
from pathlib import Path

from PIL import Image

from .gates import Counts, paint
from .models import WEIGHTS, load_models
from .sheets import contact_sheet

PROMPTS = """
a cat on the beach
a dog in a meadow
a pig in the desert
a panda in the snow
a frog in a room
a rabbit at night
a cup of coffee on the beach
a cake in a room
an apple in the snow
a car in the desert
a tree in a meadow
a mushroom at night
a rocket at night
a house in the snow
a cat on a blue background
a dog on a pink background
a panda on a yellow background
a frog on a pink background
a rocket on a yellow background
an apple on a blue background
a house in a meadow
a car on the beach
a mushroom in the desert
a tree in the snow
a blue car in the snow
a golden apple at night
a purple rabbit in a meadow
a green house on the beach
a red cup of coffee in a room
a blue mushroom in a meadow
a golden rocket on a blue background
a green cat on a yellow background
a cat wearing a crown in a room
a dog wearing a top hat on the beach
a panda wearing a crown at night
a frog wearing a top hat in the snow
a purple dog wearing a crown in a meadow
a rabbit wearing a top hat on a pink background
a cat and a dog in a meadow
a panda and an apple in the snow
a house and a tree on the beach
a car and a rocket at night
a pencil sketch of a cat in a room
a pencil sketch of a house in a meadow
a pencil sketch of a car on the beach
a sepia photo of a dog in the desert
a sepia photo of a rabbit on the beach
an empty scene on the beach
""".strip().splitlines()


def main() -> None:
    """Paint every prompt and save the page as a PNG of 256 colours."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the PNG file")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder with the models")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    pictures = paint(load_models(arguments.weights), PROMPTS, arguments.seed, Counts())
    sheet = contact_sheet(pictures, columns=8, labels=PROMPTS)
    sheet.quantize(256, dither=Image.Dither.NONE).save(arguments.out, optimize=True)


if __name__ == "__main__":
    main()
