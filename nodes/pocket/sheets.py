"""Contact sheets: many small pictures on one page, for eyes to judge."""

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

GAP, MARGIN = 6, 10
PAPER, INK = (250, 250, 248), (70, 70, 75)


def contact_sheet(
    pictures: Sequence[Image.Image], columns: int, labels: Sequence[str] = (), side: int = 128
) -> Image.Image:
    """The pictures row by row, each scaled to `side` pixels, with its label below it if there are labels."""
    font = ImageFont.load_default(size=10.5)
    lines = [textwrap.wrap(label, width=side // 5, max_lines=3) for label in labels]
    below = 13 * max((len(wrapped) for wrapped in lines), default=0) + (4 if labels else 0)
    rows = -(-len(pictures) // columns)
    size = (2 * MARGIN + columns * (side + GAP) - GAP, 2 * MARGIN + rows * (side + below + GAP) - GAP)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, picture in enumerate(pictures):
        left = MARGIN + number % columns * (side + GAP)
        top = MARGIN + number // columns * (side + below + GAP)
        sheet.paste(picture.resize((side, side), Image.Resampling.BICUBIC), (left, top))
        for count, text in enumerate(lines[number] if labels else ()):
            draw.text((left + side / 2, top + side + 2 + 13 * count), text, INK, font, anchor="ma")
    return sheet
