"""Graph inputs: from what the user typed, or passed from Python, to typed values with digests."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

from graphflow.codecs import CODECS, Codec, digest_file, digest_json
from graphflow.constants import read_constant
from graphflow.errors import Diagnostic, InvalidError, Mark, MissingError, UsageError, did_you_mean, shown
from graphflow.pictures import SUFFIXES, read_image, to_rgb
from graphflow.ports import EXTERNAL
from graphflow.spec import InputSpec, plain
from graphflow.store import Store, Stored
from graphflow.yamlfile import read_text

if TYPE_CHECKING:
    from graphflow.record import InputRecord

MOST_NAMES = 3  # of missing pictures that a message gives
LONGEST_NAME = 255  # that a file may have


@dataclass(frozen=True)
class InputValue:
    """A bound input.

    Attributes:
        load: decodes a picture only when something needs it.
        source: the name of the file or folder that the user gave; of a list the names of all.
        elements: those of a list.
        path: the file or folder itself.
        default: whether nobody gave it, and the graph's own value stands in.
    """

    spec: InputSpec
    stored: Stored
    load: Callable[[], Any]
    source: str | list[str] | None = None
    elements: tuple[InputValue, ...] = ()
    path: Path | None = None
    default: bool = False

    def paths(self) -> list[Path]:
        """The user's own files and folders that the value lies in."""
        return [value.path for value in (self, *self.elements) if value.path is not None]

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
            default=self.default,
        )


@dataclass(frozen=True)
class Recorded:
    """A picture, or a list of them, that a record names. The record may come from anybody.

    Attributes:
        names: of the user's files; empty where the record names none.
        folder: where the record lies. A file of such a name is taken there, and nowhere else, if it is the picture.
    """

    stored: Stored
    names: tuple[str, ...]
    folder: Path

    @classmethod
    def of(cls, stored: Stored, source: str | list[str] | None, folder: Path) -> Recorded:
        """The same, from what the record has as source: names that are more than a name are left out."""
        names = source if isinstance(source, list) else [source or ""]
        if (stored.items is not None) != isinstance(source, list) or len(names) != len(stored.digests):
            names = [""] * len(stored.digests)  # older records join the names of a list with commas
        return cls(stored, tuple(name if _is_bare(name) else "" for name in names), folder)


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
        mark = Mark(f"-i {name}") if name in given else declared.mark
        binder = _Binder(declared, store, mark)
        try:
            if name in given:
                bound[name] = binder.bind(given[name], base or Path())
            elif declared.has_default:
                bound[name] = replace(binder.default(), default=True)
            else:
                raise ValueError("is not given and has no default")
        except FileNotFoundError as error:
            missing.append(f"input '{name}': {error.filename or error} does not exist")
        except (ValueError, OSError) as error:
            hint = _map_hint(declared, given.get(name), base or Path())
            problems.append(Diagnostic(mark, "GF130", f"input '{name}' ({declared.describe()}) {error}", hint))
        except InvalidError as error:
            problems.extend(error.diagnostics)
        except MissingError as error:
            missing.append(str(error))
    if problems:
        raise InvalidError(problems)
    if missing:
        raise MissingError("\n".join(missing))
    return bound


def _map_hint(declared: InputSpec, value: Any, base: Path) -> str:
    """What to type where somebody gives a folder for a single picture."""
    single = declared.type.codec == "image" and not declared.is_list
    if single and isinstance(value, str | Path) and (base / value).is_dir():
        return f"--map {declared.name}={value} runs the graph once for each picture in it"
    return ""


