"""Pools that keep their events, a loader that waits, and what tests ask of loaded models."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from graphflow.errors import Mark
from graphflow.events import Event, ModelLoaded
from graphflow.models import modules
from graphflow.models.pool import ModelPool
from graphflow.models.preset import load_preset

PICTURE = Image.effect_noise((48, 40), 60).convert("RGB")
POCKET = load_preset("pocket", Mark("test"), Path()).models


class Watched(ModelPool):
    """A pool on the CPU that keeps its events."""

    def __init__(self, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self.events: list[Event] = []
        super().__init__(torch.device(device), dtype, self.events.append)

    def loads(self) -> list[str]:
        return [event.name for event in self.events if isinstance(event, ModelLoaded) and event.stage == "host"]


class Gate:
    """A loader that waits until it is let through, and counts."""

    def __init__(self) -> None:
        self.open, self.entered, self.count = threading.Event(), threading.Event(), 0
        self.error: Exception | None = None

    def __call__(self, ref: Any, folder: Any, device: Any, dtype: Any) -> Any:
        self.count += 1
        self.entered.set()
        assert self.open.wait(30)
        if self.error is not None:
            raise self.error
        return nn.Linear(4, 4)


def tensors(value: Any) -> list[torch.Tensor]:
    return list(modules.tensors_of(modules.parts_of(modules.roots_of(value)).values()))
