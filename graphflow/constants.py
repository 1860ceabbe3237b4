"""Plain values (text, numbers, truth values, rows): from graph files, from Python, and as typed on the command line."""

from __future__ import annotations

import math
from typing import Any

from graphflow.codecs import CODECS
from graphflow.errors import shown
from graphflow.ports import SCALARS, is_plain, plain_problem
from graphflow.spec import InputSpec
from graphflow.yamlfile import read_text, scalar


def read_constant(value: Any, declared: InputSpec, typed: bool = False) -> Any:
    """The value as the declared type has it: an int becomes a float where one is declared.

    Args:
        value: the value, of any type.
        declared: what it should be; its type is plain.
        typed: text stands for what a user typed: ``3`` is a number, ``[a, b]`` a list.

    Raises:
        ValueError: it is something else; the message goes on after the input's name.
        InvalidError: typed text of a list is no YAML.
    """
    if not declared.is_list:
        return _item(value, declared, typed)
    items = read_text(value, f"-i {declared.name}") if typed and isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise ValueError(f"is {shown(value)}, expected a list such as [a, b]")
    return [_item(item, declared, typed) for item in items]


def _item(value: Any, declared: InputSpec, typed: bool) -> Any:
    name = declared.type.name
    if name == "Text":
        if not isinstance(value, str):
            raise ValueError(f"is {shown(value)}, expected text")
        if declared.nonempty and not value.strip():
            raise ValueError("is empty, expected text")
        return value
    found: Any = scalar(value) if typed and isinstance(value, str) else value
    if name in SCALARS:
        if not is_plain(name, found):
            raise ValueError(f"is {shown(value)}, expected {name}")
        if name != "float":
            return found
        number = float(str(found))
        if not math.isfinite(number):
            raise ValueError(f"is {shown(value)}, which is not a finite number")
        return number
    if problem := CODECS[declared.type.codec].check(found) or plain_problem(declared.type, found):
        raise ValueError(f"can't be used: {problem}")
    return found
