"""What the training nodes share. The trainings themselves are in `training` and need no engine."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from graphflow.node import Context, Field, Node, Seed

if TYPE_CHECKING:
    from graphflow.nodes.pocket.catalogue import Vocabulary
    from graphflow.nodes.pocket.training.loop import Loop

SPACE = "pocket"


class OnPictures(Node):
    """A node that draws its own pictures."""

    device: ClassVar[Literal["auto", "cpu", "accelerator"]] = "accelerator"

    vocabulary: Literal["pocket-64", "pocket-128"] = Field("pocket-128", description="what the pictures show, and size")
    seed: Seed = Field(0, description="seed of the pictures and of the first weights")
    workers: int = Field(1, ge=1, description="processes, each with batches of its own")

    def words(self) -> Vocabulary:
        from graphflow.nodes.pocket.catalogue import POCKET_64, POCKET_128

        return {words.name: words for words in (POCKET_64, POCKET_128)}[self.vocabulary]


class Training(OnPictures):
    """What every training has: warm-up, a flat learning rate and a linear fall to zero."""

    num_steps: int = Field(ge=1, description="optimiser steps")
    batch_size: int = Field(ge=1, description="samples of a step, in each process")
    learning_rate: float = Field(1e-3, gt=0, description="of the flat part")
    warmup: int = Field(100, ge=1, description="steps of linear warm-up")
    flat: float = Field(0.6, ge=0, lt=1, description="share of the steps before the learning rate falls")
    optimiser: Literal["adamw", "muon"] = Field("adamw", description="muon: of hidden matrices, beside AdamW")
    weight_decay: float = Field(0.01, ge=0, description="decoupled, per unit of learning rate")
    ema: float = Field(0.999, ge=0, lt=1, description="decay of the moving average of the weights, which is the result")
    average_every: int = Field(8, ge=1, description="steps between two averagings over the processes")
    bfloat16: bool = Field(True, description="automatic mixed precision")
    storage: Literal["float16", "int8"] = Field("float16", description="of the result; int8: a scale a channel")

    def loop(self, ctx: Context) -> Loop:
        """The hyper-parameters as the training functions take them."""
        from graphflow.nodes.pocket.training.loop import Loop

        names = ("batch_size", "learning_rate", "seed", "warmup", "flat", "weight_decay", "ema", "workers", "bfloat16")
        shared: dict[str, Any] = {name: getattr(self, name) for name in (*names, "average_every", "optimiser")}
        return Loop(count=self.num_steps, device=str(ctx.device), **shared)

    def result(
        self, folder: Path, role: str, loader: str, space: str = SPACE, leave: tuple[str, ...] = (), **options: str
    ) -> Path:
        """The trained model in `folder`, stored as asked but for what to leave, with what a port needs to load it."""
        from graphflow.nodes.lib import int8

        if self.storage == "int8":
            int8.store(folder, leave)
        text = json.dumps({"role": role, "loader": loader, "space": space, "options": options}, indent=1)
        (folder / "graphflow.json").write_text(text + "\n", encoding="utf-8")
        return folder


def runtime_of(ctx: Context, label: str) -> dict[str, Any]:
    """Where a training function reports and where it keeps its checkpoint."""

    def steps(numbers: Sequence[int]) -> Iterable[int]:
        return ctx.steps(numbers, total=len(numbers), label=label)

    return {"checkpoint": ctx.checkpoint, "steps": steps, "log": lambda line: ctx.log("%s: %s", label, line)}
