"""A contact sheet: pictures in a grid, each with its label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import PIL.Image

GAP, FONT = 12, 14
BACKGROUND, INK, PALE = (250, 250, 249), (40, 44, 52), (150, 150, 150)


def contact_sheet(
    cells: Sequence[tuple[str, PIL.Image.Image | None]], columns: int, cell: int = 256
) -> PIL.Image.Image:
    """Pictures row by row, fitted into squares, the label of each below it; None is an empty square that says so.

    Args:
        cells: label and picture; a line of a label that is too long for the square is folded.
        columns: pictures in a row.
        cell: side of a square in pixels.
    """
    import PIL.Image
    import PIL.ImageDraw
    import PIL.ImageFont

    font = PIL.ImageFont.load_default(FONT)
    labels = [_folded(label, cell, font) for label, _ in cells]
    heights = [
        cell + (FONT + 4) * max(len(found) for found in labels[start : start + columns]) + GAP
        for start in range(0, len(cells), columns)
    ]
    columns = min(columns, len(cells))
    size = (GAP + columns * (cell + GAP), GAP + sum(heights))
    sheet = PIL.Image.new("RGB", size, BACKGROUND)
    draw = PIL.ImageDraw.Draw(sheet)
    for position, ((_, image), lines) in enumerate(zip(cells, labels, strict=True)):
        row, column = divmod(position, columns)
        left, top = GAP + column * (cell + GAP), GAP + sum(heights[:row])
        if image is None:
            draw.rectangle((left, top, left + cell - 1, top + cell - 1), outline=PALE)
            draw.text((left + cell / 2, top + cell / 2), "no picture", fill=PALE, font=font, anchor="mm")
        else:
            small = _fitted(image, cell)
            sheet.paste(small, (left + (cell - small.width) // 2, top + (cell - small.height) // 2))
        for i, line in enumerate(lines):
            draw.text((left, top + cell + 3 + i * (FONT + 4)), line, fill=INK, font=font)
    return sheet


def _fitted(image: PIL.Image.Image, cell: int) -> PIL.Image.Image:
    import PIL.Image

    scale = cell / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    # Small pictures are enlarged without blur: what is seen is what was made.
    filter = PIL.Image.Resampling.NEAREST if scale >= 1 and scale == int(scale) else PIL.Image.Resampling.LANCZOS
    return image.convert("RGB").resize(size, filter)


def _folded(label: str, width: int, font: PIL.ImageFont.FreeTypeFont | PIL.ImageFont.ImageFont) -> list[str]:
    lines: list[str] = []
    for part in label.split("\n"):
        line = ""
        for word in part.split(" "):
            longer = f"{line} {word}".strip()
            if line and font.getlength(longer) > width:
                lines.append(line)
                longer = word
            while font.getlength(longer) > width:  # a long name of a file
                fits = next(n for n in range(len(longer) - 1, 0, -1) if n == 1 or font.getlength(longer[:n]) <= width)
                lines.append(longer[:fits])
                longer = longer[fits:]
            line = longer
        lines.append(line)
    return lines
