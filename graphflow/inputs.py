"""Graph inputs: from what the user typed, or passed from Python, to typed values with digests."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphflow.codecs import CODECS, Codec, digest_file, digest_json
from graphflow.constants import read_constant
from graphflow.errors import Diagnostic, InvalidError, Mark, MissingError, UsageError, did_you_mean, shown
from graphflow.pictures import SUFFIXES, read_image, to_rgb
from graphflow.ports import EXTERNAL
from graphflow.spec import InputSpec
from graphflow.store import Store, Stored

if TYPE_CHECKING:
    from graphflow.record import InputRecord


@dataclass(frozen=True)
class InputValue:
    """A bound input. `load` decodes a picture only when something needs it; `elements` are those of a list."""

    spec: InputSpec
    stored: Stored
    load: Callable[[], Any]
    source: str | None = None
    elements: tuple[InputValue, ...] = ()

    def element(self, position: int) -> Any:
        """One element of a list; of a list of pictures only that one is decoded."""
        return self.elements[position].load() if self.elements else self.load()[position]

    def record(self) -> InputRecord:
        """What ``run.json`` keeps: plain values themselves, pictures by digest and file name."""
        from graphflow.record import InputRecord

        plain = self.stored.codec == "json"
        return InputRecord(
            type=self.spec.describe(),
            digest=self.stored.digest,
            items=list(self.stored.items) if self.stored.items is not None and not plain else None,
            value=self.load() if plain else None,
            source=self.source,
        )


def bind(
    inputs: Mapping[str, InputSpec], given: Mapping[str, Any], store: Store, base: Path | None = None
) -> dict[str, InputValue]:
    """Bind every input of a graph.

    Args:
        inputs: what the graph asks for; defaults fill what is not given.
        given: name → text (from the command line; for pictures a file, for lists a folder, a glob or a YAML list),
            a Python value, or a `Stored` value from an earlier run.
        base: where relative paths in `given` begin; the working folder by default.

    Raises:
        UsageError: a name that the graph does not have.
        MissingError: a file does not exist.
        InvalidError: values of the wrong type, unreadable pictures, inputs left out; all at once.
    """
    unknown = [name for name in given if name not in inputs]
    if unknown:
        hint = did_you_mean(unknown[0], inputs)
        choices = ", ".join(inputs) or "none"
        raise UsageError(f"the graph has no input '{unknown[0]}'; it has: {choices}" + (f"; {hint}" if hint else ""))
    bound: dict[str, InputValue] = {}
    problems: list[Diagnostic] = []
    missing: list[str] = []
    for name, declared in inputs.items():
        binder = _Binder(declared, store)
        try:
            if name in given:
                bound[name] = binder.bind(given[name], base or Path())
            elif declared.has_default:
                bound[name] = binder.default()
            else:
                raise ValueError("is not given and has no default")
        except FileNotFoundError as error:
            missing.append(f"input '{name}': {error.filename or error} does not exist")
        except (ValueError, OSError) as error:
            mark = declared.mark if name not in given else Mark(f"-i {name}")
            problems.append(Diagnostic(mark, "GF130", f"input '{name}' ({declared.describe()}) {error}"))
        except InvalidError as error:
            problems.extend(error.diagnostics)
    if problems:
        raise InvalidError(problems)
    if missing:
        raise MissingError("\n".join(missing))
    return bound


class _Binder:
    def __init__(self, spec: InputSpec, store: Store) -> None:
        self.spec, self.store = spec, store

    @property
    def codec(self) -> Codec:
        return CODECS[self.spec.type.codec]

    def default(self) -> InputValue:
        value, folder = self.spec.default, self.spec.folder
        if self.spec.type.codec not in ("image", EXTERNAL):
            return self.bind(value, folder or Path())
        if folder is None:
            raise ValueError("has a file as default, which a picture's graph can't open: give it with -i")
        for path in value if isinstance(value, list) else [value]:
            if not isinstance(path, str):
                raise ValueError(f"has the default {path!r}, expected a file name")
        if (stray := self.spec.strays()) is not None:
            raise ValueError(f"has a default outside the graph's folder: {stray}")
        return self.bind(value, folder.resolve())

    def bind(self, value: Any, base: Path) -> InputValue:
        if isinstance(value, Stored):
            if not self.store.has(value):
                # The record of a picture names its inputs by digest; the pictures themselves stay in the store.
                raise FileNotFoundError(2, "", f"the picture {value.digest[:12]} in the store (give it with -i)")
            return InputValue(self.spec, value, lambda: self.store.load(value))
        if self.spec.type.codec == "image":
            return self._pictures(value, base) if self.spec.is_list else self._picture(value, base)
        if self.spec.type.codec == EXTERNAL:
            return self._folder(value, base)
        if self.spec.type.codec != "json":
            raise ValueError("can't be given from outside; make it with a node")
        return self._plain(value)

    def _plain(self, value: Any) -> InputValue:
        found = read_constant(value, self.spec, typed=True)
        if not self.spec.is_list:
            return InputValue(self.spec, Stored(self.codec.digest(found), "json"), lambda: found)
        digests = tuple(self.codec.digest(v) for v in found)
        return InputValue(self.spec, Stored(digest_json(list(digests)), "json", 0, digests), lambda: found)

    def _folder(self, value: Any, base: Path) -> InputValue:
        if not isinstance(value, str | Path) or self.spec.is_list:
            raise ValueError(f"is {shown(value)}, expected the name of a folder")
        path = (base / value).resolve()
        if not path.exists():
            raise FileNotFoundError(2, "no such folder", str(path))
        if not path.is_dir():
            raise ValueError(f"is no folder: {path}")
        named = [(p.relative_to(path).as_posix(), self.store.file_digest(p, digest_file)) for p in _visible(path)]
        return InputValue(self.spec, Stored(digest_json(named), EXTERNAL), lambda: path, path.name)

    def _picture(self, value: Any, base: Path) -> InputValue:
        if isinstance(value, str | Path):
            path = (base / value).resolve()
            stored = Stored(self._digest(path), "image")
            return InputValue(self.spec, stored, lambda: self._read_again(path, stored), path.name)
        image = self._convert(to_rgb(value))
        return InputValue(self.spec, Stored(self.codec.digest(image), "image"), lambda: image)

    def _pictures(self, value: Any, base: Path) -> InputValue:
        if isinstance(value, str | Path):
            value = _expand(str(value), base)
        parts = [self._picture(item, base) for item in value]
        digests = tuple(p.stored.digest for p in parts)
        stored = Stored(digest_json(list(digests)), "image", 0, digests)
        names = ", ".join(p.source for p in parts if p.source)
        return InputValue(self.spec, stored, lambda: [p.load() for p in parts], names or None, tuple(parts))

    def _digest(self, path: Path) -> str:
        if not path.exists():
            raise FileNotFoundError(2, "no such file", str(path))
        try:
            return self.store.file_digest(path, lambda p: self.codec.digest(self._read(p)), self.spec.type.name)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def _read(self, path: Path) -> Any:
        return self._convert(read_image(path))

    def _read_again(self, path: Path, stored: Stored) -> Any:
        """The picture that was bound: results are stored under its digest, so that no other will do.

        Raises:
            MissingError: the file has changed, and the store does not have the picture.
        """
        with suppress(ValueError, OSError):
            image = self._read(path)
            if self.codec.digest(image) == stored.digest:
                return image
        if self.store.has(stored):
            return self.store.load(stored)
        raise MissingError(f"input '{self.spec.name}': {path} has changed since the run began; run it again")

    def _convert(self, image: Any) -> Any:
        return image.convert("L") if self.spec.type.name == "Mask" else image


def _visible(folder: Path) -> Iterator[Path]:
    """The files of a folder that can be seen, sorted. Hidden ones are a download's bookkeeping, and change.

    Raises:
        ValueError: a link leads out of the folder; from a snapshot of the hub's cache it may lead to its blobs.
    """
    roots = [folder]
    for parent in (folder, *folder.parents):
        if parent.parent.name == "snapshots" and (parent.parent.parent / "blobs").is_dir():
            roots.append(parent.parent.parent / "blobs")
    for path in sorted(folder.rglob("*")):
        if any(part.startswith(".") for part in path.relative_to(folder).parts) or not path.is_file():
            continue
        if path.is_symlink() and not any(path.resolve().is_relative_to(root) for root in roots):
            raise ValueError(f"has a link that leads out of the folder: {path}")
        yield path


def _expand(pattern: str, base: Path) -> list[Path]:
    """The pictures of a folder or a glob, sorted."""
    folder = base / pattern
    if folder.is_dir():
        found = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    else:
        found = sorted(Path(p) for p in glob.glob(str(folder), recursive=True))
    if not found:
        raise FileNotFoundError(2, "no such file", pattern)
    return found
