"""What a node returns on a device waits in host memory."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image as Pictures

from graphflow.executors.host import to_host, with_tensors
from graphflow.node import Ports
from graphflow.ports import Image, Latents, TextCond, TextCondPort


class Out(Ports):
    latents: Latents
    cond: TextCondPort
    levels: list[Latents]
    image: Image


def outputs() -> Any:
    return Out(
        latents=torch.zeros(1, 4, 2, 2),
        cond=TextCond(torch.ones(1, 3, 8), None),
        levels=[torch.zeros(1), torch.ones(1)],
        image=Pictures.new("RGB", (2, 2)),
    )


def test_every_tensor_is_reached_and_everything_else_stays() -> None:
    out = outputs()
    moved = with_tensors(out, lambda tensor: tensor + 1)
    assert type(moved) is Out
    assert moved.latents.unique().tolist() == [1]
    assert moved.cond.embeds.unique().tolist() == [2]
    assert moved.cond.pooled is None
    assert [level.item() for level in moved.levels] == [1, 2]
    assert moved.image is out.image
    assert out.latents.unique().tolist() == [0]


def test_what_is_in_host_memory_is_not_copied() -> None:
    out = outputs()
    assert to_host(out).latents is out.latents
    assert to_host(out).cond is out.cond


def test_tensors_lie_as_they_would_come_from_the_store() -> None:
    out = outputs()
    out = Out(
        latents=torch.randn(1, 4, 3, 5).to(memory_format=torch.channels_last),
        cond=TextCond(torch.ones(1, 3, 8).requires_grad_().transpose(1, 2), None), levels=out.levels, image=out.image,
    )  # fmt: skip
    moved = to_host(out)
    assert torch.equal(moved.latents, out.latents)
    assert moved.latents.is_contiguous()
    assert moved.cond.embeds.is_contiguous()
    assert not moved.cond.embeds.requires_grad
