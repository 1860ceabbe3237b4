"""Nodes that run in the process of a device: values of every kind come from one and go into another, and trouble."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from model_samples import numbers_of
from safetensors.torch import save_file

from graphflow.codecs import CODECS, digest_json
from graphflow.node import Context, Field, Node, Ports
from graphflow.ports import (
    EditDirection,
    Features,
    Image,
    Latents,
    Mask,
    Model,
    Scores,
    Text,
    TextCond,
    TextCondPort,
    Trajectory,
    TrajectoryPort,
    Weights,
)
from graphflow.series import SeriesWriter


def say_pid(folder: str) -> None:
    """Leave the process, its group and its number of threads for the test to read."""
    with (Path(folder) / "pids").open("a") as file:
        file.write(f"{os.getpid()} {os.getpgid(0)} {torch.get_num_threads()}\n")


class Make(Node):
    """A value of every kind, of what a model makes of a text."""

    notes: str = Field("", description="folder for the process's number")

    not_in_key = frozenset({"notes"})

    class In(Ports):
        text: Text
        model: Model["alpha"]

    class Out(Ports):
        text: Text
        scores: Scores
        image: Image
        mask: Mask
        latents: Latents
        direction: EditDirection
        cond: TextCondPort
        path: TrajectoryPort
        features: Features
        weights: Weights["beta"]

    def run(self, x: Any, ctx: Context) -> Any:
        say_pid(self.notes)
        print("nodes may print")
        found = x.model(numbers_of(x.text))
        for _ in ctx.steps(range(3), label="making"):
            ctx.preview(found.reshape(1, 4, 4, 4))
        ctx.log("made of %s", x.text)
        pooled = found[:8][None].clone()
        image = PIL.Image.frombytes("RGB", (5, 4), bytes(int(v * 127 + 128) for v in found[:60].tolist()))
        latents = found.reshape(1, 4, 4, 4)
        series = SeriesWriter(ctx.folder())
        series.add(7, {"a": found, "b": found.to(torch.bfloat16)})
        weights = ctx.folder()
        (weights / "graphflow.json").write_text(json.dumps({"role": "beta", "loader": "sample.beta", "space": "s"}))
        save_file({"weight": torch.outer(found, found[:48])}, weights / "model.safetensors")
        return self.Out(
            text=x.text + " ü", scores={"a": float(found[0]), "b": None}, image=image, mask=image.convert("L"),
            latents=latents, direction=found.reshape(2, 32).T, cond=TextCond(found.reshape(1, 2, 32), pooled),
            path=Trajectory([-1, 3], torch.stack([latents, latents * 2])), features=series.finish({"n": 1}, {}),
            weights=weights,
        )  # fmt: skip


class MakeKept(Make, kind="travel.make", version=1):
    """The store has what it makes."""

    cache = "always"


class MakeFleeting(Make, kind="travel.fleeting", version=1):
    """The store never has what it makes."""

    cache = "never"


class Use(Node, kind="travel.use", version=1):
    """The digests of all that comes in; a picture in place of the mask."""

    class In(Ports):
        text: Text
        scores: Scores
        image: Image
        mask: Image
        latents: Latents
        direction: EditDirection
        cond: TextCondPort
        path: TrajectoryPort
        features: Features
        model: Model["beta"]

    class Out(Ports):
        text: Text
        answer: Latents

    def run(self, x: Any, ctx: Context) -> Any:
        ports = {name: port.type for name, port in type(self).inputs().items() if port.role is None}
        found = [CODECS[kind.codec].digest(getattr(x, name)) for name, kind in ports.items()]
        answer = x.model(x.latents.flatten()).reshape(1, 3, 4, 4)
        return self.Out(text=f"{x.mask.mode} {digest_json(found)}", answer=answer)


class Gather(Node, kind="travel.gather", version=1):
    """Lists, the other way round."""

    class In(Ports):
        texts: list[Text]
        pictures: list[Image]
        latents: list[Latents]
        conds: list[TextCondPort]
        model: Model["gamma"]

    class Out(Ports):
        texts: list[Text]
        pictures: list[Image]
        latents: list[Latents]
        conds: list[TextCondPort]

    def run(self, x: Any, ctx: Context) -> Any:
        return self.Out(texts=x.texts[::-1], pictures=x.pictures[::-1], latents=x.latents[::-1], conds=x.conds[::-1])


class Moody(Node, kind="travel.moody", version=1):
    """Does what the text says, and leaves the number of its process in a folder."""

    notes: str = Field(description="folder for the process's number and other marks")

    class In(Ports):
        text: Text
        model: Model["alpha"]

    class Out(Ports):
        text: Text

    def run(self, x: Any, ctx: Context) -> Any:
        say_pid(self.notes)
        word = x.text.partition(" ")[0]
        getattr(self, f"do_{word}", lambda x, ctx: None)(x, ctx)
        return self.Out(text=f"{x.text} {x.model(numbers_of(x.text)).sum().item().hex()}")

    def do_fail(self, x: Any, ctx: Context) -> None:
        raise ValueError(f"{x.text} is not welcome")

    def do_break(self, x: Any, ctx: Context) -> None:
        raise KeyError("nothing")

    def do_kill(self, x: Any, ctx: Context) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def do_exit(self, x: Any, ctx: Context) -> None:
        os._exit(7)

    def do_poison(self, x: Any, ctx: Context) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def do_full(self, x: Any, ctx: Context) -> None:
        if self.first("full"):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def do_resume(self, x: Any, ctx: Context) -> None:
        assert ctx.checkpoint is not None
        if not (ctx.checkpoint / "half").exists():
            (ctx.checkpoint / "half").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def do_wait(self, x: Any, ctx: Context) -> None:
        (Path(self.notes) / "waiting").touch()
        for _ in ctx.steps(range(100_000)):
            time.sleep(0.01)

    def first(self, mark: str) -> bool:
        path = Path(self.notes) / mark
        there = path.exists()
        path.touch()
        return not there


class Look(Node, kind="travel.look", version=1):
    """The colour of a picture, however it came."""

    class In(Ports):
        image: Image
        model: Model["alpha"]

    class Out(Ports):
        text: Text

    def run(self, x: Any, ctx: Context) -> Any:
        return self.Out(text=bytes(x.image.getpixel((0, 0))).hex())
