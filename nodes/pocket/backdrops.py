"""The backgrounds of the pocket world. Each is drawn by a seeded generator, so a background has endless instances."""

import random
from functools import lru_cache

import numpy as np
from PIL import Image

from .catalogue import BACKGROUNDS

Colour = tuple[int, int, int]


class Ground:
    """A canvas of float RGB (side, side, 3) with unit coordinates `x` and `y`, and a wavy horizon."""

    def __init__(self, rng: random.Random, side: int) -> None:
        self.rng, self.side = rng, side
        self.y, self.x = (np.mgrid[0:side, 0:side].astype(np.float32) + 0.5) / side
        self.horizon = rng.uniform(0.45, 0.6)
        self.phase, self.swing, self.waves = (rng.uniform(0, 6.28), rng.uniform(0.01, 0.05), rng.uniform(4, 8))
        self.pixels = np.zeros((side, side, 3), np.float32)

    def curve(self, shift: float = 0.0, phase: float = 0.0) -> np.ndarray:
        """Height of a wavy line below the horizon, for each pixel."""
        return self.horizon + shift + self.swing * np.sin(self.x * self.waves + self.phase + phase)

    def gradient(self, top: Colour, bottom: Colour, height: float = 1.0) -> np.ndarray:
        t = np.clip(self.y / height, 0, 1)[..., None]
        return np.array(top, np.float32) * (1 - t) + np.array(bottom, np.float32) * t

    def fill(self, where: np.ndarray, paint: np.ndarray | Colour) -> None:
        self.pixels[where] = paint[where] if isinstance(paint, np.ndarray) else paint

    def disc(self, x: float, y: float, radius: float, paint: Colour) -> None:
        self.fill((self.x - x) ** 2 + (self.y - y) ** 2 < radius**2, paint)

    def box(self, left: float, top: float, right: float, bottom: float, paint: Colour) -> None:
        self.fill((self.x >= left) & (self.x < right) & (self.y >= top) & (self.y < bottom), paint)


def _beach(g: Ground) -> None:
    g.pixels = g.gradient((110, 190, 245), (205, 235, 250), g.horizon)
    g.fill(g.y > g.horizon - 0.14, g.gradient((30, 120, 200), (60, 175, 215)))
    shore = g.curve(0.05)
    g.fill(g.y > shore, (238, 214, 160))
    g.fill(np.abs(g.y - shore) < 0.014, (250, 250, 245))
    g.disc(g.rng.uniform(0.1, 0.9), 0.13, 0.078, (255, 235, 120))


def _meadow(g: Ground) -> None:
    g.pixels = g.gradient((120, 195, 250), (215, 238, 252), g.horizon)
    for _ in range(2):
        x, y = g.rng.uniform(0, 1), g.rng.uniform(0.06, 0.22)
        for puff in (-0.07, 0.0, 0.07):
            g.disc(x + puff, y - (0.02 if puff == 0 else 0), 0.055, (255, 255, 255))
    g.fill(g.y > g.curve(), g.gradient((120, 200, 80), (60, 150, 50)))
    for _ in range(12):
        paint = g.rng.choice([(250, 240, 90), (250, 250, 250), (240, 120, 150)])
        g.disc(g.rng.uniform(0, 1), g.rng.uniform(0.68, 1), 0.018, paint)


def _desert(g: Ground) -> None:
    g.pixels = g.gradient((250, 190, 120), (255, 230, 170), g.horizon)
    g.disc(g.rng.uniform(0.1, 0.9), 0.15, 0.1, (255, 245, 200))
    g.fill(g.y > g.curve(), (228, 165, 85))
    g.fill(g.y > g.curve(0.16, phase=2.0), (205, 135, 65))


