"""The pocket world: small pictures composed from a typed record, so that every edit has an exact ground truth.

numpy and Pillow only. Lengths are fractions of the picture's side, the origin is the top left corner.
"""

import json
import random
import zlib
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from .backdrops import backdrop
from .catalogue import ACCESSORIES, BACKGROUNDS, COLOURS, KINDS, STYLES, Vocabulary

ATLAS = Path(__file__).with_name("atlas")
SKETCH_RADIUS = 0.02  # blur of the pencil filter


@dataclass(frozen=True)
class Item:
    """One object. `x` is its centre, `bottom` its lower edge, `size` its longer side."""

    kind: str
    x: float
    bottom: float
    size: float
    colour: str | None = None
    accessory: str | None = None


@dataclass(frozen=True)
class Scene:
    """A picture before it is drawn. `instance` picks one of the endless variants of the background."""

    items: tuple[Item, ...]
    background: str
    instance: int
    style: str = "picture"


class Split(Enum):
    """Training pictures, or pictures that training never saw: other background instances, unseen combinations too."""

    TRAIN = range(200)
    HELD_OUT = range(100_000, 1_000_000)


def held_out(item: Item, background: str) -> bool:
    """Whether this combination of object, colour and background is kept from training (one in ten)."""
    return zlib.crc32(f"{item.kind}|{item.colour}|{background}".encode()) % 10 == 0


# --- sampling -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mixture:
    """How often each feature occurs; a curriculum is a list of these."""

    empty: float = 0.05
    pair: float = 0.12
    aside: float = 0.15  # of the single objects: where one of a pair would stand, so that another can be added
    colour: float = 0.25
    accessory: float = 0.2
    plain: float = 0.25
    styled: float = 0.24


SINGLES = Mixture(empty=0.04, pair=0.0, aside=0.05, colour=0.08, accessory=0.05, plain=0.25, styled=0.1)
# What a picture seldom shows, and a denoiser therefore learns late: paint, and styles other than the plain picture.
RARE = Mixture(pair=0.08, colour=0.6, styled=0.6)


def sample_scene(rng: random.Random, words: Vocabulary, split: Split, mixture: Mixture = Mixture()) -> Scene:
    """Draw a scene at random. Training scenes are drawn again until no combination is a held-out one."""
    while True:
        scene = _sample(rng, words, split, mixture)
        if split is Split.HELD_OUT or not any(held_out(item, scene.background) for item in scene.items):
            return scene


def _sample(rng: random.Random, words: Vocabulary, split: Split, mixture: Mixture) -> Scene:
    style = rng.choice([s for s in words.styles if s != "picture"]) if rng.random() < mixture.styled else "picture"
    plain = [b for b in words.backgrounds if BACKGROUNDS[b].colour]
    places = [b for b in words.backgrounds if not BACKGROUNDS[b].colour]
    # A grey picture can't show the colour of a backdrop or of an object, so that its caption never names one.
    coloured = STYLES[style].shows_colour
    background = rng.choice(plain if coloured and rng.random() < mixture.plain else places)
    count = rng.choices((0, 1, 2), (mixture.empty, 1 - mixture.empty - mixture.pair, mixture.pair))[0]
    kinds = rng.sample(words.kinds, count)
    sides: list[int | None] = [0, 1] if count == 2 else [rng.randrange(2) if rng.random() < mixture.aside else None]
    items = tuple(
        sample_item(rng, words, kind, side, coloured, mixture) for kind, side in zip(kinds, sides, strict=False)
    )
    return Scene(items, background, rng.choice(split.value), style)


