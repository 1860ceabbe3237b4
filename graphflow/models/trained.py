"""`Weights` values: folders that training nodes return, which say themselves how they are loaded."""

from __future__ import annotations

import json
from pathlib import Path

from graphflow.errors import MissingError
from graphflow.models.refs import ModelRef


def ref_of_trained(folder: Path, role: str) -> ModelRef:
    """What a preset would say about a `Weights` value.

    Raises:
        MissingError: the folder does not say how to load it, or holds another role.
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
    return ModelRef(role, name, space, path=folder, options=options)