def _snow(g: Ground) -> None:
    g.pixels = g.gradient((165, 190, 215), (225, 235, 245), g.horizon)
    for _ in range(3):
        x = g.rng.uniform(0, 1)
        g.fill(g.y > g.horizon - 0.25 + np.abs(g.x - x) * 0.9, (140, 155, 180))
        slope = g.horizon - 0.25 + np.abs(g.x - x) * 0.9
        g.fill((g.y > slope) & (g.y < g.horizon - 0.15 + np.abs(g.x - x) * 0.3), (245, 248, 252))
    g.fill(g.y > g.curve(), g.gradient((250, 252, 255), (215, 225, 240)))


def _night(g: Ground) -> None:
    g.pixels = g.gradient((10, 12, 45), (40, 45, 100), g.horizon)
    for _ in range(22):
        g.disc(g.rng.uniform(0, 1), g.rng.uniform(0, 0.55), 0.012, (250, 245, 200))
    x, y = g.rng.uniform(0.12, 0.88), g.rng.uniform(0.11, 0.22)
    moon = (g.x - x) ** 2 + (g.y - y) ** 2 < 0.08**2
    bite = (g.x - x - 0.04) ** 2 + (g.y - y + 0.02) ** 2 < 0.075**2
    g.fill(moon & ~bite, (250, 245, 205))
    g.fill(g.y > g.curve(), g.gradient((25, 45, 60), (12, 25, 35)))


def _room(g: Ground) -> None:
    wall = g.rng.choice([(235, 215, 190), (205, 220, 210), (225, 205, 215)])
    g.fill(g.y >= 0, wall)
    floor = g.horizon + 0.12
    g.fill(g.y > floor, (150, 100, 65))
    for number in range(-4, 9):
        seam = 0.5 + (number - 2 + g.phase / 6.28) * 0.16 * (0.45 + g.y)
        g.fill((np.abs(g.x - seam) < 0.006) & (g.y > floor), (125, 80, 50))
    g.fill(np.abs(g.y - floor) < 0.014, (250, 245, 240))
    left = g.rng.uniform(0.06, 0.66)
    g.box(left, 0.08, left + 0.28, 0.37, (250, 250, 250))
    for pane in (left + 0.025, left + 0.15):
        g.box(pane, 0.105, pane + 0.105, 0.345, (170, 215, 245))


def _city(g: Ground) -> None:
    g.pixels = g.gradient((170, 200, 225), (230, 235, 240), g.horizon)
    street, left = g.horizon + 0.1, -g.rng.uniform(0, 0.08)
    while left < 1:
        width, height = g.rng.uniform(0.12, 0.2), g.rng.uniform(0.25, 0.5)
        wall = g.rng.choice([(120, 130, 150), (150, 120, 110), (100, 115, 130), (170, 155, 140)])
        g.box(left, street - height, left + width, street, wall)
        for row in range(int(height / 0.07)):
            for column in range(int((width - 0.02) / 0.05)):
                x, y = left + 0.02 + 0.05 * column, street - height + 0.03 + 0.07 * row
                g.box(x, y, x + 0.025, y + 0.03, (250, 235, 160))
        left += width + 0.01
    g.fill(g.y > street, (95, 97, 102))
    g.fill((g.y > street) & (g.y < street + 0.04), (190, 188, 180))
    for number in range(-1, 5):
        x = number * 0.27 + g.phase * 0.03
        g.box(x, 0.88, x + 0.12, 0.905, (240, 240, 235))


SCENERY = {
    "beach": _beach,
    "meadow": _meadow,
    "snow": _snow,
    "desert": _desert,
    "night": _night,
    "room": _room,
    "city": _city,
}


@lru_cache(maxsize=4096)
def backdrop(name: str, instance: int, side: int) -> Image.Image:
    """The background called `name`, RGB, side × side. Shared between callers: copy before drawing on it."""
    ground = Ground(random.Random(f"{name}/{instance}"), side)
    colour = BACKGROUNDS[name].colour
    if colour:
        shade = ground.rng.uniform(0.9, 1.0)
        darker = tuple(round(channel * shade) for channel in colour)
        ground.pixels = ground.gradient(colour, darker)
    else:
        SCENERY[name](ground)
    return Image.fromarray(ground.pixels.round().clip(0, 255).astype(np.uint8))
