"""What a run may replace in its out folder: what graphflow wrote there, and nothing else.

``run.json`` lists the files that belong to graphflow. While outputs are written a journal names them, so that a run
that was killed there can be repeated.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from graphflow.codecs import CODECS
from graphflow.errors import UsageError
from graphflow.inputs import InputValue

INDEX, REPORT, EVENTS, ELEMENTS = "run.json", "report.html", "events.jsonl", "elements.csv"
ALWAYS = (INDEX, REPORT, EVENTS)
JOURNAL = ".graphflow-writing"
# A run.json may come from a stranger: whatever it lists, nothing but files as outputs have them is removed.
REMOVABLE = {codec.suffix for codec in CODECS.values() if codec.suffix} | {".txt", ".csv"}
MOST_NAMES = 3  # that a refusal gives


@dataclass(frozen=True)
class Claim:
    """An out folder, as a run found it.

    Attributes:
        folder: need not exist.
        known: the files that graphflow wrote there, by name; ``*`` is a position in a list.
        needed: the user's own files and folders that inputs lie in → the input.
        graph: the file that the graph came from.
    """

    folder: Path
    known: frozenset[str] = frozenset()
    needed: Mapping[Path, str] = field(default_factory=dict)
    graph: Path | None = None

    @cached_property
    def _root(self) -> Path:
        return self.folder.resolve()

    def check(self, names: Iterable[str]) -> None:
        """See that files of these names may be written.

        Raises:
            UsageError: one would replace an input of the run, or something that graphflow did not write.
        """
        found = list(_there(self.folder, names))
        for path in found:
            if (name := self._input_at(path)) is not None:
                raise UsageError(
                    f"--out {self.folder}: the run would replace {path}, its own input '{name}'; choose another --out"
                )
        known = _matcher(self.known)
        foreign = [str(path) for path in found if not known(path.relative_to(self.folder).as_posix())]
        if foreign:
            more = f" and {len(foreign) - MOST_NAMES} more" if len(foreign) > MOST_NAMES else ""
            raise UsageError(
                f"--out {self.folder}: the run would replace {', '.join(foreign[:MOST_NAMES])}{more}, which graphflow "
                "did not write there; choose another --out, or move what is there away"
            )

    def begin(self, names: Iterable[str]) -> None:
        """Note what is about to be written.

        Raises:
            OSError: the folder can't be written.
        """
        (self.folder / JOURNAL).write_text(json.dumps(list(names)), encoding="utf-8")

    def end(self) -> None:
        """``run.json`` lists what was written: the journal has done its work."""
        (self.folder / JOURNAL).unlink(missing_ok=True)

    def there(self) -> set[str]:
        """The names of the known files that exist, apart from those that every run writes."""
        found = _there(self.folder, self.known.difference(ALWAYS))
        return {path.relative_to(self.folder).as_posix() for path in found}

    def remove(self, but: Iterable[str]) -> set[str]:
        """Remove the known files `but` for these; returns the names of those that have to stay."""
        return {name for name in self.there().difference(but) if not self._removed(name)}

    def clear(self) -> None:
        """Remove all that is known, and the folder if nothing else is in it."""
        self.remove(())
        for name in ALWAYS:
            if name in self.known:
                (self.folder / name).unlink(missing_ok=True)
        with suppress(OSError):  # it holds something of the user's
            self.folder.rmdir()

    def _removed(self, name: str) -> bool:
        path = self.folder / name
        inside = path.resolve().is_relative_to(self._root)
        if not inside or path.is_symlink() or not path.is_file() or path.suffix not in REMOVABLE:
            return False
        if self._input_at(path) is not None or path.resolve() == self.graph:
            return False
        with suppress(OSError):
            path.unlink()
            if path.parent != self.folder:
                path.parent.rmdir()  # of a node inside a sub-graph
        return not path.exists()

    def _input_at(self, path: Path) -> str | None:
        """The input that a file or folder is, holds, or lies in; not one that holds the whole out folder."""
        place = path.resolve()
        for where in (place, *place.parents):
            if where in self.needed and where.is_relative_to(self._root):
                return self.needed[where]
        inside = (name for where, name in self.needed.items() if where.is_relative_to(place)) if path.is_dir() else ()
        return next(iter(inside), None)


def claim(folder: Path, inputs: Mapping[str, InputValue], graph: Path | None = None) -> Claim:
    """Look at a folder before a run.

    Args:
        folder: where the run will write.
        inputs: of the run.
        graph: the file that the graph came from; a picture that is run again does not go as a stale one.
    """
    needed = {path: name for name, value in inputs.items() for path in value.paths()}
    return Claim(folder, known_in(folder), needed, graph.resolve() if graph is not None else None)


def known_in(folder: Path) -> frozenset[str]:
    """The files in a folder that graphflow wrote, by name; ``*`` is a position in a list."""
    found: set[str] = set()
    record = _json(folder / INDEX)
    if isinstance(record, dict) and "graphflow" in record and isinstance(record.get("outputs"), dict):
        written = record.get("written") or [
            entry.get("file") for entry in record["outputs"].values() if isinstance(entry, dict)
        ]  # before there was a list, the outputs alone
        found.update(ALWAYS, _names(written))
    if _is_log(folder / EVENTS):  # of a run that was killed before it wrote a record
        found.update(ALWAYS)
    found.update(_names(_json(folder / JOURNAL)))
    return frozenset(found)


def _names(value: Any) -> list[str]:
    """The names of files that JSON holds, without those that lead out of the folder."""
    texts = [text for text in value if isinstance(text, str)] if isinstance(value, list) else []
    return [text for text in texts if not Path(text).is_absolute() and ".." not in Path(text).parts]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _is_log(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(11) == b'{"event": "'
    except OSError:
        return False


def _there(folder: Path, names: Iterable[str]) -> Iterator[Path]:
    """The files of these names that exist, links that lead nowhere included."""
    lists: dict[Path, list[str]] = {}
    for name in dict.fromkeys(names):
        path = folder / name
        if "*" in path.name:
            lists.setdefault(path.parent, []).append(path.name)
        elif os.path.lexists(path):
            yield path
    for parent, patterns in lists.items():
        matches = _matcher(patterns)
        yield from (path for path in sorted(parent.glob("*")) if matches(path.name))


def _matcher(names: Iterable[str]) -> Callable[[str], bool]:
    """Says whether a name is one of these; ``*`` stands for a position in a list."""
    names = set(names)
    lists = [re.escape(name).replace(r"\*", r"\d{3,}") for name in names if "*" in name]
    pattern = re.compile("|".join(lists) or "(?!)")
    return lambda name: name in names or pattern.fullmatch(name) is not None
