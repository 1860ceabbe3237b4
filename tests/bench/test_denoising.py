"""The benchmarks of denoising and of swapping models run, and what they compare is the same."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def named(name: str) -> ModuleType:
        return importlib.import_module(name)

    return named


def test_every_method_gives_what_diffusers_gives(load, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark = load("denoise_vs_diffusers")
    benchmark.main(["--unet", "tiny", "--size", "64", "--steps", "2", "--repeats", "1"])
    rows = re.findall(r"^tiny: (.+?)  +ours.* ratio +[\d.]+ +difference (\S+) .*bound", capsys.readouterr().out, re.M)
    assert [title for title, _ in rows] == list(benchmark.CASES)
    assert all(float(difference) < 2e-5 for _, difference in rows)


def test_the_plug_and_play_reference_injects(load) -> None:
    """Equal results say little if the injection changed nothing."""
    import torch

    from graphflow.nodes.lib.injection import Injection

    benchmark = load("denoise_vs_diffusers")
    models = benchmark.Models(benchmark.SIZES["tiny"], torch.device("cpu"), torch.float32)
    case = benchmark.PlugAndPlay(models, 64, 3)
    injected = case.ours()
    case.injection = Injection({})
    assert benchmark.relative_difference(case.ours(), injected)[0] > 1e-3


def test_floating_point_operations_are_those_of_the_layers(load) -> None:
    import torch
    from torch.nn import functional as F

    benchmark = load("denoise_vs_diffusers")
    x, w = torch.empty(2, 3, 8, 8, device="meta"), torch.empty(4, 3, 3, 3, device="meta")
    a, b = torch.empty(5, 6, device="meta"), torch.empty(7, 6, device="meta")
    convolution, matrix = 2 * 2 * 4 * 64 * 27, 2 * 5 * 6 * 7
    assert benchmark.flops_of(lambda: (F.conv2d(x, w, padding=1), F.linear(a, b))) == convolution + matrix
    with torch.inference_mode():
        assert benchmark.flops_of(lambda: F.linear(a, b)) == matrix


def test_models_swap_under_a_budget_without_another_load(load, capsys: pytest.CaptureFixture[str]) -> None:
    load("model_swap").main(["--unet", "tiny", "--pictures", "2", "--memory", "14MiB"])
    printed = capsys.readouterr().out
    assert re.findall(r"(\d+) loads from disk", printed) == ["5", "5"]
    assert "pictures equal to the bit" in printed
