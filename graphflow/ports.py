"""Port types: what travels along an edge, how it is stored, and in which model space it lives.

A port type is a plain Python annotation that carries a `PortType`:

    class In(Ports):
        image: Image                    # a PIL picture
        prompts: list[Text]             # lists of any type
        mask: Mask | None = None        # optional
        model: Model["denoiser"]        # a loaded model, bound by the preset or by an edge of type Weights

The engine never imports torch: tensors are `Any` at run time and `torch.Tensor` to a type checker.
"""

from __future__ import annotations

import sys
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, dataclass_transform

from graphflow.series import TensorSeries

if TYPE_CHECKING:
    import PIL.Image
    from torch import Tensor

    PILImage = PIL.Image.Image
else:
    Tensor = PILImage = Any


@dataclass(frozen=True)
class PortType:
    """A kind of value: its name in graphs, the codec that stores it, its shape, and whose space it lives in.

    `space_from` lists the model roles that fix the space of such a value on a node: `Latents` on a node with a
    `vae` or a `denoiser` port belong to that model's space. An empty tuple means that the type has no space.
    """

    name: str
    codec: str
    doc: str = field(default="", compare=False)
    shape: str = field(default="", compare=False)
    space_from: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class ModelRole:
    """Marks a port that takes a model: `Model["vae"]`."""

    role: str


@dataclass(frozen=True)
class TextCond:
    """Text conditioning of a denoiser.

    Attributes:
        embeds: hidden states of the text encoder, (batch, tokens, width).
        pooled: pooled embedding for families that need one (SDXL, SD3, FLUX), (batch, width), else None.
    """

    embeds: Tensor
    pooled: Tensor | None = None


@dataclass(frozen=True)
class Trajectory:
    """The latents of an inversion, one for each level.

    Attributes:
        timesteps: the timestep at which each latent lies, ascending; the clean latents come first as -1.
        latents: (levels, batch, channels, height, width), in the same order.
    """

    timesteps: list[int]
    latents: Tensor


# Values that stay where they are: digested, never stored; they enter a graph as inputs only.
EXTERNAL = "external"
# The tables below are what yaml-language-server completes and what `graphflow nodes` prints.
_DENOISERS = ("denoiser", "instruct_denoiser")
_SPACED = (*_DENOISERS, "vae")
_TEXT_SPACED = ("text_encoder", *_DENOISERS)
Image = Annotated[PILImage, PortType("Image", "image", "an 8-bit RGB picture", "height width 3")]
Mask = Annotated[PILImage, PortType("Mask", "image", "an 8-bit grey picture; white marks the region", "height width")]
TEXT = PortType("Text", "json", "text")
Text = Annotated[str, TEXT]
Latents = Annotated[
    Tensor, PortType("Latents", "tensor", "latents of a diffusion model, scaled", "b c h w", space_from=_SPACED)
]
TrajectoryPort = Annotated[
    Trajectory, PortType("Trajectory", "trajectory", "latents of every inversion step", "t b c h w", space_from=_SPACED)
]
Features = Annotated[
    TensorSeries,
    PortType("Features", "series", "what a denoiser computes along a trajectory", "t × named tensors", ("denoiser",)),
]
TextCondPort = Annotated[
    TextCond,
    PortType("TextCond", "text_cond", "text conditioning", "b tokens width", space_from=_TEXT_SPACED),
]
EditDirection = Annotated[
    Tensor,
    PortType("EditDirection", "tensor", "a difference of text embeddings", "tokens width", _TEXT_SPACED),
]
Embedding = Annotated[
    Tensor, PortType("Embedding", "tensor", "joint image-text embeddings", "b width", ("clip", "image_encoder"))
]
Scores = Annotated[
    dict[str, float | None], PortType("Scores", "json", "named numbers; null where one is not available")
]
Folder = Annotated[Path, PortType("Folder", EXTERNAL, "a folder of files that the user names")]
Table = Annotated[list[dict[str, Any]], PortType("Table", "json", "rows of named values")]

INT = PortType("int", "json", "a whole number")
FLOAT = PortType("float", "json", "a number")
BOOL = PortType("bool", "json", "true or false")
_PLAIN: dict[Any, PortType] = {int: INT, float: FLOAT, bool: BOOL, str: TEXT}


# What a plain value of a type is in Python.
SCALARS: dict[str, tuple[type, ...]] = {"Text": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}
_IN_PYTHON: dict[str, tuple[type, ...]] = {**SCALARS, "Scores": (dict,), "Table": (list, tuple)}
_WORDS = {"Text": "text", "Scores": "named numbers", "Table": "rows of named values"}


def is_plain(name: str, value: Any) -> bool:
    """Whether a value is what the plain type of this name has. True and False are numbers to Python alone."""
    return isinstance(value, _IN_PYTHON[name]) and (name == "bool" or not isinstance(value, bool))


def plain_problem(type_: PortType, value: Any) -> str | None:
    """What is wrong with a plain value of this type, in a few words; None when nothing is, or the type is not plain.

    Every computed value passes here, so that it stays cheap: JSON's encoder has looked at what stands inside.
    """
    if type_.name not in _IN_PYTHON:
        return None
    if not is_plain(type_.name, value):
        return f"it is {type(value).__name__}, expected {_WORDS.get(type_.name, type_.name)}"
    if type_.name == "Scores":
        return _score_problem(value)
    return _row_problem(value) if type_.name == "Table" else None