def sample_item(
    rng: random.Random, words: Vocabulary, kind: str, side: int | None, coloured: bool, mixture: Mixture = Mixture()
) -> Item:
    """An object of this kind, about the middle, or on the left (`side` 0) or right (1), where two fit in."""
    accessory = rng.choice(words.accessories) if KINDS[kind].wears and rng.random() < mixture.accessory else None
    if side is None:
        size = rng.uniform(0.5, 0.65)
        x = rng.uniform(max(0.3, size / 2), min(0.7, 1 - size / 2))
    else:
        size = rng.uniform(0.4, 0.46)
        x = (0.26, 0.74)[side] + rng.uniform(-0.03, 0.03)
    bottom = rng.uniform(0.8, 0.95) - (0.12 if KINDS[kind].floats else 0.0)
    colour = rng.choice(colours_of(kind, words)) if coloured and rng.random() < mixture.colour else None
    return Item(kind, round(x, 4), round(bottom, 4), round(size, 4), colour, accessory)


def colours_of(kind: str, words: Vocabulary) -> tuple[str | None, ...]:
    """The colours this kind can be painted in; (None,) where paint would hide what it is."""
    thing = KINDS[kind]
    return tuple(c for c in words.colours if c != thing.natural) if thing.tintable else (None,)


# --- drawing --------------------------------------------------------------------------------------------------------


def render(scene: Scene, size: int) -> Image.Image:
    """The picture, RGB, size × size. Drawn at twice the size and averaged down."""
    canvas = backdrop(scene.background, scene.instance, 2 * size).copy()
    for item in scene.items:
        _paint(canvas, item, scene)
    return _stylise(canvas, scene.style).resize((size, size), Image.Resampling.BOX)


def object_mask(scene: Scene, size: int, items: tuple[Item, ...] | None = None) -> Image.Image:
    """The silhouette of `items` (all of the scene's if None) with what they wear, mode L, 0 or 255, size × size."""
    layers = _layers(scene, 2 * size, items)
    coverage = layers[0].resize((size, size), Image.Resampling.BOX)
    return coverage.point(lambda value: 255 if value >= 128 else 0)


def opaque_mask(scene: Scene, size: int) -> Image.Image:
    """The pixels in which nothing of the background shows, mode L, 0 or 255; none in a sketch, where edges spread."""
    if scene.style == "sketch":
        return Image.new("L", (size, size))
    covered = _layers(scene, 2 * size, None)[0].point(lambda value: 255 if value == 255 else 0)
    return covered.resize((size, size), Image.Resampling.BOX).point(lambda value: 255 if value == 255 else 0)


def touched_mask(scene: Scene, size: int, items: tuple[Item, ...] | None = None) -> Image.Image:
    """Every pixel that `items` change in the least, contact shadow and pencil blur included, mode L, 0 or 255."""
    silhouette, shadow = _layers(scene, 2 * size, items)
    touched = ImageChops.lighter(silhouette, shadow).point(lambda value: 255 if value else 0)
    if scene.style == "sketch":
        reach = 2 * (round(2 * size * SKETCH_RADIUS * 3) + 1) + 1
        touched = touched.filter(ImageFilter.MaxFilter(reach))
    return touched.resize((size, size), Image.Resampling.BOX).point(lambda value: 255 if value else 0)


def _layers(scene: Scene, side: int, items: tuple[Item, ...] | None) -> tuple[Image.Image, Image.Image]:
    """Opacity of the items and of their shadows, mode L."""
    silhouette, shadow = Image.new("L", (side, side)), Image.new("L", (side, side))
    for item in scene.items if items is None else items:
        for sprite, corner in _sprites(item, STYLES[scene.style].drawing, side):
            alpha = Image.new("L", (side, side))
            alpha.paste(sprite.getchannel("A"), corner)
            silhouette = ImageChops.lighter(silhouette, alpha)
        shadow = ImageChops.lighter(shadow, _shadow(item, scene, side))
    return silhouette, shadow


def _paint(canvas: Image.Image, item: Item, scene: Scene) -> None:
    canvas.paste((20, 20, 30), (0, 0), _shadow(item, scene, canvas.width))
    for sprite, corner in _sprites(item, STYLES[scene.style].drawing, canvas.width):
        canvas.paste(sprite, corner, sprite)


