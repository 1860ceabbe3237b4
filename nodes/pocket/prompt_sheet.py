"""The README's page of pictures made from prompts alone, none chosen among several tries.

python -m graphflow.nodes.pocket.prompt_sheet graphs/pictures/pocket_prompts.png
"""

import argparse
from pathlib import Path

from .gates import Counts, paint
from .models import WEIGHTS, load_models
from .sheets import contact_sheet

PROMPTS = """
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
"""Every object, background and style that the models know."""


def main() -> None:
    """Paint every prompt and save the page as a PNG."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the PNG file")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder with the models")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    models = load_models(arguments.weights)
    sheet = contact_sheet(paint(models, PROMPTS, arguments.seed, Counts()), columns=8, labels=PROMPTS)
    sheet.save(arguments.out, optimize=True)


if __name__ == "__main__":
    main()
