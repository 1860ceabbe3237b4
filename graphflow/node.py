"""The node contract.

A node *is* its parameters: a frozen pydantic model whose fields are what a graph writes under `with:`. `In` and `Out`
are its ports, and `run` is ordinary code; so is its test: ``Blur(radius=2).run(Blur.In(image=picture), Context())``.

    class Blur(Node, kind="image.blur", version=1):
        \"\"\"Gaussian blur.\"\"\"

        radius: float = Field(2.0, ge=0, description="standard deviation in pixels")

        class In(Ports):
            image: Image

        class Out(Ports):
            image: Image

        def run(self, x: In, ctx: Context) -> Out:
            return self.Out(image=x.image.filter(ImageFilter.GaussianBlur(self.radius)))

What a node may say to the cache, as class attributes (the defaults fit nearly every node):

    version         raise it when the same inputs give another result; old results are no longer used
    deterministic   False: a result is never reused from another run
    cache           auto: stored when that pays; always; never
    device          where it computes, which decides whether device and dtype belong to its key: cpu; accelerator;
                    auto (default): the accelerator if there is a model port, else the CPU
    not_in_key      parameters that can't change the result
    same_as_absent  parameters added later, which at their default leave old results valid

Modules that define nodes are imported to check and plan a graph: they must not import torch at module level.
"""

from __future__ import annotations

import inspect
import logging
import math
from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from graphflow.ports import EXTERNAL, ModelRole, Port, Ports, ports_of, read_type

if TYPE_CHECKING:
    import torch

__all__ = ["Context", "Field", "Node", "Ports", "Seed"]

Seed = Annotated[int, Field(ge=0, le=2**64 - 1)]
"""A parameter that seeds a generator, 64 bits: torch's fail on larger numbers, but only when the node runs."""

T = TypeVar("T")


class Context:
    """A node's only door to the world while it runs.

    The base class works by itself, without an engine: `Context()` is what unit tests and scripts pass to `run`.
    """

    def __init__(
        self, device: str = "cpu", dtype: str = "float32", checkpoint: Path | None = None, out: Path | None = None
    ) -> None:
        self.device_name, self.dtype_name = device, dtype
        self._checkpoint, self._out = checkpoint, out
        self._log = logging.getLogger("graphflow.node")

    @property
    def device(self) -> torch.device:
        """Where tensors of this node belong."""
        import torch

        return torch.device(self.device_name)

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type that models of this node compute in."""
        import torch

        dtype = getattr(torch, self.dtype_name)
        assert isinstance(dtype, torch.dtype)
        return dtype

    def steps(self, iterable: Iterable[T], total: int | None = None, label: str = "") -> Iterator[T]:
        """Iterate and report progress; raises `graphflow.errors.Cancelled` between two steps of a cancelled run."""
        yield from iterable

    def preview(self, latents: torch.Tensor) -> None:
        """Offer intermediate latents (b c h w) to whoever watches; costs nothing when nobody does."""

    def rng(self, seed: int) -> torch.Generator:
        """A fresh CPU generator: the same seed gives the same numbers on every device and executor."""
        import torch

        return torch.Generator("cpu").manual_seed(seed)

    def log(self, message: str, *args: object) -> None:
        """A line for the run's log."""
        self._log.info(message, *args)

    @property
    def checkpoint(self) -> Path | None:
        """A folder that survives a killed run of this very node (same key), or None: save there, resume from there."""
        return self._checkpoint

    def folder(self) -> Path:
        """A new empty folder for a node that returns `Weights`; its contents become the value."""
        import tempfile

        return Path(tempfile.mkdtemp(prefix="weights-", dir=self._out))


