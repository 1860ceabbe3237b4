"""What a preset says about one role, and the loaders that turn it into a loaded model."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphflow.errors import Mark, UsageError
from graphflow.registry import place_of
from graphflow.source import STANDARD

if TYPE_CHECKING:
    import torch

COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class ModelRef:
    """A role bound to weights: exactly one of `hub`, `path`, `packaged` and `endpoint` says where they are.

    Attributes:
        role: captioner, llm, text_encoder, vae, denoiser, clip, …
        loader: name of the function that loads it, such as ``diffusers.vae``.
        space: the model family whose latents and embeddings it reads and writes.
        hub: repository on the model hub; `revision` pins its commit.
        path: a local folder.
        packaged: a folder inside the installed package ``graphflow/nodes``.
        endpoint: base URL of a service, for loaders that speak to one.
        part: sub-folder of the repository, such as ``vae``; empty for its root.
        dtype: floating-point type to load in; None leaves the choice to the run.
        options: further settings that the loader understands.
        name: the preset's entry; that of a role is what ports of the role get by default.
    """

    role: str
    loader: str
    space: str
    hub: str | None = None
    revision: str | None = None
    path: Path | None = None
    packaged: str | None = None
    endpoint: str | None = None
    part: str = ""
    dtype: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    mark: Mark = field(default=Mark("<preset>"), compare=False)
    name: str = ""

    def describe(self) -> str:
        """Where the model comes from, in a few words."""
        if self.hub:
            revision = self.revision or "main"
            # Only a commit is known by its beginning: two tags, or branches, may begin alike.
            name = f"{self.hub}@{revision[:12] if COMMIT.fullmatch(revision) else revision}"
        else:
            name = str(self.path or self.packaged or self.endpoint)
        return f"{name}/{self.part}" if self.part else name


LoadFunction = Callable[[ModelRef, "Path | None", "torch.device", "torch.dtype"], Any]


@dataclass(frozen=True)
class Loader:
    """A way to load a role.

    Attributes:
        name: what presets write under ``loader:``.
        role: the role that the loaded object plays.
        load: ``load(ref, folder, device, dtype)``; `folder` is the local root (without `part`), None for an endpoint.
        files: which files of a hub repository it needs, as patterns; ``{part}`` and ``{option}`` are filled in.
        options: option name → meaning; others are an error.
        dtype: floating-point type that it loads in when the preset leaves the choice open; empty for the run's.
        keeps: beginnings of the names of the tensors that stay in memory, where a file may hold others; empty for all.
    """

    name: str
    role: str
    load: LoadFunction
    files: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)
    dtype: str = ""
    keeps: tuple[str, ...] = ()

    def patterns(self, ref: ModelRef) -> list[str]:
        """The file patterns that `ref` needs from a repository, relative to its root."""
        prefix = f"{ref.part}/" if ref.part else ""
        values = {name: ref.options.get(name, "") for name in self.options}
        return [f.format(part=prefix, **values) for f in self.files]


_LOADERS: dict[str, Loader] = {}


def loader(
    name: str,
    role: str,
    files: tuple[str, ...] = (),
    options: Mapping[str, str] | None = None,
    dtype: str = "",
    keeps: tuple[str, ...] = (),
) -> Callable[[LoadFunction], LoadFunction]:
    """Register the decorated function as a loader; see `Loader` for the arguments.

    Raises:
        UsageError: another function has claimed the name already, be it one of the standard library.
    """

    def register(load: LoadFunction) -> LoadFunction:
        if not load.__module__.startswith(STANDARD + "."):
            loaders()  # so that a standard loader is there to be defended
        if name in _LOADERS and _identity(_LOADERS[name].load) != _identity(load):
            places = f"{place_of(_LOADERS[name].load)} and {place_of(load)}"
            raise UsageError(f"two functions claim the loader '{name}': {places}")
        _LOADERS[name] = Loader(name, role, load, files, dict(options or {}), dtype, keeps)
        return load

    return register


def _identity(load: LoadFunction) -> tuple[str, str]:
    return load.__module__, load.__qualname__


def loaders() -> Mapping[str, Loader]:
    """All loaders: those of the standard library and those that packs have registered."""
    importlib.import_module(f"{STANDARD}.loaders")  # registers the standard ones; imports no torch
    return _LOADERS
