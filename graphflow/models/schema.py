"""The JSON Schema of presets and of a graph's own models, and the words that all our schemas are made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from graphflow.models.preset import DTYPES, FORMAT, SOURCES
from graphflow.models.refs import Loader

Schema = dict[str, Any]
FILE: Schema = {"type": "string", "pattern": r"\.ya?ml$"}


def whole_file(properties: Schema, required: list[str], definitions: Schema) -> Schema:
    """The schema of a file; keys that begin with ``x-`` are the author's own."""
    own = {"^x-": {"description": "ignored: room for values that anchors share"}}
    file = closed(properties, required=required, patternProperties=own, definitions=definitions)
    return {"$schema": "http://json-schema.org/draft-07/schema#", **file}


def closed(properties: Schema, **more: Any) -> Schema:
    """A mapping with these keys only."""
    return {"type": "object", "properties": properties, "additionalProperties": False, **more}


def choices(values: Mapping[str, str]) -> list[Schema]:
    """One of several texts, each with what it means; for `anyOf`."""
    return [{"const": value, "description": description} for value, description in values.items()]


def if_value(key: str, value: str, then: Schema) -> Schema:
    """What holds as well for mappings with this text under `key`."""
    # A pattern, because yaml-language-server takes the beginning of a constant for the whole while it completes.
    return {"if": {"required": [key], "properties": {key: {"pattern": f"^{re.escape(value)}$"}}}, "then": then}


def preset_schema(roles: Iterable[str], presets: Mapping[str, str], loaders: Mapping[str, Loader]) -> Schema:
    """The schema of a preset file.

    Args:
        roles: what model ports ask for.
        presets: the presets that `extends:` may name, with their titles.
        loaders: what a model may name.
    """
    space = "the family whose latents and embeddings the models share; left out: the preset's name"
    properties = {
        "graphflow-preset": {"const": FORMAT, "default": FORMAT, "description": "version of the format"},
        "title": {"type": "string", "description": "which models these are, in a line"},
        "space": {"type": "string", "description": space},
        "extends": _extends(presets),
        "models": {"$ref": "#/definitions/models", "description": "role → model"},
    }
    required = ["graphflow-preset", "models"]
    return whole_file(properties, required, model_definitions(roles, presets, loaders))


def _extends(presets: Mapping[str, str]) -> Schema:
    what = "the preset, or preset file, that has the models which are left out here"
    return {"description": what, "anyOf": [*choices(presets), {**FILE, "description": "a preset file"}]}


def model_definitions(roles: Iterable[str], presets: Mapping[str, str], loaders: Mapping[str, Loader]) -> Schema:
    """The definitions ``models`` (role → model) and ``model``; the arguments are those of `preset_schema`."""
    by_role = {role: [loader.name for loader in loaders.values() if loader.role == role] for role in roles}
    any_model = {"$ref": "#/definitions/model"}
    properties: Schema = {"extends": _extends(presets)}
    for role, fitting in by_role.items():
        own = [{"properties": {"loader": {"enum": fitting}}}] if fitting else []
        properties[role] = {"description": f"the model of ports that take a {role}", "allOf": [any_model, *own]}
    models = {"type": "object", "properties": properties, "additionalProperties": any_model}
    return {"models": models, "model": _model(loaders)}


def _model(loaders: Mapping[str, Loader]) -> Schema:
    """An entry of a preset, or of a graph's `models:`."""
    docs = {
        "hub": "repository on the model hub: owner/name",
        "path": "folder, relative to this file",
        "packaged": "folder inside the installed package",
        "endpoint": "base URL of a service",
        "revision": "commit of the repository, which keeps its files the same for ever",
        "part": "sub-folder of the repository, such as vae",
        "space": "the family whose latents and embeddings it reads and writes",
    }
    properties: Schema = {
        "loader": {
            "description": "what loads it",
            "anyOf": choices({loader.name: f"loads a model as {loader.role}" for loader in loaders.values()}),
        },
        **{name: {"type": "string", "description": doc} for name, doc in docs.items()},
        "dtype": {"enum": list(DTYPES), "description": "floating-point type; left out: the run's"},
        "options": {"type": "object", "description": "settings of the loader"},
    }
    options = {n: closed({k: {"description": v} for k, v in found.options.items()}) for n, found in loaders.items()}
    fit = [if_value("loader", name, {"properties": {"options": found}}) for name, found in options.items()]
    one_source = [{"required": [source]} for source in SOURCES]
    return closed(properties, required=["loader"], oneOf=one_source, allOf=fit)
