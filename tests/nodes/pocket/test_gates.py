"""The gates' own helpers, without trained models."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from graphflow.nodes.pocket import exemplar_gates, gates


@pytest.mark.parametrize("module", [gates, exemplar_gates])
def test_noise_is_drawn_on_the_cpu_and_lies_where_the_unet_is(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def sample(denoiser: Any, noise_BChw: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        seen.append(noise_BChw)
        return noise_BChw

    for name, fake in {"ddim_sample": sample, "decode": lambda models, z_BChw: [], "PicturePrompted": print}.items():
        monkeypatch.setattr(module, name, fake, raising=False)
    monkeypatch.setattr(exemplar_gates, "ImagePrompt", lambda *_: None)
    unet = SimpleNamespace(config=SimpleNamespace(in_channels=4), device=torch.device("meta"))
    models: Any = SimpleNamespace(
        vae=SimpleNamespace(native_size=64, factor=4),
        denoiser=SimpleNamespace(unet=unet),
        text_encoder=SimpleNamespace(encode=lambda texts: torch.zeros(len(texts), 2, 3)),
        adapter=None,
    )
    if module is gates:
        gates.paint(models, ["a cat"], 0, gates.Counts())
    else:
        exemplar_gates.paint_from(models, torch.zeros(1, 8), ["a cat"], exemplar_gates.ExemplarCounts())
    assert [noise.device.type for noise in seen] == ["meta"]
    assert seen[0].shape == (1, 4, 16, 16)
