"""The JSON Schema of graph files in the wording of draft-07, from which an editor completes and checks.

It is made for yaml-language-server and uses one keyword of its own, `patternErrorMessage`. A description beside a
`$ref`, which validators skip, is what it shows for a port.

The schema sees one file and no edge's other end: that a node has the output which an edge names is for `check`. And
JSON Schema takes 3.0 for an integer, which the check does not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from graphflow.models.refs import Loader
from graphflow.models.schema import FILE, Schema, choices, closed, if_value, model_definitions, whole_file
from graphflow.node import Node
from graphflow.ports import PORT_TYPES, ModelRole, Port, weights_type
from graphflow.spec import FORMAT, RESERVED, GraphSpec, InputSpec

_NAME = "[A-Za-z_][A-Za-z0-9_]*"
_EDGE: Schema = {
    "type": "string",
    "pattern": rf"^{_NAME}\.{_NAME}$",
    "patternErrorMessage": "an edge is node.port, inputs.name or models.name; constants stand under 'with:'",
}
_EDGES: Schema = {"anyOf": [{"$ref": "#/definitions/edge"}, {"type": "array", "items": {"$ref": "#/definitions/edge"}}]}
_PLAIN: dict[str, Schema] = {
    "Text": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "Scores": {"type": "object", "additionalProperties": {"type": ["number", "null"]}},
    "Table": {"type": "array", "items": {"type": "object"}},
}
"""The types whose values can stand in a graph file."""


def graph_schema(
    kinds: Mapping[str, type[Node]],
    graphs: Mapping[str, GraphSpec],
    presets: Mapping[str, str],
    loaders: Mapping[str, Loader],
) -> Schema:
    """The schema of a graph file.

    Args:
        kinds: the kinds that `uses:` may name.
        graphs: the graphs that it may name; a kind of the same name goes first.
        presets: the presets that `models:` may name, with their titles.
        loaders: what an inline model may name.
    """
    graphs = {name: spec for name, spec in graphs.items() if name not in kinds}
    uses = {name: _kind_doc(cls) for name, cls in kinds.items()}
    uses |= {name: f"graph: {spec.title}" for name, spec in graphs.items()}
    sections = {name: _kind_sections(cls) for name, cls in kinds.items()}
    sections |= {name: _graph_sections(spec) for name, spec in graphs.items()}
    models = [*choices(presets), {**FILE, "description": "a preset file"}, {"$ref": "#/definitions/models"}]
    properties = {
        "graphflow": {"const": FORMAT, "default": FORMAT, "description": "version of the format"},
        "title": {"type": "string", "description": "what the graph does, in a line"},
        "inputs": _named({"$ref": "#/definitions/input"}, "what the graph asks for: name → type"),
        "models": {"description": "the models behind the roles: a preset, or role → model", "anyOf": models},
        "nodes": _named({"$ref": "#/definitions/node"}, "the steps: name → kind, edges and constants", RESERVED),
        "outputs": _named({"$ref": "#/definitions/edge"}, "what a run gives back: name → node.port"),
    }
    all_roles = roles(kinds, loaders)
    definitions = {
        "edge": _EDGE,
        "edges": _EDGES,
        "input": _input(all_roles),
        "node": _node(uses, sections),
        **model_definitions(all_roles, presets, loaders),
    }
    return whole_file(properties, ["graphflow", "nodes", "outputs"], definitions)


def _named(entry: Schema, description: str, reserved: Iterable[str] = ()) -> Schema:
    """A mapping from names of the author's own to entries."""
    refused = f"(?!(?:{'|'.join(sorted(reserved))})$)" if reserved else ""
    names = {"pattern": f"^{refused}{_NAME}$", "patternErrorMessage": "not a name: letters, digits and _, not reserved"}
    return {"type": "object", "description": description, "propertyNames": names, "additionalProperties": entry}


def roles(kinds: Mapping[str, type[Node]], loaders: Mapping[str, Loader]) -> list[str]:
    """Every role that a port asks for or a loader loads."""
    asked = {role for cls in kinds.values() for role in cls.model_ports().values()}
    return sorted(asked | {loader.role for loader in loaders.values()})


# --- inputs -----------------------------------------------------------------------------------------------------------


def _input(roles: Iterable[str]) -> Schema:
    """An entry of `inputs:`: a type, or a mapping with a type."""
    types = {t.name: t.doc for t in (*PORT_TYPES.values(), *map(weights_type, roles))}
    types |= {f"list[{name}]": f"list; an element: {doc}" for name, doc in types.items()}
    named = {"description": "type of the value", "anyOf": choices(types)}
    properties = {
        "type": named,
        "default": {"description": "the value when none is given; for a picture a file in the graph's folder"},
        "doc": {"type": "string", "description": "what it is, for the user"},
        "nonempty": {"type": "boolean", "description": "refuse blank text before anything runs"},
    }
    fit = [if_value("type", name, {"properties": {"default": default}}) for name, default in _defaults().items()]
    return {"anyOf": [named, closed(properties, required=["type"], allOf=fit)]}


def _defaults() -> dict[str, Schema]:
    """Type → what its default may be: the value itself, or the names of pictures."""
    picture = {"type": "string"}
    pictures = {t.name: picture for t in PORT_TYPES.values() if t.codec == "image"}
    lists = {name: {"type": "array", "items": one} for name, one in _PLAIN.items()}
    lists |= {name: {"type": ["string", "array"], "items": picture} for name in pictures}  # a folder, a glob, a list
    return {**_PLAIN, **pictures, **{f"list[{name}]": schema for name, schema in lists.items()}}


