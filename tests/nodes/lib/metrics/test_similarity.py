"""L1, L2, PSNR and SSIM against torchmetrics, scikit-image and formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from measures import half_mask, picture
from skimage.metrics import structural_similarity
from torchmetrics.functional import mean_absolute_error, mean_squared_error
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from graphflow.nodes.lib.metrics import similarity
from graphflow.nodes.lib.metrics.pixels import mask_of, to_unit

IMAGE, OTHER = picture(70, 52, 1), picture(70, 52, 2)
A, B = to_unit(IMAGE), to_unit(OTHER)
MASK = mask_of(half_mask(70, 52), IMAGE.size, "inside")
CLOSE = {"abs": 1e-5}


def scikit(a, b, **how):
    how = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 2} | how
    return structural_similarity(np.asarray(a) / 255, np.asarray(b) / 255, data_range=1.0, **how)


def test_whole_pictures_agree_with_torchmetrics_and_scikit_image():
    values, missing = similarity.compare(A, B)
    assert missing == {}
    assert values["l1"] == pytest.approx(mean_absolute_error(A.flatten(), B.flatten()).item(), **CLOSE)
    assert values["l2"] == pytest.approx(mean_squared_error(A.flatten(), B.flatten()).item(), **CLOSE)
    assert values["psnr"] == pytest.approx(peak_signal_noise_ratio(A, B, data_range=1.0).item(), abs=1e-4)
    assert values["ssim"] == pytest.approx(scikit(IMAGE, OTHER), **CLOSE)


def test_ssim_over_the_border_too_is_that_of_todays_torchmetrics():
    theirs = structural_similarity_index_measure(A, B, data_range=1.0).item()
    assert similarity.ssim(A, B, windows="all") == pytest.approx(theirs, **CLOSE)
    assert abs(similarity.ssim(A, B) - theirs) > 1e-4


def test_l2_is_no_root():
    assert similarity.l2(A, B) == pytest.approx(np.mean((np.asarray(IMAGE) / 255 - np.asarray(OTHER) / 255) ** 2))


def test_a_wrong_range_changes_every_number():
    right, _ = similarity.compare(A, B)
    wrong, _ = similarity.compare(A * 2 - 1, B * 2 - 1)
    assert all(abs(right[k] - wrong[k]) > 1e-3 for k in similarity.NAMES)


def test_a_region_is_the_mean_over_its_pixels():
    values, _ = similarity.compare(A, B, MASK)
    left = slice(0, 70 // 3)
    a, b = (np.asarray(i)[:, left] / 255 for i in (IMAGE, OTHER))
    assert values["l1"] == pytest.approx(np.abs(a - b).mean())
    assert values["l2"] == pytest.approx(((a - b) ** 2).mean())
    assert values["psnr"] == pytest.approx(-10 * np.log10(((a - b) ** 2).mean()))
    _, full = scikit(IMAGE, OTHER, full=True)
    assert values["ssim"] == pytest.approx(full[5:-5, 5 : 70 // 3].mean(), **CLOSE)


def test_inside_and_outside_are_weighted_parts_of_the_whole():
    share = MASK.mean().item()
    whole, inside, outside = (similarity.l2(A, B, m) for m in (None, MASK, 1 - MASK))
    assert whole == pytest.approx(share * inside + (1 - share) * outside)


def test_pie_bench_counts_the_pixels_outside_as_perfect():
    a, b = ((x * MASK) for x in (A, B))
    values, _ = similarity.compare(A, B, MASK, "multiply")
    assert values["psnr"] == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1.0).item(), abs=1e-4)
    assert values["l2"] == pytest.approx(MASK.mean().item() * similarity.l2(A, B, MASK))
    arrays = [(np.asarray(i) * MASK[0, 0].numpy()[..., None]) for i in (IMAGE, OTHER)]
    assert values["ssim"] == pytest.approx(scikit(*arrays), **CLOSE)
    assert values["psnr"] > similarity.compare(A, B, MASK)[0]["psnr"] + 3


def test_what_can_not_be_had_is_none_with_a_reason():
    values, missing = similarity.compare(A, B, torch.zeros_like(MASK))
    assert values == dict.fromkeys(similarity.NAMES)
    assert set(missing.values()) == {"the region has no pixels"}
    border = torch.zeros_like(MASK)
    border[..., 0, :] = 1
    values, missing = similarity.compare(A, B, border)
    assert values["l1"] is not None
    assert values["ssim"] is None
    assert missing == {"ssim": "no window of SSIM lies around a pixel of the region"}
    tiny = torch.rand(1, 3, 10, 40)
    assert similarity.compare(tiny, tiny)[1] == {"ssim": "SSIM needs at least 11x11 pixels, the picture has 40x10"}


def test_equal_pictures():
    values, _ = similarity.compare(A, A)
    assert values == {"l1": 0, "l2": 0, "psnr": float("inf"), "ssim": pytest.approx(1)}
