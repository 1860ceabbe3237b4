"""Every error that graphflow raises on purpose, as one tree.

GraphflowError                 exit code 1
├── UsageError                 2    a wrong command line
│   └── NoOutputError          2    a run has no output of that name; a KeyError, too
├── InvalidError               3    a graph, preset or input value is wrong; carries all diagnostics at once
├── WouldRunError              4    ``plan --check``, ``run --only``: something would run that must not
├── MissingError               5    a model or an input file is missing
├── NodeError                  1    a node failed while running; names the node, keeps the cause
│   └── ContractError          1    a node returned something that its ports do not allow
├── OutOfMemoryError           1    a node does not fit into a device's memory, whatever was tried
└── StoreError                 1    the store can't be read or written (disk full, no permission)
    └── DamagedBlobError       1    one stored value is damaged; the run treats it as a miss

Cancelled (a BaseException, like KeyboardInterrupt) ends a run with exit code 130.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MANY_CHOICES, LONGEST_NAME, LONGEST_QUOTE = 200, 100, 80
_ENDLESS = re.compile(r"[^\s/]{256,}")  # no name, and no part of a path either
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789_./"


@dataclass(frozen=True, order=True)
class Mark:
    """A place in a text file; line and column count from 1."""

    file: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Diagnostic:
    """One finding about a file: where, which stable code, what was found and expected, and how to mend it.

    A word of more than 255 characters, which the file has and no name can have, is cut in message and hint.
    """

    mark: Mark
    code: str
    message: str
    hint: str = ""
    severity: str = "error"

    def __post_init__(self) -> None:
        for name in ("message", "hint"):
            object.__setattr__(self, name, _ENDLESS.sub(lambda found: _cut(found[0]), getattr(self, name)))

    def __str__(self) -> str:
        text = f"{self.mark}: {self.code} {self.message}"
        return f"{text}\n  hint: {self.hint}" if self.hint else text


class GraphflowError(Exception):
    """Base of everything that graphflow raises on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(GraphflowError):
    """The command line or a call asks for something that does not exist."""

    exit_code = 2


class NoOutputError(UsageError, KeyError):
    """A run has no output of that name. A KeyError, as mappings have it: `Run.get` gives its default."""

    __str__ = Exception.__str__  # a KeyError would quote its message


class InvalidError(GraphflowError):
    """A graph, a preset or an input value is wrong. `diagnostics` holds every finding, in file order."""

    exit_code = 3

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = sorted(diagnostics, key=lambda d: (d.mark, d.code))
        super().__init__("\n".join(str(d) for d in self.diagnostics))


class WouldRunError(GraphflowError):
    """``plan --check``, or ``run --only`` before it begins, found a node that is not cached."""

    exit_code = 4


class MissingError(GraphflowError):
    """Models or files that a run needs are not on this machine."""

    exit_code = 5


class NodeError(GraphflowError):
    """A node failed. `node` and `kind` say which, of a map over files `file`; `__cause__` is the original exception."""

    file = ""

    def __init__(self, node: str, kind: str, message: str) -> None:
        self.node, self.kind = node, kind
        super().__init__(f"node '{node}' ({kind}) failed: {message}")

    def __str__(self) -> str:
        text = super().__str__()
        return text.replace(f"'{self.node}'", f"'{self.node} ({self.file})'", 1) if self.file else text


class ContractError(NodeError):
    """A node returned a value that its `Out` ports do not allow."""


class OutOfMemoryError(GraphflowError):
    """A node does not fit into the memory of a device, even alone and with its models offloaded."""


class StoreError(GraphflowError):
    """The store can't be read or written."""


class DamagedBlobError(StoreError):
    """A stored value is missing, truncated or altered."""


class Cancelled(BaseException):
    """The user interrupted the run; finished nodes are stored."""


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice that `name` was probably meant to be, or None."""
    known = list(choices)
    if len(name) > LONGEST_NAME:
        return None
    if len(known) > MANY_CHOICES:  # comparing with each would take seconds when a thousand names are wrong
        there = set(known)
        return next((found for found in _one_slip_away(name) if found in there), None)
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return found[0] if found else None


def _one_slip_away(name: str) -> Iterator[str]:
    """Everything that one slip makes of a name: two letters swapped, one left out, wrong, or too many."""
    parts = [(name[:i], name[i:]) for i in range(len(name) + 1)]
    for head, tail in parts:
        if len(tail) > 1:
            yield head + tail[1] + tail[0] + tail[2:]
        if tail:
            yield head + tail[1:]
    for head, tail in parts:
        for letter in _LETTERS:
            yield head + letter + tail
            if tail:
                yield head + letter + tail[1:]


def shown(value: object) -> str:
    """A value as messages quote it: as Python writes it, long ones cut."""
    text = repr(value)
    return text if len(text) <= LONGEST_QUOTE else _cut(text)


def _cut(text: str) -> str:
    return f"{text[: LONGEST_QUOTE - 2]}…{text[-1]}"


def did_you_mean(name: str, choices: Iterable[str], form: str = "{}") -> str:
    """A hint ``did you mean X?``, or an empty string when nothing is near."""
    found = nearest(name, choices)
    return f"did you mean {form.format(found)}?" if found else ""
