"""Small nodes with small models, which count what is loaded and can be told to run out of memory."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from reference import FLOAT, KINDS, TEXT, Kind
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from graphflow.errors import Mark
from graphflow.models.pool import ModelPool
from graphflow.models.refs import ModelRef, loader
from graphflow.node import BatchNode, Context, Field, Node, Ports
from graphflow.ports import Model, Text

ROLES = ("alpha", "beta", "gamma", "delta")
WIDTH = {"alpha": 64, "beta": 96, "gamma": 80, "delta": 48}
SIZE = {role: 4 * 64 * width for role, width in WIDTH.items()}
"""Bytes of each model."""

CALLS: list[tuple[str, int]] = []
"""The calls of nodes that got through: kind and how many elements."""


class Hooks:
    """What happens inside the nodes, as a test wants it. `entered` is called with a kind and what it computes."""

    entered: Callable[[str, Sequence[str]], None] = staticmethod(lambda kind, texts: None)
    appetite = 0  # bytes that `Rate` takes for each text while it runs


@contextmanager
def on_entry(do: Callable[[str, Sequence[str]], None]) -> Iterator[None]:
    """`do` is called whenever a node with a model begins."""
    before, Hooks.entered = Hooks.entered, staticmethod(do)
    try:
        yield
    finally:
        Hooks.entered = before


class Layer(nn.Module):
    """One matrix."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.weight)


