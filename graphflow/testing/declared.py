"""What a node declares: its name and words, ports, parameters, and what it says to the cache."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from graphflow.codecs import CODECS, canonical_json
from graphflow.node import Node
from graphflow.ports import PortType
from graphflow.testing.values import wrong_value

_KIND = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")


def declared_problems(cls: type[Node]) -> list[str]:
    """What is wrong with a class, a line for each finding; nothing is run."""
    return [*_words(cls), *_ports(cls), *_parameters(cls), *_cache_vocabulary(cls)]


def _words(cls: type[Node]) -> list[str]:
    out = []
    if not _KIND.fullmatch(cls.kind):
        out.append(f"the kind '{cls.kind}' is not of the form family.name, in small letters, digits and _")
    if not cls.summary().endswith((".", "!", "?")):
        out.append(f"the docstring's first line is not a sentence that ends with a full stop: '{cls.summary()}'")
    if cls.__abstractmethods__:
        out.append(f"it lacks {', '.join(sorted(cls.__abstractmethods__))}")
    return out


def _ports(cls: type[Node]) -> list[str]:
    out = [] if cls.outputs() else ["it has no outputs"]
    for port in cls.outputs().values():
        if not isinstance(port.type, PortType):
            out.append(f"output '{port.name}' is a model; a trained model is returned as Weights[role]")
        elif port.type.codec not in CODECS:
            out.append(f"output '{port.name}' has no codec '{port.type.codec}'; there are: {', '.join(CODECS)}")
        if port.optional:
            out.append(f"output '{port.name}' is optional; outputs are always there")
    for port in cls.inputs().values():
        if port.default is not None and isinstance(port.type, PortType) and (wrong := wrong_value(port, port.default)):
            out.append(f"the default of input '{port.name}' is wrong: {wrong}")
    return out


def _parameters(cls: type[Node]) -> list[str]:
    out = []
    for name, info in cls.model_fields.items():
        if not (info.description or "").strip():
            out.append(f"parameter '{name}' has no description")
        default = info.get_default(call_default_factory=True, validated_data={})
        if default is not PydanticUndefined:
            out += [f"parameter '{name}': {problem}" for problem in _round_trip(info, default)]
    try:
        cls.model_json_schema()
    except Exception as error:
        out.append(f"its parameters have no JSON Schema: {error}")
    return out


def _round_trip(info: FieldInfo, value: Any) -> list[str]:
    """Whether a parameter's value is valid and comes back from JSON as it was."""
    constrained: Any = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
    adapter: TypeAdapter[Any] = TypeAdapter(constrained)
    try:
        valid = adapter.validate_python(value)
        again = adapter.validate_python(json.loads(canonical_json(adapter.dump_python(valid, mode="json"))))
    except ValidationError as error:
        return [f"its default is not valid: {e['msg'].lower()}, found {value!r}" for e in error.errors()]
    except (TypeError, ValueError) as error:
        return [f"its default can't be written as JSON: {error}"]
    return [] if again == valid else [f"{valid!r} comes back from JSON as {again!r}"]


def _cache_vocabulary(cls: type[Node]) -> list[str]:
    fields = cls.model_fields
    out = []
    for attribute in ("not_in_key", "same_as_absent"):
        names = getattr(cls, attribute)
        if isinstance(names, set | frozenset):
            out += [f"{attribute} names '{n}', which is no parameter" for n in sorted(names - fields.keys())]
        else:
            out.append(f"{attribute} is {names!r}, expected a set of names")
    required = [n for n in cls.same_as_absent if n in fields and fields[n].is_required()]
    out += [f"same_as_absent names '{n}', which has no default" for n in sorted(required)]
    for attribute, choices in (("cache", ("auto", "always", "never")), ("device", ("auto", "cpu", "accelerator"))):
        if getattr(cls, attribute) not in choices:
            out.append(f"{attribute} is {getattr(cls, attribute)!r}, expected one of {', '.join(choices)}")
    if cls.version < 1:
        out.append(f"version is {cls.version!r}, expected 1 or more")
    return out