def _score_problem(scores: Any) -> str | None:
    for name, number in scores.items():
        if not isinstance(name, str):
            return f"a score is called {name!r}, expected text"
        if number is not None and (not isinstance(number, int | float) or isinstance(number, bool)):
            return f"its '{name}' is {type(number).__name__}, expected a number or None"
    return None


def _row_problem(rows: Any) -> str | None:
    for position, row in enumerate(rows):
        if not isinstance(row, dict) or not all(isinstance(name, str) for name in row):
            return f"row {position} is no mapping of names to values"
    return None


class Model:
    """`Model["vae"]`: a loaded model of that role; a node never names a checkpoint."""

    def __class_getitem__(cls, role: str) -> Any:
        return Annotated[Any, ModelRole(role)]


class Weights:
    """`Weights["vae"]`: a trained model as a value: a folder of safetensors with its config (a `pathlib.Path`)."""

    def __class_getitem__(cls, role: str) -> Any:
        return Annotated[Any, weights_type(role)]


def weights_type(role: str) -> PortType:
    """The type of trained weights of a role."""
    return PortType(f"Weights[{role}]", "folder", f"trained weights of a {role}")


# Conversions that an edge may apply by itself. Everything else is a type error.
CONVERSIONS: dict[tuple[str, str], typing.Callable[[Any], Any]] = {
    ("int", "float"): float,
    ("Mask", "Image"): lambda mask: mask.convert("RGB"),
}


@dataclass(frozen=True)
class Port:
    """One input or output of a node."""

    name: str
    type: PortType | ModelRole
    is_list: bool = False
    optional: bool = False
    default: Any = None

    @property
    def role(self) -> str | None:
        """The model role, for a model port."""
        return self.type.role if isinstance(self.type, ModelRole) else None

    def describe(self) -> str:
        """The type as graphs and messages write it: ``list[Text]``, ``Image?``, ``model vae``."""
        name = f"model {self.type.role}" if isinstance(self.type, ModelRole) else self.type.name
        return (f"list[{name}]" if self.is_list else name) + ("?" if self.optional else "")


@dataclass_transform(kw_only_default=True)
class Ports:
    """Base of a node's `In` and `Out`: keyword-only values, one for each annotated port."""

    def __init__(self, **values: Any) -> None:
        declared = ports_of(type(self))
        unknown = values.keys() - declared.keys()
        missing = [p.name for p in declared.values() if not p.optional and p.name not in values]
        if unknown or missing:
            raise TypeError(
                f"{type(self).__qualname__} takes {', '.join(declared) or 'no ports'}; "
                f"unknown: {sorted(unknown) or 'none'}, missing: {missing or 'none'}"
            )
        for name, port in declared.items():
            object.__setattr__(self, name, values.get(name, port.default))

    def __repr__(self) -> str:
        return f"{type(self).__qualname__}({', '.join(ports_of(type(self)))})"


_PORTS: dict[type[Ports], dict[str, Port]] = {}


def ports_of(cls: type[Ports]) -> dict[str, Port]:
    """The declared ports of an `In` or `Out` class, in order.

    Raises:
        TypeError: an annotation is not a port type.
    """
    if cls not in _PORTS:
        hints = typing.get_type_hints(cls, vars(sys.modules[cls.__module__]), include_extras=True)
        names = [n for base in reversed(cls.__mro__) for n in vars(base).get("__annotations__", {})]
        _PORTS[cls] = {n: _port(cls, n, hints[n]) for n in names}
    return _PORTS[cls]


def _port(cls: type[Ports], name: str, hint: Any) -> Port:
    optional = hasattr(cls, name)
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        members = [a for a in typing.get_args(hint) if a is not types.NoneType]
        if len(members) == 1:
            hint = members[0]
    found, is_list = read_type(hint)
    if found is None:
        raise TypeError(f"{cls.__qualname__}.{name}: {hint!r} is not a port type (see graphflow.ports)")
    return Port(name, found, is_list, optional, getattr(cls, name, None))


def read_type(hint: Any) -> tuple[PortType | ModelRole | None, bool]:
    """The port type behind an annotation and whether it is a list; None when the annotation is not a port type."""
    is_list = typing.get_origin(hint) is list
    if is_list:
        hint = typing.get_args(hint)[0]
    if hint in (int, float, bool, str):
        return _PLAIN[hint], is_list
    for extra in getattr(hint, "__metadata__", ()):
        if isinstance(extra, PortType | ModelRole):
            return extra, is_list
    return None, is_list


_ANNOTATED: tuple[Any, ...] = (
    Image, Mask, Text, Latents, TrajectoryPort, Features, TextCondPort, EditDirection, Embedding, Scores, Table, Folder
)  # fmt: skip
PORT_TYPES: dict[str, PortType] = {t.name: t for t in (*(a.__metadata__[0] for a in _ANNOTATED), INT, FLOAT, BOOL)}


def type_by_name(text: str) -> tuple[PortType, bool] | None:
    """The port type that a graph file names: ``Image``, ``list[Text]``, ``Weights[vae]``; None when there is none."""
    is_list = text.startswith("list[") and text.endswith("]")
    name = text[5:-1] if is_list else text
    if name.startswith("Weights[") and name.endswith("]"):
        return weights_type(name[8:-1]), is_list
    return (PORT_TYPES[name], is_list) if name in PORT_TYPES else None
