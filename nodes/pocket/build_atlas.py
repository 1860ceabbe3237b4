"""Draw the sprite atlas from the Iconify editions of Noto Emoji and Fluent Emoji.

A developer's tool, run once; the package ships its result. It needs the two npm packages and resvg:

    npm install @iconify-json/noto @iconify-json/fluent-emoji
    pip install resvg_py
    python -m graphflow.nodes.pocket.build_atlas node_modules/@iconify-json nodes/pocket/atlas
"""

import argparse
import io
import json
from pathlib import Path

import resvg_py
from PIL import Image

from .catalogue import ACCESSORIES, KINDS

DRAWINGS = {"noto": "noto", "fluent": "fluent-emoji"}
PIXELS = 128
COLUMNS = 8


def icon_svg(icons: dict, name: str) -> str:
    """The SVG text of one icon of an Iconify set."""
    while name in icons.get("aliases", {}):
        name = icons["aliases"][name]["parent"]
    icon = icons["icons"][name]
    width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {width} {height}">{icon["body"]}</svg>'
    )


def rasterise(svg: str) -> Image.Image:
    """The icon as RGBA of at most PIXELS a side, cropped to what is visible."""
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=PIXELS, height=PIXELS))
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    return image.crop(image.getbbox())


def build(icon_sets: Path, out: Path) -> None:
    """Write `<drawing>.png` for each drawing and `index.json` with the boxes [left, top, right, bottom]."""
    out.mkdir(parents=True, exist_ok=True)
    names = sorted({thing.sprite for thing in (*KINDS.values(), *ACCESSORIES.values())})
    index: dict[str, dict[str, list[int]]] = {}
    for drawing, icon_set in DRAWINGS.items():
        icons = json.loads((icon_sets / icon_set / "icons.json").read_text(encoding="utf-8"))
        rows = -(-len(names) // COLUMNS)
        sheet = Image.new("RGBA", (COLUMNS * PIXELS, rows * PIXELS))
        boxes = index[drawing] = {}
        for number, name in enumerate(names):
            sprite = rasterise(icon_svg(icons, name))
            left, top = number % COLUMNS * PIXELS, number // COLUMNS * PIXELS
            sheet.paste(sprite, (left, top))
            boxes[name] = [left, top, left + sprite.width, top + sprite.height]
        sheet.save(out / f"{drawing}.png", optimize=True)
    (out / "index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("icon_sets", type=Path, help="folder with noto/ and fluent-emoji/")
    parser.add_argument("out", type=Path, help="folder for the atlas")
    arguments = parser.parse_args()
    build(arguments.icon_sets, arguments.out)
