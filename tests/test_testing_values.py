"""When two values of a port count as the same but for rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image as Picture

from graphflow.ports import (
    Features,
    Image,
    Latents,
    Ports,
    Scores,
    Text,
    TextCond,
    TextCondPort,
    Trajectory,
    TrajectoryPort,
    ports_of,
)
from graphflow.series import SeriesWriter
from graphflow.testing.values import close


class Values(Ports):
    text: Text
    texts: list[Text]
    scores: Scores
    image: Image
    latents: Latents
    cond: TextCondPort
    trajectory: TrajectoryPort
    features: Features


def same(name: str, a: Any, b: Any) -> bool:
    return close(ports_of(Values)[name], a, b)


Z = torch.tensor([[1.0, -200.0]])


@pytest.mark.parametrize(
    ("name", "a", "b", "c"),
    [
        ("text", "a", "a", "b"),
        ("texts", ["a", "b"], ["a", "b"], ["a"]),
        ("scores", {"x": 1.0, "y": None}, {"x": 1.0 + 1e-6, "y": None}, {"x": 1.0 + 1e-4, "y": None}),
        ("scores", {"x": 1.0}, {"x": 1.0}, {"x": None}),
        ("image", Picture.new("RGB", (2, 2), (9, 9, 9)), Picture.new("RGB", (2, 2), (9, 10, 9)),
         Picture.new("RGB", (2, 2), (9, 11, 9))),
        ("image", Picture.new("L", (2, 2)), Picture.new("L", (2, 2), 1), Picture.new("L", (2, 3))),
        ("latents", Z, Z + 1e-3, Z + 1e-2),
        ("latents", Z, Z, Z.double()),
        ("cond", TextCond(Z), TextCond(Z + 1e-3), TextCond(Z, Z)),
        ("cond", TextCond(Z, Z), TextCond(Z, Z + 1e-3), TextCond(Z, -Z)),
        ("trajectory", Trajectory([1], Z), Trajectory([1], Z + 1e-3), Trajectory([2], Z)),
    ],
)  # fmt: skip
def test_rounding_is_close_and_more_is_not(name: str, a: Any, b: Any, c: Any) -> None:
    assert same(name, a, b)
    assert same(name, b, a)
    assert not same(name, a, c)


def test_features_are_compared_by_timestep(tmp_path: Path) -> None:
    def series(name: str, z: torch.Tensor, **notes: Any) -> Any:
        (tmp_path / name).mkdir()
        writer = SeriesWriter(tmp_path / name)
        writer.add(7, {"latents": z})
        return writer.finish(notes, {"cond": Z})

    first = series("a", Z, steps=1)
    assert same("features", first, series("b", Z + 1e-3, steps=1))
    assert not same("features", first, series("c", Z + 1e-2, steps=1))
    assert not same("features", first, series("d", Z, steps=2))
