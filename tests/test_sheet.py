"""Contact sheets: every picture at its place, its label below it."""

from __future__ import annotations

import PIL.Image
import pytest

from graphflow.sheet import BACKGROUND, FONT, GAP, INK, contact_sheet

LINE = FONT + 4


def square(colour: str, size: tuple[int, int] = (32, 32)) -> PIL.Image.Image:
    return PIL.Image.new("RGB", size, colour)


def middle(sheet: PIL.Image.Image, column: int, row: int, cell: int = 64) -> object:
    step = cell + GAP
    return sheet.getpixel((GAP + column * step + cell // 2, GAP + row * (step + LINE) + cell // 2))


def test_pictures_stand_row_by_row() -> None:
    colours = {"red": (255, 0, 0), "lime": (0, 255, 0), "blue": (0, 0, 255), "white": (255,) * 3, "black": (0,) * 3}
    sheet = contact_sheet([(name, square(name)) for name in colours], 3, 64)
    assert sheet.size == (GAP + 3 * (64 + GAP), GAP + 2 * (64 + LINE + GAP))
    places = [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1)]
    assert [middle(sheet, *place) for place in places] == list(colours.values())
    assert middle(sheet, 2, 1) == BACKGROUND


def test_fewer_pictures_than_columns_make_a_narrow_sheet() -> None:
    assert contact_sheet([("a", square("red"))], 6, 64).width == GAP + 64 + GAP


def test_a_label_stands_below_its_picture() -> None:
    sheet = contact_sheet([("MMMM", square("red")), ("", square("red"))], 2, 64)
    below = [sheet.crop((GAP + c * 76, GAP + 64, GAP + c * 76 + 64, GAP + 64 + LINE)) for c in range(2)]
    assert INK in {colour for _, colour in below[0].getcolors(5000) or ()}
    assert {colour for _, colour in below[1].getcolors(5000) or ()} == {BACKGROUND}


def test_a_long_label_is_folded_between_words_and_makes_its_row_higher() -> None:
    long = "instruction=turn the cat into a dog on the beach"
    one, two = contact_sheet([("a", square("red"))], 1), contact_sheet([(long, square("red"))], 1)
    assert two.height - one.height == LINE
    rows = contact_sheet([(long, square("red")), ("a", square("lime"))], 1)
    assert rows.getpixel((GAP + 128, GAP + 256 + 2 * LINE + GAP + 128)) == (0, 255, 0)
    assert contact_sheet([("a\nb\nc", square("red"))], 1).height - one.height == 2 * LINE


def test_a_word_that_is_too_long_is_folded_too() -> None:
    sheet = contact_sheet([("M" * 40, square("red")), ("", square("red"))], 2, 64)
    assert sheet.height - contact_sheet([("M", square("red"))], 1, 64).height >= 4 * LINE
    beside = sheet.crop((GAP + 64, GAP + 64, sheet.width, sheet.height))
    assert {colour for _, colour in beside.getcolors(50_000) or ()} == {BACKGROUND}


@pytest.mark.parametrize("size", [(64, 16), (16, 64), (500, 100), (1, 300)])
def test_a_picture_keeps_its_shape_and_stands_in_the_middle(size: tuple[int, int]) -> None:
    sheet = contact_sheet([("", square("red", size))], 1, 64)
    red = [(x, y) for x in range(sheet.width) for y in range(sheet.height) if sheet.getpixel((x, y)) == (255, 0, 0)]
    width, height = (max(p[i] for p in red) - min(p[i] for p in red) + 1 for i in (0, 1))
    assert max(width, height) == 64
    assert abs(width / height - size[0] / size[1]) <= 0.05 * size[0] / size[1] or min(width, height) == 1
    assert abs(min(x for x, _ in red) - GAP - (64 - width) / 2) <= 0.5


def test_small_pictures_are_enlarged_without_blur() -> None:
    image = PIL.Image.new("RGB", (2, 1), "red")
    image.putpixel((1, 0), (0, 0, 255))
    sheet = contact_sheet([("", image)], 1, 64)
    inside = sheet.crop((GAP, GAP + 16, GAP + 64, GAP + 48))
    assert {colour for _, colour in inside.getcolors(5000) or ()} == {(255, 0, 0), (0, 0, 255)}


def test_a_missing_picture_is_an_empty_square_that_says_so() -> None:
    sheet = contact_sheet([("failed", None), ("", square("red"))], 2, 128)
    inside = sheet.crop((GAP + 1, GAP + 1, GAP + 127, GAP + 127))
    colours = {colour for _, colour in inside.getcolors(20000) or ()}
    assert BACKGROUND in colours
    assert len(colours) > 2, "there is a text"
    assert sheet.getpixel((GAP, GAP)) != BACKGROUND, "and a frame"


def test_grey_and_transparent_pictures_are_shown() -> None:
    sheet = contact_sheet([("", PIL.Image.new("L", (8, 8), 90)), ("", PIL.Image.new("1", (8, 8), 1))], 2, 64)
    assert [middle(sheet, 0, 0), middle(sheet, 1, 0)] == [(90,) * 3, (255,) * 3]