class _Binder:
    def __init__(self, spec: InputSpec, store: Store, mark: Mark) -> None:
        self.spec, self.store, self.mark = spec, store, mark

    @property
    def codec(self) -> Codec:
        return CODECS[self.spec.type.codec]

    def default(self) -> InputValue:
        value, folder = self.spec.default, self.spec.folder
        if self.spec.type.codec not in ("image", EXTERNAL):
            return self.bind(value, folder or Path())
        if folder is None:
            raise ValueError("has a file as default, which a picture's graph can't open: give it with -i")
        paths = value if isinstance(value, list) else _names(value) or [value]
        for path in paths:
            if not isinstance(path, str):
                raise ValueError(f"has the default {path!r}, expected a file name")
        if (stray := replace(self.spec, default=paths).strays()) is not None:
            raise ValueError(f"has a default outside the graph's folder: {stray}")
        return self.bind(value, folder.resolve())

    def bind(self, value: Any, base: Path) -> InputValue:
        if isinstance(value, Stored):
            if not self.store.has(value):
                raise MissingError(f"input '{self.spec.name}': the store does not have {value.digest[:12]}")
            return InputValue(self.spec, value, lambda: self.store.load(value))
        if isinstance(value, Recorded):
            return self._recorded(value)
        if self.spec.type.codec == "image":
            return self._pictures(value, base) if self.spec.is_list else self._picture(value, base)
        if self.spec.type.codec == EXTERNAL:
            return self._folder(value, base)
        if self.spec.type.codec != "json":
            raise ValueError("can't be given from outside; make it with a node")
        return self._plain(value)

    def _recorded(self, value: Recorded) -> InputValue:
        """What a record names: the record has the digests alone, the pictures are in the store or beside it.

        Raises:
            MissingError: they are in neither place.
            ValueError: the record has another type than the graph.
        """
        whole = value.stored
        if whole.codec != self.spec.type.codec or (whole.items is not None) != self.spec.is_list:
            raise ValueError("has another type in the record")
        parts: list[InputValue] = []
        missing: list[str] = []
        for digest, name in zip(whole.digests, value.names, strict=True):
            part = self._recorded_picture(Stored(digest, whole.codec), name, value.folder)
            if part is not None:
                parts.append(part)
            else:
                missing.append(f"{name} (picture {digest[:12]})" if name else f"the picture {digest[:12]}")
        if missing:
            more = f" and {len(missing) - MOST_NAMES} more" if len(missing) > MOST_NAMES else ""
            raise MissingError(
                f"input '{self.spec.name}': neither the store nor the record's folder has "
                f"{', '.join(missing[:MOST_NAMES])}{more}; give it with -i {self.spec.name}="
                + ("FILE" if whole.items is None else "FOLDER")
            )
        if whole.items is None:
            return parts[0]
        source = list(value.names) if any(value.names) else None
        return InputValue(self.spec, whole, lambda: [p.load() for p in parts], source, tuple(parts))

    def _recorded_picture(self, stored: Stored, name: str, folder: Path) -> InputValue | None:
        if self.store.has(stored):
            return InputValue(self.spec, stored, lambda: self.store.load(stored), name or None)
        if not name or self.spec.type.codec != "image":
            return None
        with suppress(ValueError, OSError):
            path = (folder / name).resolve()
            if path.parent == folder.resolve() and path.is_file():  # no link leads out of the folder
                found = self._picture(path, folder)
                return replace(found, source=name) if found.stored == stored else None
        return None

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
        return InputValue(self.spec, Stored(digest_json(named), EXTERNAL), lambda: path, path.name, path=path)

    def _picture(self, value: Any, base: Path) -> InputValue:
        if isinstance(value, str | Path):
            path = (base / value).resolve()
            stored = Stored(self._digest(path), "image")
            return InputValue(self.spec, stored, lambda: self._read_again(path, stored), path.name, path=path)
        import PIL.Image

        if not isinstance(value, PIL.Image.Image):
            raise ValueError(f"is of type {type(value).__name__}, expected a file or a PIL image")
        image = self._convert(to_rgb(value))
        return InputValue(self.spec, Stored(self.codec.digest(image), "image"), lambda: image)

    def _pictures(self, value: Any, base: Path) -> InputValue:
        if isinstance(value, str | Path):
            value = _expand(str(value), base)
        if not isinstance(value, Iterable):
            raise ValueError(f"is of type {type(value).__name__}, expected a list of files or PIL images")
        parts = self._each_picture(value, base)
        digests = tuple(p.stored.digest for p in parts)
        stored = Stored(digest_json(list(digests)), "image", 0, digests)
        names = [str(p.source or "") for p in parts]
        source = names if any(names) else None
        return InputValue(self.spec, stored, lambda: [p.load() for p in parts], source, tuple(parts))

    def _each_picture(self, values: Iterable[Any], base: Path) -> list[InputValue]:
        """The pictures of a list.

        Raises:
            InvalidError: some can't be read; every one of them is named, so that they are mended in one go.
            MissingError: some do not exist; likewise.
        """
        parts: list[InputValue] = []
        broken: list[str] = []
        missing: list[str] = []
        for value in values:
            try:
                parts.append(self._picture(value, base))
            except FileNotFoundError as error:
                missing.append(f"input '{self.spec.name}': {error.filename or error} does not exist")
            except (ValueError, OSError) as error:
                broken.append(f"input '{self.spec.name}' ({self.spec.describe()}) {error}")
        if broken:
            hints = [""] * (len(broken) - 1) + ["a list is read whole: mend these pictures, or leave them out"]
            raise InvalidError(Diagnostic(self.mark, "GF130", *found) for found in zip(broken, hints, strict=True))
        if missing:
            raise MissingError("\n".join(missing))
        return parts

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


def _is_bare(name: str) -> bool:
    """Whether a text is a file's name and no more: no folder, no drive, nothing that a terminal would obey."""
    short = name not in ("", ".", "..") and len(name) <= LONGEST_NAME
    return short and name.isprintable() and PureWindowsPath(name).name == name


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


def _expand(text: str, base: Path) -> list[Path]:
    """The pictures that a text names: a file, a folder, a YAML list of files, or a glob, whose files are sorted.

    Raises:
        FileNotFoundError: there is nothing of that name.
        ValueError: the folder holds no pictures, or the list holds something else than names of files.
    """
    path = base / text
    # Not Path.is_file: it raises where a list is too long to be a name.
    if os.path.isfile(path):  # whatever its name would mean as a glob or a list
        return [path]
    if os.path.isdir(path):
        if found := sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES):
            return found
        raise ValueError(f"is the folder {text}, which holds no pictures ({', '.join(sorted(SUFFIXES))})")
    if (names := _names(text)) is not None:
        return [base / name for name in names]
    if found := sorted(Path(p) for p in glob.glob(str(path), recursive=True)):
        return found
    raise FileNotFoundError(2, "no such file", text)


def _names(text: Any) -> list[str] | None:
    """The names in a YAML list; None of everything else."""
    if not isinstance(text, str) or not (text.startswith("[") and text.endswith("]")):
        return None  # a glob may begin with a bracket, too: [ab]*.png
    found = plain(read_text(text, "-i"))
    for name in found:
        if not isinstance(name, str):
            raise ValueError(f"holds {shown(name)}, expected the name of a picture")
    return list(found)
