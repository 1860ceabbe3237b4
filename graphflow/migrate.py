"""From older formats of graph files and presets to the one that this graphflow reads.

A step takes the text of one version to that of the next. It works on the text, not on the data, so that comments and
layout stay; the version itself is raised here. There is no step yet: format 1 is the first.
"""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from graphflow.errors import Diagnostic, InvalidError, Mark, UsageError, shown
from graphflow.version import __version__
from graphflow.yamlfile import YamlMap, read_file, read_text

Step = Callable[[str], str]

NEWEST = {"graphflow": 1, "graphflow-preset": 1, "graphflow-bench": 1}
"""What this graphflow reads, by the key that holds the version."""
STEPS: dict[str, dict[int, Step]] = {"graphflow": {}, "graphflow-preset": {}, "graphflow-bench": {}}
"""The key → a version → the step from there to the next."""


@dataclass(frozen=True)
class Version:
    """The format of a file; `mark` is where the number stands."""

    key: str
    number: int
    mark: Mark

    @property
    def old(self) -> bool:
        """Whether the file must be migrated before it can be read."""
        return self.number < NEWEST[self.key]


def version_problem(key: str, found: object, name: str) -> tuple[str, str] | None:
    """What is wrong with the version that a file gives under `key`, and a hint; None when it is the newest."""
    newest = NEWEST[key]
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        return f"format version {shown(found)} is unknown", f"this graphflow reads '{key}: {newest}'"
    if found > newest:
        message = f"format version {found} is too new for graphflow {__version__}, which reads {newest}"
        return message, "install a newer graphflow"
    if found < newest:
        return f"format version {found} is old; this graphflow reads {newest}", f"graphflow migrate {name}"
    return None


def version_of(path: Path) -> Version:
    """The format of a graph or preset file, which may be old.

    Raises:
        InvalidError: the file can't be read, is neither, or is newer than this graphflow.
    """
    return _version(read_file(path), str(path))


def migrated(path: Path) -> str:
    """The text of a file, brought to the newest format; line ends and a byte order mark stay.

    Raises:
        InvalidError: as `version_of`, or the file is no strict YAML after a step.
    """
    version = version_of(path)
    text = path.read_bytes().decode("utf-8")
    bom = "\ufeff" if text.startswith("\ufeff") else ""
    text = text.removeprefix(bom)
    while version.old:
        text = STEPS[version.key][version.number](text)
        version = _version(read_text(text, str(path)), str(path))
        text = _raised(text, version)
        version = _version(read_text(text, str(path)), str(path))
    return bom + text


def rewrite(path: Path, text: str) -> Path:
    """Put `text` in the place of a file; returns the copy of the original, FILE.bak.

    Raises:
        UsageError: FILE.bak exists already, or the folder can't be written.
    """
    path = path.resolve()
    backup = path.with_name(path.name + ".bak")
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with backup.open("xb") as out:
            out.write(path.read_bytes())
        new.write_bytes(text.encode("utf-8"))
        shutil.copymode(path, new)
        new.replace(path)
    except FileExistsError as error:
        raise UsageError(f"{backup} is in the way: it would hold the original of {path.name}") from error
    except OSError as error:
        new.unlink(missing_ok=True)
        raise UsageError(f"{path} can't be rewritten: {error.strerror or error}") from error
    return backup


def _version(data: object, name: str) -> Version:
    top = Mark(name)
    keys = [key for key in NEWEST if isinstance(data, YamlMap) and key in data]
    if len(keys) != 1 or not isinstance(data, YamlMap):
        hint = f"it begins with one of {', '.join(f'{key}: {n}' for key, n in NEWEST.items())}"
        raise InvalidError([Diagnostic(top, "GF011", "has no format version: neither a graph nor a preset", hint)])
    mark, found = data.value_marks[keys[0]], data[keys[0]]
    problem = version_problem(keys[0], found, name)
    if problem is not None and not (isinstance(found, int) and 1 <= found < NEWEST[keys[0]]):
        raise InvalidError([Diagnostic(mark, "GF011", *problem)])
    return Version(keys[0], found, mark)


def _raised(text: str, version: Version) -> str:
    """The text with the next version in the place of `version`.

    Raises:
        InvalidError: the number is not written as such.
    """
    lines = text.splitlines(keepends=True)
    line, column = lines[version.mark.line - 1], version.mark.column - 1
    number = re.compile(str(version.number)).match(line, column)
    if number is None:
        message = f"write the format version as the number {version.number}, without anchor, tag or quotes"
        raise InvalidError([Diagnostic(version.mark, "GF011", message)])
    lines[version.mark.line - 1] = f"{line[:column]}{version.number + 1}{line[number.end() :]}"
    return "".join(lines)