def _load(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    assert folder is not None
    return Layer(load_file(folder / ref.part / "model.safetensors")["weight"].to(dtype))


@loader("sample.alpha", role="alpha", files=("{part}model.safetensors",))
def load_alpha(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    return _load(ref, folder, device, dtype)


@loader("sample.beta", role="beta", files=("{part}model.safetensors",))
def load_beta(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    return _load(ref, folder, device, dtype)


@loader("sample.gamma", role="gamma", files=("{part}model.safetensors",))
def load_gamma(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    return _load(ref, folder, device, dtype)


@loader("sample.delta", role="delta", files=("{part}model.safetensors",))
def load_delta(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    return _load(ref, folder, device, dtype)


def save_models(folder: Path, width: Callable[[str], int] = WIDTH.__getitem__) -> dict[str, Any]:
    """Write the models; returns what stands under ``models:`` of a graph."""
    for seed, role in enumerate(ROLES):
        (folder / role).mkdir(parents=True, exist_ok=True)
        weight = torch.randn(64, width(role), generator=torch.Generator().manual_seed(seed)) / 8
        save_file({"weight": weight}, folder / role / "model.safetensors")
    return {role: {"loader": f"sample.{role}", "path": str(folder), "part": role, "space": "sample"} for role in ROLES}


def models_line(folder: Path) -> str:
    """The same as a line of a graph file."""
    return f"models: {json.dumps(save_models(folder))}\n"


def refs_of(models: dict[str, Any]) -> dict[str, ModelRef]:
    """What the preset makes of them."""
    return {
        role: ModelRef(role, e["loader"], "sample", path=Path(e["path"]), part=role, mark=Mark("test"), name=role)
        for role, e in models.items()
    }


def numbers_of(text: str) -> Tensor:
    """64 numbers that depend on a text."""
    padded = text.encode()[:64].ljust(64, b"\0")
    return torch.frombuffer(bytearray(padded), dtype=torch.uint8).float() / 128 - 1


def answer(model: Callable[[Tensor], Tensor], kind: str, text: str, times: int) -> str:
    """All bits of what a model computes from a text."""
    found = numbers_of(text)
    for _ in range(times % 4 + 1):
        found = model(found[:64].repeat(2)[:64])
    return f"{found.sum().item().hex()} {kind[7]}"


def noise(seed: int) -> Tensor:
    return torch.randn(64, generator=torch.Generator().manual_seed(seed)) / 10


class Asks(Node):
    """A text that a model makes of a text. The text says all bits of what the model computed."""

    times: int = Field(1, description="how often, modulo four, plus one")

    class Out(Ports):
        text: Text

    def run(self, x: Any, ctx: Context) -> Any:
        Hooks.entered(self.kind, [x.text])
        for _ in ctx.steps(range(2)):
            text = answer(x.model, self.kind, x.text, self.times)
        CALLS.append((self.kind, 1))
        return self.Out(text=text)


class AskAlpha(Asks, kind="sample.alpha", version=1):
    """Asks the first model."""

    class In(Ports):
        text: Text
        model: Model["alpha"]


class AskBeta(Asks, kind="sample.beta", version=1):
    """Asks the second model."""

    class In(Ports):
        text: Text
        model: Model["beta"]


class AskGamma(Asks, kind="sample.gamma", version=1):
    """Asks the third model."""

    class In(Ports):
        text: Text
        model: Model["gamma"]


class AskDelta(Asks, kind="sample.delta", version=1):
    """Asks the fourth model."""

    class In(Ports):
        text: Text
        model: Model["delta"]


class Rate(BatchNode, kind="sample.rate", version=1):
    """A number that a model gives to a text, with noise that depends on the seed; several texts in one call."""

    seed: int = Field(0, description="of the noise")

    class In(Ports):
        text: Text
        model: Model["alpha"]

    class Out(Ports):
        rating: float

    def run_many(self, xs: Sequence[Any], ctx: Context) -> list[Any]:
        Hooks.entered(self.kind, [x.text for x in xs])
        for x in xs:
            if "bad" in x.text:
                raise ValueError(f"{x.text} is not welcome")
        hungry = torch.empty(len(xs) * Hooks.appetite, dtype=torch.uint8)
        found = torch.stack([numbers_of(x.text) + noise(self.seed) for x in xs])
        for _ in ctx.steps(range(3), label="rating"):
            found = xs[0].model(found)[:, :64]
        CALLS.append((self.kind, len(xs)))
        del hungry
        return [self.Out(rating=float(row.sum())) for row in found]


def _model(role: str) -> Layer:
    """The model that `save_models` writes."""
    seed = ROLES.index(role)
    return Layer(torch.randn(64, WIDTH[role], generator=torch.Generator().manual_seed(seed)) / 8)


def _rating(text: str, seed: int) -> float:
    found, model = (numbers_of(text) + noise(seed))[None], _model("alpha")
    for _ in range(3):
        found = model(found)[:, :64]
    return float(found[0].sum())


def _kind(role: str) -> Kind:
    def function(text: str, times: int) -> str:
        return answer(_model(role), f"sample.{role}", text, times)

    return Kind({"text": TEXT}, {"times": ("few", 1)}, {"text": TEXT}, function)


MODEL_KINDS = {f"sample.{role}": _kind(role) for role in ROLES}
MODEL_KINDS["sample.rate"] = Kind({"text": TEXT}, {"seed": ("few", 0)}, {"rating": FLOAT}, _rating)
KINDS.update(MODEL_KINDS)  # the reference knows them, too


class Pools:
    """Remembers the pools that runs make."""

    def __init__(self, monkeypatch: Any) -> None:
        self.made: list[ModelPool] = []
        self.highest = 0
        self._lock = threading.Lock()
        begin = ModelPool.__init__

        def init(pool: ModelPool, *args: Any) -> None:
            begin(pool, *args)
            self.made.append(pool)

        monkeypatch.setattr(ModelPool, "__init__", init)

    def sample(self, *event: Any) -> None:
        """Measure what is on each device now."""
        for pool in list(self.made):
            found = pool.resident_bytes
            with self._lock:
                self.highest = max(self.highest, found)


def loads(events: Sequence[Any]) -> Counter[str]:
    """How often each model was loaded from disk."""
    from graphflow.events import ModelLoaded

    return Counter(e.role for e in events if isinstance(e, ModelLoaded) and e.stage == "host")