# --- nodes ------------------------------------------------------------------------------------------------------------


def _node(uses: Mapping[str, str], sections: Mapping[str, Schema]) -> Schema:
    edges = {"type": "object", "additionalProperties": {"$ref": "#/definitions/edges"}}
    file = {**FILE, "description": "a graph file, relative to this one"}
    properties = {
        "uses": {"description": "a kind, a shipped graph, or a graph file", "anyOf": [*choices(uses), file]},
        "in": {**edges, "description": "edges: port or parameter → node.port, or a list of them"},
        "map": {**edges, "description": "edges to lists: the node runs once for each element; several go in step"},
        "with": {"type": "object", "description": "constants: parameter → value"},
        "doc": {"type": "string", "description": "a note for readers"},
    }
    return closed(
        properties, required=["uses"], allOf=[if_value("uses", name, then) for name, then in sections.items()]
    )


def _kind_sections(cls: type[Node]) -> Schema:
    """What `in:`, `map:` and `with:` of a kind may hold."""
    own = cls.model_json_schema()
    constants = {name: _parameter(own["properties"][name], own.get("$defs", {})) for name in cls.model_fields}
    docs = {name: (port.is_list, _port_doc(port)) for name, port in cls.inputs().items()}
    for name, info in cls.model_fields.items():
        try:
            port = cls.parameter_port(name)
        except TypeError:
            continue  # no port type: only a constant will do
        docs[name] = port.is_list, f"{port.describe()}, a parameter: {info.description}"
    ports = [p.name for p in cls.inputs().values() if p.role is None and not p.optional]
    required = [_required(name, "in", "map") for name in ports]
    required += [_required(n, "with", "in", "map") for n, info in cls.model_fields.items() if info.is_required()]
    return _sections(docs, constants, required)


def _graph_sections(spec: GraphSpec) -> Schema:
    """The same of a graph: its inputs are ports, and the plain ones can be constants too."""
    docs, constants = {}, {}
    for name, declared in spec.inputs.items():
        docs[name] = declared.is_list, f"{declared.describe()}: {declared.doc or declared.type.doc}"
        plain = _PLAIN.get(declared.type.name)
        if plain is not None:
            constants[name] = _input_constant(declared, plain)
    required = [
        _required(name, "in", "map", *(["with"] if name in constants else []))
        for name, declared in spec.inputs.items()
        if not declared.has_default
    ]
    return _sections(docs, constants, required)


def _input_constant(declared: InputSpec, plain: Schema) -> Schema:
    schema = {"type": "array", "items": plain} if declared.is_list else dict(plain)
    schema["description"] = declared.doc or declared.type.doc
    return _with_default(schema, declared.default) if declared.has_default else schema


def _sections(docs: Mapping[str, tuple[bool, str]], constants: Schema, required: list[Schema]) -> Schema:
    """The sections of a node, from its ports and parameters (whether a list, what it is) and its constants."""

    def edge(is_list: bool, doc: str) -> Schema:
        return {"$ref": "#/definitions/edges" if is_list else "#/definitions/edge", "description": doc}

    edges = {name: edge(is_list, doc) for name, (is_list, doc) in docs.items()}
    mapped = {name: edge(True, doc) for name, (_, doc) in docs.items()}
    then: Schema = {"properties": {"in": closed(edges), "map": closed(mapped), "with": closed(constants)}}
    return then | ({"allOf": required} if required else {})


def _required(name: str, section: str, *others: str) -> Schema:
    """A name that must stand in a section, unless it stands in one of the others."""

    def stands(where: str) -> Schema:
        return {"required": [where], "properties": {where: {"required": [name]}}}

    return {"if": {"not": {"anyOf": [stands(other) for other in others]}}, "then": stands(section)}


def _kind_doc(cls: type[Node]) -> str:
    """A kind in two lines: what it does, and its ports."""

    def listed(ports: Iterable[Port]) -> str:
        return ", ".join(p.describe() if p.role else f"{p.name}: {p.describe()}" for p in ports) or "nothing"

    return f"{cls.summary()}\n\n{listed(cls.inputs().values())} → {listed(cls.outputs().values())}"


def _port_doc(port: Port) -> str:
    if isinstance(port.type, ModelRole):
        return f"{port.describe()}: left out, the preset's; else models.name or an edge of Weights[{port.type.role}]"
    return f"{port.describe()}: {port.type.doc}" + (f" ({port.type.shape})" if port.type.shape else "")


def _parameter(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """A parameter's schema as pydantic has it, with its default in words and without references."""
    found: Schema = _inlined(schema, definitions)
    return _with_default(found, found["default"]) if "default" in found else found


def _with_default(schema: Schema, default: Any) -> Schema:
    described = {**schema, "description": f"{schema['description']} (default {json.dumps(default)})"}
    if isinstance(default, float) and not math.isfinite(default):
        return {key: value for key, value in described.items() if key != "default"}  # JSON has no infinity
    return {**described, "default": default}


def _inlined(schema: Any, definitions: Mapping[str, Schema]) -> Any:
    """The schema without references, and without the titles that pydantic makes out of names."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        schema = {**definitions[schema["$ref"].rpartition("/")[2]], **schema}
    titles = {"$ref"} | ({"title"} if isinstance(schema.get("title"), str) else set())
    return {key: _inlined(value, definitions) for key, value in schema.items() if key not in titles}