def _shadow(item: Item, scene: Scene, side: int) -> Image.Image:
    """The opacity of the contact shadow: none on a plain backdrop and below what floats."""
    shadow = Image.new("L", (side, side))
    if not BACKGROUNDS[scene.background].colour and not KINDS[item.kind].floats:
        x, y, half = item.x * side, item.bottom * side, item.size * side
        box = (x - 0.4 * half, y - 0.06 * half, x + 0.4 * half, y + 0.05 * half)
        ImageDraw.Draw(shadow).ellipse(box, fill=90)
        shadow = shadow.filter(ImageFilter.GaussianBlur(0.012 * side))
    return shadow


def _sprites(item: Item, drawing: str, side: int) -> list[tuple[Image.Image, tuple[int, int]]]:
    """The sprite of the item, then of what it wears, each with the corner where it goes."""
    sprite = _tinted(drawing, KINDS[item.kind].sprite, item.colour)
    scale = item.size * side / max(sprite.size)
    width, height = (max(2, round(length * scale)) for length in sprite.size)
    left, top = round(item.x * side - width / 2), round(item.bottom * side - height)
    sprites = [(sprite.resize((width, height), Image.Resampling.LANCZOS), (left, top))]
    if item.accessory:
        accessory = ACCESSORIES[item.accessory]
        worn = _tinted(drawing, accessory.sprite, None)
        worn_width = round(accessory.width * width)
        worn_height = round(worn_width * worn.height / worn.width)
        corner = (round(item.x * side - worn_width / 2), round(top - accessory.lift * worn_height))
        sprites.append((worn.resize((worn_width, worn_height), Image.Resampling.LANCZOS), corner))
    return sprites


@lru_cache
def _atlas(drawing: str) -> tuple[Image.Image, dict[str, list[int]]]:
    index = json.loads((ATLAS / "index.json").read_text(encoding="utf-8"))
    return Image.open(ATLAS / f"{drawing}.png").convert("RGBA"), index[drawing]


@lru_cache(maxsize=512)
def _tinted(drawing: str, name: str, colour: str | None) -> Image.Image:
    """A sprite, painted over if a colour is given: shades keep their order, outlines stay dark."""
    sheet, boxes = _atlas(drawing)
    sprite = sheet.crop(tuple(boxes[name]))
    if colour is None:
        return sprite
    pixels = np.asarray(sprite, np.float32)
    light = (pixels[..., :3] @ np.array([0.3, 0.59, 0.11], np.float32) / 255)[..., None]
    paint = np.array(COLOURS[colour], np.float32)
    dark, bright = (paint * (light / 0.55) ** 0.8, paint + (255 - paint) * np.clip((light - 0.55) / 0.45, 0, 1) ** 1.2)
    painted = np.concatenate([np.where(light < 0.55, dark, bright), pixels[..., 3:]], axis=-1)
    return Image.fromarray(painted.clip(0, 255).astype(np.uint8), "RGBA")


def _stylise(image: Image.Image, style: str) -> Image.Image:
    if style == "sketch":
        grey = image.convert("L")
        blurred = ImageChops.invert(grey).filter(ImageFilter.GaussianBlur(SKETCH_RADIUS * image.width))
        dodge = np.asarray(grey, np.float32) * 255 / (256 - np.asarray(blurred, np.float32))
        shading = 0.6 + 0.4 * np.asarray(grey, np.float32) / 255
        strokes = 255 * np.clip(dodge / 255, 0, 1) ** 1.6 * shading
        return Image.fromarray(np.repeat(strokes.astype(np.uint8)[..., None], 3, axis=-1))
    if style == "sepia":
        grey = np.asarray(image.convert("L"), np.float32)[..., None] / 255
        sepia = grey ** np.array([0.8, 0.95, 1.2]) * np.array([250, 225, 180]) + 5
        return Image.fromarray(sepia.clip(0, 255).astype(np.uint8))
    return image
