"""The README's page of pictures made from prompts alone, none chosen among several tries.

python -m graphflow.nodes.pocket.prompt_sheet graphs/pictures/pocket_prompts.png
"""

import argparse
from pathlib import Path

from PIL import Image

from .gates import Counts, paint
from .models import WEIGHTS, load_models
from .sheets import contact_sheet

PROMPTS_64 = """
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

PROMPTS_128 = """
a cat on the beach
a dog in a meadow
a wolf in the snow
a fox in the desert
a cow in a meadow
a pig in a room
a lion in the desert
a tiger at night
a bear in the snow
a panda in the city
a rabbit at night
a frog on a pink background
an owl at night
a penguin in the snow
a robot in the city
a horse in a meadow
an elephant in the desert
a duck on the beach
a cup of coffee in a room
a cake in a room
a pizza on a white background
an apple on a blue background
a burger on a yellow background
a tree in the snow
a palm tree on the beach
a cactus in the desert
a mushroom in a meadow
a sunflower on a blue background
a car in the city
a bus in the city
a house in the snow
a castle in a meadow
a rocket at night
a snowman in the snow
a balloon on a pink background
a football on the beach
a blue elephant in a room
a golden castle at night
a purple bus on a yellow background
a green horse on the beach
a lion wearing a crown in the desert
a penguin wearing a top hat in the city
a fox wearing sunglasses on the beach
a cat and a dog in a meadow
a pencil sketch of an owl in the city
a sepia photo of a robot in a room
a 3d render of a tiger in the snow
a 3d render of a rocket in the desert
""".strip().splitlines()

PROMPTS = {64: PROMPTS_64, 128: PROMPTS_128}
"""By the side of the pictures: every object, background and style that models of this size know."""


def main() -> None:
    """Paint every prompt and save the page as a PNG of 256 colours."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the PNG file")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder with the models")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    models = load_models(arguments.weights)
    prompts = PROMPTS[models.vae.native_size]
    sheet = contact_sheet(paint(models, prompts, arguments.seed, Counts()), columns=8, labels=prompts)
    sheet.quantize(256, dither=Image.Dither.NONE).save(arguments.out, optimize=True)


if __name__ == "__main__":
    main()