class Node(BaseModel):
    """Base of every node; see the module's docstring for the contract."""

    # No infinity: a parameter belongs to a key, and keys are made of JSON.
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, protected_namespaces=(), allow_inf_nan=False
    )

    kind: ClassVar[str] = ""
    version: ClassVar[int] = 1
    deterministic: ClassVar[bool] = True
    cache: ClassVar[Literal["auto", "always", "never"]] = "auto"
    device: ClassVar[Literal["auto", "cpu", "accelerator"]] = "auto"
    not_in_key: ClassVar[frozenset[str]] = frozenset()
    same_as_absent: ClassVar[frozenset[str]] = frozenset()

    In: ClassVar[type[Ports]]
    Out: ClassVar[type[Ports]]

    @field_validator("*")
    @classmethod
    def _finite(cls, value: Any) -> Any:
        """JSON has no other numbers: in a key an infinity would look like null. pydantic leaves `Any` unchecked."""
        if not _all_finite(value):
            raise PydanticCustomError("finite_number", "every number in it should be finite")
        return value

    @abstractmethod
    def run(self, x: Any, ctx: Context) -> Any:
        """Compute the outputs. `x` is an instance of `In`; return an instance of `Out`."""

    def __init_subclass__(cls, kind: str = "", version: int = 1, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)  # kind and version are read below, once pydantic knows the fields

    @classmethod
    def __pydantic_init_subclass__(cls, kind: str = "", version: int = 1, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if not kind:
            return  # an abstract base that several nodes share
        cls.kind, cls.version = kind, version
        for name in ("In", "Out"):
            if not (isinstance(getattr(cls, name, None), type) and issubclass(getattr(cls, name), Ports)):
                raise TypeError(f"node {kind}: {cls.__name__}.{name} must be a class that derives from Ports")
        for name, parameter in cls.model_fields.items():
            if not parameter.description:
                raise TypeError(f"node {kind}: parameter '{name}' has no description")
        for port in cls.outputs().values():
            if isinstance(port.type, ModelRole) or port.type.codec == EXTERNAL:
                raise TypeError(f"node {kind}: output '{port.name}' is a {port.describe()}, which can't leave a node")
        if clash := cls.model_fields.keys() & cls.inputs().keys():
            raise TypeError(f"node {kind}: {sorted(clash)} are both parameters and input ports")
        from graphflow.registry import register

        register(cls)

    def decide(self, models: Mapping[str, Mapping[str, Any]], device: str, dtype: str) -> tuple[Node, str]:
        """The node with the choices made that its parameters leave to the plan, and why in a few words.

        By default it is the node itself and nothing. What is decided counts for the key like any parameter, and the
        plan shows the words. Called whenever the node is planned: it must be quick and import no torch.

        Args:
            models: model port → its ``config.json``; empty where that is not on this machine.
            device: kind of the device of the run, such as ``cpu``.
            dtype: floating-point type of the run, such as ``float32``.
        """
        return self, ""

    def missing_port(self, fed: Collection[str]) -> str:
        """What these parameters ask for, and no edge brings, in a few words; empty if nothing.

        For ports that are needed with some parameters only. Asked by the check, as far as parameters are known there,
        and by the plan.

        Args:
            fed: the input ports that an edge feeds.
        """
        return ""

    @classmethod
    def inputs(cls) -> dict[str, Port]:
        """Input ports, models included, in order."""
        return ports_of(cls.In)

    @classmethod
    def outputs(cls) -> dict[str, Port]:
        """Output ports in order."""
        return ports_of(cls.Out)

    @classmethod
    def model_ports(cls) -> dict[str, str]:
        """Port name → role, for the ports that take a model."""
        return {p.name: p.role for p in cls.inputs().values() if p.role is not None}

    @classmethod
    def accelerated(cls) -> bool:
        """Whether device and dtype belong to the key."""
        return cls.device == "accelerator" or (cls.device == "auto" and bool(cls.model_ports()))

    @classmethod
    def parameter_port(cls, name: str) -> Port:
        """A parameter seen as a port, so that an edge can feed it.

        Raises:
            TypeError: the parameter's type has no port type.
        """
        info = cls.model_fields[name]
        found, is_list = read_type(_plain_hint(info.annotation))
        if found is None or isinstance(found, ModelRole):
            raise TypeError(f"parameter '{name}' of {cls.kind} takes only a constant")
        return Port(name, found, is_list, not info.is_required(), None if info.is_required() else info.default)

    def key_parameters(self) -> dict[str, Any]:
        """The parameters that count for the key, as JSON values."""
        dumped = self.model_dump(mode="json", exclude=set(self.not_in_key))
        for name in self.same_as_absent:
            if name in dumped and getattr(self, name) == type(self).model_fields[name].default:
                del dumped[name]
        return dumped

    @classmethod
    def summary(cls) -> str:
        """The first line of the docstring."""
        return (inspect.getdoc(cls) or "").partition("\n")[0]


class BatchNode(Node):
    """A node that can serve several elements of a `map` in one call; batch size never changes a result.

    It defines `run_many`; `run` is a batch of one.
    """

    def run(self, x: Any, ctx: Context) -> Any:
        """Compute the outputs of one element."""
        return self.run_many([x], ctx)[0]

    @abstractmethod
    def run_many(self, xs: Sequence[Any], ctx: Context) -> list[Any]:
        """The same as ``[self.run(x, ctx) for x in xs]``, faster."""


def _all_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(map(_all_finite, value.values()))
    return not isinstance(value, list | tuple | set) or all(map(_all_finite, value))


def _plain_hint(hint: Any) -> Any:
    import typing

    if typing.get_origin(hint) is Literal:
        return str
    members = [a for a in typing.get_args(hint) if a is not type(None)]
    return members[0] if len(members) == 1 and typing.get_origin(hint) is not list else hint
