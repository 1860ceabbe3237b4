"""A training of one line, in a module that further processes can import."""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn

from graphflow.nodes.pocket.training.loop import Log, Loop, Steps, fit


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


class Deadly:
    """Ends the process that unpickles it."""

    def __reduce__(self):
        return os._exit, (3,)
