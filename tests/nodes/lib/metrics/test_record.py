"""The catalogue of scores and the rows that say how each was made."""

from __future__ import annotations

import pytest

from graphflow.nodes.lib.metrics.catalogue import METRICS, metric
from graphflow.nodes.lib.metrics.record import Setting, recorded


@pytest.mark.parametrize("name", METRICS)
def test_every_score_says_what_a_table_needs(name):
    about = METRICS[name]
    assert about.title
    assert about.range.count("…") == 1
    assert about.definition
    assert about.source


def test_titles_are_unique():
    assert len({m.title for m in METRICS.values()}) == len(METRICS)


def test_a_region_stands_in_the_title():
    about = metric("psnr_outside")
    assert (about.title, about.unit, about.higher_is_better) == ("PSNR outside the mask", "dB", True)
    assert metric("lpips_inside").title == "LPIPS inside the mask"
    with pytest.raises(KeyError):
        metric("beauty")
    with pytest.raises(KeyError):
        metric("beauty_inside")


def test_rows_hold_number_definition_and_setting():
    setting = Setting(backbone="squeeze", weights="org/lpips@abc", input_range="[-1, 1]")
    scores, rows = recorded({"lpips": 0.25}, setting)
    assert scores == {"lpips": 0.25}
    assert rows == [
        {
            "score": "lpips", "value": 0.25, "unit": "", "higher_is_better": False, "range": "0 … about 1",
            "definition": "weighted squared distance of unit features", "source": "Zhang et al. 2018, eq. 1",
            "backbone": "squeeze", "weights": "org/lpips@abc", "input_range": "[-1, 1]", "resize": "none",
            "region": "whole", "reduction": "none", "scale": "1", "compat": "none", "missing": "",
        }
    ]  # fmt: skip


def test_what_is_missing_is_none_with_its_reason():
    scores, rows = recorded({"l1": None, "psnr": float("inf"), "ssim": float("nan")}, Setting(), "no pixels")
    assert scores == {"l1": None, "psnr": None, "ssim": None}
    assert [r["missing"] for r in rows] == ["no pixels", "the value is not finite: inf", "the value is not finite: nan"]
    _, rows = recorded({"l1": 0.5, "ssim": None}, Setting(), {"ssim": "too small"})
    assert [r["missing"] for r in rows] == ["", "too small"]
