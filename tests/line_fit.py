"""A training of one line, in a module that further processes can import."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from graphflow.nodes.pocket.training.loop import Log, Loop, Steps, fit, is_main

RESUMED = Loop(
    count=8, batch_size=4, learning_rate=0.05, warmup=1, ema=0.9, average_every=3, save_seconds=0, bfloat16=False
)


def line() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def loss_of(model):
    def loss(step):
        x = torch.randn(step.batch_size, 3, generator=step.torch_rng)
        return (model(x) - x.sum(1, keepdim=True) - step.rng.random()).square().mean()

    return loss


def fitted_weight(steps: Steps, log: Log) -> Tensor:
    model = line()
    fit(model, loss_of(model), Loop(count=4, batch_size=4, learning_rate=0.05, average_every=2), None, steps, log)
    return model.weight.detach()


def resumed_weight(steps: Steps, log: Log, checkpoint: Path, drawers: int = 0) -> Tensor:
    model = line()

    def draw(step):
        return torch.randn(step.batch_size, 3, generator=step.torch_rng)

    def loss(step):
        return (model(step.drawn) - step.drawn.sum(1, keepdim=True)).square().mean()

    fit(model, loss, replace(RESUMED, drawers=drawers), checkpoint, steps, log, draw)
    return model.weight.detach()


def only_the_first_fails(steps: Steps, log: Log) -> None:
    if is_main():
        raise OSError("the disk is full")
    time.sleep(300)


class Deadly:
    """Ends the process that unpickles it."""

    def __reduce__(self):
        return os._exit, (3,)
