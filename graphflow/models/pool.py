"""Loaded models: each is loaded once a run and shared by all nodes that use it."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphflow.errors import MissingError
from graphflow.events import Listener, ModelLoaded
from graphflow.models.files import local_folder
from graphflow.models.refs import ModelRef, loaders

if TYPE_CHECKING:
    import torch

# from_pretrained patches torch's module construction process-wide while it runs (diffusers#4296): one load at a time.
_LOADING = threading.Lock()


class ModelPool:
    """Loads models on first use and keeps them."""

    def __init__(self, device: torch.device, dtype: torch.dtype, emit: Listener) -> None:
        self.device, self.dtype, self.emit = device, dtype, emit
        self._loaded: dict[tuple[str, ...], Any] = {}

    def get(self, ref: ModelRef) -> Any:
        """The loaded model of a preset's entry.

        Raises:
            MissingError: its files are not on this machine.
        """
        return self._load(ref, local_folder(ref))

    def get_trained(self, folder: Path, role: str) -> Any:
        """The loaded model of a `Weights` value.

        Raises:
            MissingError: the folder does not say how to load it.
        """
        described = folder / "graphflow.json"
        try:
            data = json.loads(described.read_text())
            found, name, space = data["role"], data["loader"], data["space"]
            options = dict(data.get("options", {}))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise MissingError(f"{described} does not say how to load these weights: {error}") from error
        if found != role:
            raise MissingError(f"{folder} holds a {found}, expected a {role}")
        return self._load(ModelRef(role, name, space, path=folder, options=options), folder)

    def _load(self, ref: ModelRef, folder: Path | None) -> Any:
        import torch

        identity = (ref.loader, str(folder or ref.endpoint), ref.part, str(ref.dtype), json.dumps(dict(ref.options)))
        with _LOADING:
            if identity not in self._loaded:
                if folder is None and not ref.endpoint:
                    raise MissingError(f"{ref.role}: {ref.describe()} is not on this machine")
                known = loaders()
                if ref.loader not in known:
                    raise MissingError(f"{ref.role}: there is no loader '{ref.loader}'")
                dtype = getattr(torch, ref.dtype) if ref.dtype else self.dtype
                began = time.perf_counter()
                self._loaded[identity] = known[ref.loader].load(ref, folder, self.device, dtype)
                seconds = time.perf_counter() - began
                self.emit(ModelLoaded(role=ref.role, name=ref.describe(), seconds=seconds))
            return self._loaded[identity]
