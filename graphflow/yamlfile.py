"""Strict YAML 1.2 (core schema) with positions, on PyYAML's node API.

Differs from `yaml.safe_load` where that surprises people: `1e-4` is a number, `on` and `no` are text, a duplicate key
is an error, tags are errors, and every key and value knows its line and column.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from graphflow.errors import Diagnostic, InvalidError, Mark

# libyaml's parser is about ten times faster; the pure Python one reads the same language.
# The Base loaders resolve nothing by themselves: a tag can only come from the file.
_BaseLoader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)

_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_LINE_END = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_WORDS: dict[str, Any] = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WORDS |= dict.fromkeys(("null", "Null", "NULL", "~", ""))

MAX_ALIASED = 100_000  # values that aliases repeat: stops the 'billion laughs' file
MAX_BYTES = 32 * 2**20


@dataclass(eq=False, repr=False)
class YamlMap(dict[str, Any]):
    """A mapping that knows where each key and each value stands."""

    mark: Mark = field(default=Mark("?"))
    key_marks: dict[str, Mark] = field(default_factory=dict)
    value_marks: dict[str, Mark] = field(default_factory=dict)


@dataclass(eq=False, repr=False)
class YamlList(list[Any]):
    """A sequence that knows where each element stands."""

    mark: Mark = field(default=Mark("?"))
    marks: list[Mark] = field(default_factory=list)


def mark_of(container: Any, key: str | int, default: Mark) -> Mark:
    """Where the value under `key` stands."""
    if isinstance(container, YamlMap):
        return container.value_marks.get(str(key), default)
    if isinstance(container, YamlList) and isinstance(key, int):
        return container.marks[key]
    return default


def read_file(path: Path, name: str | None = None) -> Any:
    """Parse a YAML file.

    Raises:
        InvalidError: the file can't be read (GF001) or is not strict YAML (GF002 to GF004).
    """
    name = name or str(path)
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: the name holds a NUL
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidError([Diagnostic(Mark(name), "GF001", f"can't be read: {reason}")]) from error
    if len(data) > MAX_BYTES:
        raise InvalidError([Diagnostic(Mark(name), "GF001", f"is {len(data):,} bytes; at most {MAX_BYTES:,} are read")])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"is not UTF-8 text: byte 0x{data[error.start]:02x}"
        raise InvalidError([Diagnostic(Mark(name, line), "GF001", found)]) from error
    return read_text(text, name)


def read_text(text: str, name: str) -> Any:
    """Parse YAML text; `name` stands for the file in messages.

    Raises:
        InvalidError: the text is not strict YAML; all duplicate keys and tags are reported at once.
    """
    try:
        root = yaml.compose(text, Loader=_BaseLoader)
    except yaml.YAMLError as error:
        raise InvalidError([_syntax_error(error, name, text)]) from error
    except RecursionError as error:
        raise InvalidError([Diagnostic(Mark(name), "GF002", "is nested too deeply")]) from error
    except ValueError as error:  # libyaml on characters that YAML forbids
        raise InvalidError([Diagnostic(Mark(name), "GF002", f"is not YAML: {error}")]) from error
    if root is None:
        raise InvalidError([Diagnostic(Mark(name), "GF002", "is empty")])
    builder = _Builder(name)
    try:
        value = builder.build(root)
    except RecursionError as error:
        raise InvalidError(
            [Diagnostic(Mark(name), "GF002", "is nested too deeply, or an alias holds itself")]
        ) from error
    if builder.problems:
        raise InvalidError(builder.problems)
    return value


def _syntax_error(error: yaml.YAMLError, name: str, text: str) -> Diagnostic:
    position = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    context = getattr(error, "context", None)
    mark = _inside(Mark(name, position.line + 1, position.column + 1), text) if position else Mark(name)
    message = f"is not YAML: {problem}" + (f" ({context})" if context else "")
    hint = "indent with spaces" if "\\t" in repr(problem) else ""
    return Diagnostic(mark, "GF002", message, hint)


def _inside(mark: Mark, text: str) -> Mark:
    """The end of the text for a mark behind it: libyaml sees the end of a file at the start of one line more."""
    lines = _LINE_END.split(text)
    return mark if mark.line <= len(lines) else Mark(mark.file, len(lines), len(lines[-1]) + 1)


class _Builder:
    """Turns PyYAML's nodes into plain values with positions."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.problems: list[Diagnostic] = []
        self.count = self.aliased = 0
        self.built: dict[int, tuple[Any, int]] = {}

    def build(self, node: Any) -> Any:
        """The value of a node. An alias gives the very value that its anchor has, and counts as all it holds."""
        mark = Mark(self.name, node.start_mark.line + 1, node.start_mark.column + 1)
        if isinstance(node, yaml.ScalarNode):
            self.count += 1
            self._refuse_tag(node.tag, "str", mark)
            # A plain scalar has no style; quoted and block scalars are always text.
            return node.value if node.style else scalar(node.value)
        if id(node) not in self.built:
            before = self.count
            value = self._mapping(node, mark) if isinstance(node, yaml.MappingNode) else self._sequence(node, mark)
            self.built[id(node)] = value, self.count + 1 - before
            self.count += 1
            return value
        value, size = self.built[id(node)]
        self.count += size
        self.aliased += size
        if self.aliased > MAX_ALIASED:
            raise InvalidError([Diagnostic(mark, "GF004", f"aliases repeat more than {MAX_ALIASED:,} values")])
        return value

    def _sequence(self, node: Any, mark: Mark) -> YamlList:
        self._refuse_tag(node.tag, "seq", mark)
        out = YamlList(mark, [Mark(self.name, c.start_mark.line + 1, c.start_mark.column + 1) for c in node.value])
        out.extend([self.build(child) for child in node.value])
        return out

    def _mapping(self, node: Any, mark: Mark) -> YamlMap:
        self._refuse_tag(node.tag, "map", mark)
        out = YamlMap(mark)
        for key_node, value_node in node.value:
            key_mark = Mark(self.name, key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Diagnostic(key_mark, "GF004", "a key must be text"))
                continue
            key = key_node.value
            if key == "<<" and not key_node.style:
                hint = "name the keys, or use an alias as a whole value"
                self.problems.append(Diagnostic(key_mark, "GF004", "merge keys are not part of YAML 1.2", hint))
                continue
            if key in out:
                first = out.key_marks[key]
                self.problems.append(
                    Diagnostic(key_mark, "GF003", f"key '{key}' stands twice; first at line {first.line}")
                )
                continue
            out.key_marks[key] = key_mark
            out.value_marks[key] = Mark(self.name, value_node.start_mark.line + 1, value_node.start_mark.column + 1)
            out[key] = self.build(value_node)
        return out

    def _refuse_tag(self, tag: str | None, expected: str, mark: Mark) -> None:
        if tag not in (None, "!", _TAG + expected):
            shown = str(tag).replace(_TAG, "!!")
            self.problems.append(Diagnostic(mark, "GF004", f"tag '{shown}' is not allowed: graphs are plain data"))


def scalar(text: str) -> Any:
    """The value of a plain scalar under the core schema: bool, None, int, float, or text."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > 400:
        return text  # no number that anyone means is this long, and int() refuses thousands of digits
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text.replace(".inf", "inf").replace(".Inf", "inf").replace(".INF", "inf").replace(".nan", "nan"))
    return text


def typed_value(value: Any) -> str:
    """A value as somebody types it behind ``--set name=``; `scalar` and lists read it back."""
    if isinstance(value, str) and not value.startswith(("[", "{", '"', "'")) and scalar(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)
