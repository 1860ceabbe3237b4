"""Worked examples for a language model that writes captions before and after an edit."""

from __future__ import annotations

from typing import NamedTuple


class Example(NamedTuple):
    """An edit with captions of the picture before and after it, the same number of each."""

    instruction: str
    before: tuple[str, ...]
    after: tuple[str, ...]


EXAMPLES = (
    Example(
        "turn the cat into a dog",
        (
            "a cat sleeping on a grey sofa",
            "a cat curled up on a couch in a living room",
            "a sleepy cat resting on a sofa cushion",
            "a photo of a cat lying on grey upholstery",
        ),
        (
            "a dog sleeping on a grey sofa",
            "a dog curled up on a couch in a living room",
            "a sleepy dog resting on a sofa cushion",
            "a photo of a dog lying on grey upholstery",
        ),
    ),
    Example(
        "make it winter",
        (
            "a wooden cabin beside a green forest",
            "a small cabin on a meadow in summer",
            "a log house surrounded by leafy trees",
            "a cabin with a lawn in front of it on a sunny day",
        ),
        (
            "a wooden cabin beside a snow-covered forest",
            "a small cabin on a snowy field in winter",
            "a log house surrounded by bare trees with snow on them",
            "a cabin with deep snow in front of it on a cold day",
        ),
    ),
    Example(
        "add a red hat to the man",
        (
            "a man reading a newspaper on a bench",
            "a man with short hair sitting in a park with a newspaper",
            "an older man on a park bench, reading",
            "a bareheaded man who holds a newspaper",
        ),
        (
            "a man with a red hat reading a newspaper on a bench",
            "a man in a red hat sitting in a park with a newspaper",
            "an older man wearing a red hat on a park bench, reading",
            "a man in a red hat who holds a newspaper",
        ),
    ),
    Example(
        "remove the bicycle",
        (
            "a bicycle leaning against a brick wall",
            "a blue bicycle in front of an old wall",
            "a brick wall with a bike parked beside it",
            "a street with a bicycle and a wall of red bricks",
        ),
        (
            "a brick wall",
            "an old wall with nothing in front of it",
            "a brick wall beside an empty pavement",
            "a street with a wall of red bricks",
        ),
    ),
    Example(
        "change the car's colour to yellow",
        (
            "a black car parked in front of a shop",
            "a shiny black car on a city street",
            "a dark sedan beside a shop window",
            "a photo of a black car at the kerb",
        ),
        (
            "a yellow car parked in front of a shop",
            "a shiny yellow car on a city street",
            "a bright yellow sedan beside a shop window",
            "a photo of a yellow car at the kerb",
        ),
    ),
    Example(
        "make it look like an oil painting",
        (
            "a photo of sailing boats in a harbour",
            "boats with white sails on calm water",
            "a harbour full of sailing boats on a clear day",
            "a photograph of a marina",
        ),
        (
            "an oil painting of sailing boats in a harbour",
            "boats with white sails on calm water, painted in oil",
            "a painting of a harbour full of sailing boats, thick brush strokes",
            "an oil painting of a marina",
        ),
    ),
    Example(
        "replace the apples with oranges",
        (
            "a bowl of apples on a kitchen table",
            "red apples in a white bowl",
            "a still life with apples",
            "a table with a bowl full of fresh apples",
        ),
        (
            "a bowl of oranges on a kitchen table",
            "ripe oranges in a white bowl",
            "a still life with oranges",
            "a table with a bowl full of fresh oranges",
        ),
    ),
    Example(
        "put the horse on a beach",
        (
            "a brown horse standing in a field",
            "a horse on a green pasture behind a fence",
            "a photo of a horse in the grass",
            "a lone horse on farmland",
        ),
        (
            "a brown horse standing on a beach",
            "a horse on the sand in front of the sea",
            "a photo of a horse on a sandy shore",
            "a lone horse on a beach",
        ),
    ),
    Example(
        "let it be night",
        (
            "a bridge over a river in the afternoon",
            "a stone bridge under a blue sky",
            "a river with a bridge in daylight",
            "a city bridge on a sunny day",
        ),
        (
            "a bridge over a river at night",
            "a stone bridge under a dark sky with stars",
            "a river with a bridge lit by street lamps",
            "a city bridge at night",
        ),
    ),
    Example(
        "the woman should smile",
        (
            "a portrait of a woman with a serious face",
            "a woman looking sternly into the camera",
            "a close-up of a woman with her mouth closed",
            "a woman with long hair and an earnest expression",
        ),
        (
            "a portrait of a woman with a smiling face",
            "a woman smiling into the camera",
            "a close-up of a woman with a broad smile",
            "a woman with long hair and a happy expression",
        ),
    ),
    Example(
        "swap the coffee for a glass of juice",
        (
            "a cup of coffee next to a laptop",
            "a desk with a computer and a mug of coffee",
            "a laptop and a steaming cup of coffee on a wooden table",
            "hot coffee beside an open laptop",
        ),
        (
            "a glass of juice next to a laptop",
            "a desk with a computer and a glass of orange juice",
            "a laptop and a cold glass of juice on a wooden table",
            "fresh juice beside an open laptop",
        ),
    ),
    Example(
        "add a flock of birds to the sky",
        (
            "a lighthouse on a rocky coast",
            "a white lighthouse under an empty sky",
            "a coast with a lighthouse and calm sea",
            "a photo of a lighthouse on a cliff",
        ),
        (
            "a lighthouse on a rocky coast with a flock of birds in the sky",
            "a white lighthouse under a sky full of birds",
            "a coast with a lighthouse, calm sea and birds flying above",
            "a photo of a lighthouse on a cliff and a flock of birds",
        ),
    ),
)
