"""Masks of the data sets: white marks the region to edit, whatever the file looked like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_datasets as tiny
from PIL import Image

from graphflow.nodes.lib.datasets.files import picture
from graphflow.nodes.lib.datasets.masks import GreyMask, RegionMask, decode_runs, marked_region

LEFT = np.zeros((8, 12), bool)
LEFT[:, :6] = True


@pytest.mark.parametrize("runs", [[], [0, 5], [520, 3, 1030, 7], [512 * 512 - 4, 90], [600, 0]])
def test_runs_decode_as_the_official_script_does(runs: list[int]) -> None:
    flat = np.zeros(512 * 512, int)
    for i in range(0, len(runs), 2):
        for j in range(min(runs[i + 1], 512 * 512 - runs[i])):
            flat[runs[i] + j] = 1
    expected = flat.reshape(512, 512)
    expected[0, :] = expected[-1, :] = expected[:, 0] = expected[:, -1] = 1
    mask = np.asarray(decode_runs(runs))
    assert set(np.unique(mask)) <= {0, 255}
    assert np.array_equal(mask == 255, expected == 1)


def test_transparent_is_the_region() -> None:
    cut = tiny.cut_out(0)
    assert np.array_equal(np.asarray(marked_region(cut)) == 255, LEFT)
    palette = cut.convert("P")
    palette.info["transparency"] = palette.getpixel((0, 0))
    assert np.array_equal(np.asarray(marked_region(palette)) == 255, LEFT)


def test_without_transparency_white_is_the_region() -> None:
    painted = tiny.colour(0)
    painted.paste("white", (0, 0, 6, 8))
    painted.putpixel((9, 3), (254, 250, 251))  # a bright spot of the picture
    assert np.array_equal(np.asarray(marked_region(painted)) == 255, LEFT)
    assert np.array_equal(np.asarray(marked_region(painted.convert("RGBA"))) == 255, LEFT)


def test_a_drawing_in_black_and_white_may_be_lossy() -> None:
    drawn = Image.fromarray(np.where(LEFT, 250, 4).astype(np.uint8))
    assert np.array_equal(np.asarray(marked_region(drawn)) == 255, LEFT)


def test_a_mask_of_another_size_is_fitted_without_new_greys(tmp_path: Path) -> None:
    tiny.save(tiny.colour(0), tmp_path / "source.png")
    tiny.save(tiny.cut_out(0, (36, 24)), tmp_path / "mask.png")
    mask = RegionMask(picture(tmp_path, "mask.png", ""), picture(tmp_path, "source.png", ""))
    assert np.array_equal(np.asarray(mask.load()) == 255, LEFT)
    grey = GreyMask(mask.picture, mask.source)
    with pytest.raises(ValueError, match=r"mask.png: the mask is 36 × 24 pixels, its source 12 × 8"):
        grey.load()
