"""The example pictures of the demo graphs, with what asks for an edit that suits each; training saw none of them.

Two more, exemplar_before.png and exemplar_after.png, show such an edit: what became of the one picture is to become of
the cat's.

python -m graphflow.nodes.pocket.examples graphs/pictures
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from .catalogue import SHIPPED
from .world import Item, Scene, render


@dataclass(frozen=True)
class Example:
    """A scene and a request."""

    scene: Scene
    instruction: str


def _one(item: Item, background: str, instance: int, instruction: str, style: str = "picture") -> Example:
    return Example(Scene((item,), background, 100_000 + instance, style), instruction)


EXAMPLES = {
    "cat": _one(Item("cat", 0.5, 0.9, 0.62), "beach", 5, "turn the cat into a dog"),
    "coffee": _one(Item("cup of coffee", 0.5, 0.88, 0.56), "meadow", 8, "replace the cup of coffee with a cake"),
    "car": _one(Item("car", 0.5, 0.88, 0.62), "snow", 12, "make the car blue"),
    "rabbit": _one(Item("rabbit", 0.5, 0.92, 0.6), "room", 6, "turn the rabbit into a frog"),
    "dog": _one(Item("dog", 0.5, 0.92, 0.6), "plain blue", 1, "give the dog a crown"),
    "house": _one(Item("house", 0.5, 0.9, 0.6), "desert", 4, "make it night"),
}

EXEMPLAR = tuple(Scene((Item(kind, 0.5, 0.9, 0.6),), "meadow", 100_021, "picture") for kind in ("cat", "dog"))


def main() -> None:
    """Draw every example to `<name>.png`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the pictures")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, example in EXAMPLES.items():
        render(example.scene, SHIPPED.size).save(out / f"{name}.png", optimize=True)
    for name, scene in zip(("before", "after"), EXEMPLAR, strict=True):
        render(scene, SHIPPED.size).save(out / f"exemplar_{name}.png", optimize=True)


if __name__ == "__main__":
    main()
