"""Presets: which loader and which weights stand behind each role. A file, a shipped name, or a mapping in the graph."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graphflow import registry
from graphflow.errors import Diagnostic, InvalidError, Mark, did_you_mean, shown
from graphflow.migrate import NEWEST, version_problem
from graphflow.models.refs import Loader, ModelRef, loaders
from graphflow.spec import kind_of, plain
from graphflow.yamlfile import YamlMap, mark_of, read_file

FORMAT = NEWEST["graphflow-preset"]
SOURCES = ("hub", "path", "packaged", "endpoint")
ENTRY_KEYS = ("loader", *SOURCES, "revision", "part", "dtype", "space", "options")
DTYPES = ("float32", "bfloat16", "float16")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_REVISION = re.compile(r"\w[\w.+-]*(/\w[\w.+-]*)*")  # part of a file's name, so that it must not lead elsewhere


@dataclass(frozen=True)
class Preset:
    """Named models; the entry called like a role is what a model port of that role gets when it is left out."""

    name: str
    title: str
    models: Mapping[str, ModelRef]


def shipped_presets() -> dict[str, Path]:
    """Name → file of the presets inside the package."""
    import graphflow.graphs

    return {p.stem: p for p in sorted((Path(graphflow.graphs.__path__[0]) / "presets").glob("*.yaml"))}


def load_preset(value: str | YamlMap, mark: Mark, folder: Path | None, above: tuple[str, ...] = ()) -> Preset:
    """The preset that a graph names under `models:`, or a user after ``--models``.

    Args:
        value: a shipped name, the path of a preset file (relative to `folder`), or a mapping of models.
        mark: where that stands, for messages.
        folder: where relative paths begin; None when the graph may name no file (it came out of a picture).
        above: the presets that extend this one.

    Raises:
        InvalidError: with every problem of the preset.
    """
    if isinstance(value, YamlMap):
        return _Reader(mark, folder, inline=True, above=above).preset("inline", value)
    shipped = shipped_presets()
    if value in shipped:
        return _read_preset_file(shipped[value], value, mark, above)
    if value.endswith((".yaml", ".yml")):
        if folder is None:
            hint = "name it yourself after --models"
            raise InvalidError([Diagnostic(mark, "GF121", f"a picture's graph can't open the file {value}", hint)])
        return _read_preset_file(folder / value, Path(value).stem, mark, above)
    hint = did_you_mean(value, shipped) or f"presets: {', '.join(shipped)}; or the path of a .yaml file"
    raise InvalidError([Diagnostic(mark, "GF120", f"there is no preset {shown(value)}", hint)])


def _read_preset_file(path: Path, name: str, mark: Mark, above: tuple[str, ...]) -> Preset:
    own = os.path.normpath(path)
    if own in above:
        circle = " → ".join(Path(p).name for p in (*above[above.index(own) :], own))
        raise InvalidError([Diagnostic(mark, "GF126", f"presets extend each other in a circle: {circle}")])
    data = read_file(path)
    top = Mark(str(path))
    problems: list[Diagnostic] = []
    if not isinstance(data, YamlMap):
        raise InvalidError([Diagnostic(top, "GF010", f"a preset is a mapping, found {kind_of(data)}")])
    if "graphflow-preset" not in data:
        problems.append(
            Diagnostic(top, "GF011", f"begin a preset with 'graphflow-preset: {NEWEST['graphflow-preset']}'")
        )
    elif problem := version_problem("graphflow-preset", data["graphflow-preset"], str(path)):
        problems.append(Diagnostic(mark_of(data, "graphflow-preset", top), "GF011", *problem))
    if not isinstance(data.get("title", ""), str):
        problems.append(Diagnostic(mark_of(data, "title", top), "GF010", "the title of a preset is text"))
    known = ("graphflow-preset", "title", "space", "extends", "models")
    for key in data:
        if key not in known and not key.startswith("x-"):
            hint = did_you_mean(key, known)
            problems.append(Diagnostic(data.key_marks[key], "GF015", f"a preset has no key '{key}'", hint))
    models = data.get("models")
    if not isinstance(models, YamlMap):
        mark = mark_of(data, "models", top)
        problems.append(
            Diagnostic(mark, "GF010", f"'models:' of a preset maps roles to models, found {kind_of(models)}")
        )
    if problems:
        raise InvalidError(problems)
    assert isinstance(models, YamlMap)
    body = YamlMap(models.mark, dict(models.key_marks), dict(models.value_marks))
    body.update(models)
    if "extends" in data:
        body["extends"] = data["extends"]
        body.value_marks["extends"] = data.value_marks["extends"]
    preset = _Reader(top, path.parent, str(data.get("space", name)), above=(*above, own)).preset(name, body)
    return replace(preset, title=str(data.get("title", "")))


class _Reader:
    def __init__(
        self, mark: Mark, folder: Path | None, space: str | None = None, inline: bool = False,
        above: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.mark, self.folder, self.space, self.inline, self.above = mark, folder, space, inline, above
        self.problems: list[Diagnostic] = []

    def preset(self, name: str, data: YamlMap) -> Preset:
        """Read the models of `data`; its key ``extends`` names the preset that supplies what is left out."""
        base: Mapping[str, ModelRef] = {}
        if "extends" in data:
            where = mark_of(data, "extends", self.mark)
            if isinstance(data["extends"], str):
                base = load_preset(data["extends"], where, self.folder, self.above).models
            else:
                self.problem(where, "GF010", "'extends:' names a preset")
        known = loaders()
        models = dict(base)
        for role, entry in data.items():
            if role == "extends":
                continue
            where = mark_of(data, role, self.mark)
            if not isinstance(entry, YamlMap):
                self.problem(where, "GF010", f"model '{role}' is a mapping with a loader, found {kind_of(entry)}")
                continue
            ref = self.model(role, entry, where, known, base.get(role))
            if ref is not None:
                models[role] = ref
        if self.problems:
            raise InvalidError(self.problems)
        return Preset(name, "", models)

    def model(
        self, name: str, entry: YamlMap, mark: Mark, known: Mapping[str, Loader], base: ModelRef | None
    ) -> ModelRef | None:
        before = len(self.problems)
        for key in entry:
            if key not in ENTRY_KEYS:
                hint = did_you_mean(key, ENTRY_KEYS) or f"a model has: {', '.join(ENTRY_KEYS)}"
                self.problem(entry.key_marks[key], "GF015", f"model '{name}' has no key {shown(key)}", hint)
            elif key != "options" and not isinstance(entry[key], str):
                message = f"'{key}:' of model '{name}' is text, found {kind_of(entry[key])}"
                self.problem(mark_of(entry, key, mark), "GF010", message)
        if len(self.problems) > before:
            return None
        loader = known.get(str(entry.get("loader")))
        if loader is None:  # it may come with an installed pack
            registry.import_packs()
            loader = known.get(str(entry.get("loader")))
        if loader is None:
            where = mark_of(entry, "loader", mark)
            hint = did_you_mean(str(entry.get("loader")), known) or f"loaders: {', '.join(known)}"
            self.problem(where, "GF122", f"model '{name}' names no known loader: {shown(entry.get('loader'))}", hint)
        sources = [s for s in SOURCES if entry.get(s)]
        if len(sources) != 1:
            found = " and ".join(sources) or "none"
            self.problem(mark, "GF123", f"model '{name}' needs exactly one of {', '.join(SOURCES)}; found {found}")
        options = entry.get("options") or {}
        if not isinstance(options, YamlMap) and options != {}:
            self.problem(mark_of(entry, "options", mark), "GF010", f"options of model '{name}' are a mapping")
            options = {}
        for option in options:
            if loader is not None and option not in loader.options:
                hint = did_you_mean(option, loader.options) or f"options: {', '.join(loader.options) or 'none'}"
                where = mark_of(options, option, mark)
                self.problem(where, "GF124", f"loader {loader.name} has no option '{option}'", hint)
        dtype = entry.get("dtype")
        if dtype is not None and dtype not in DTYPES:
            where = mark_of(entry, "dtype", mark)
            self.problem(where, "GF125", f"dtype {shown(dtype)} is unknown", f"one of {', '.join(DTYPES)}")
        hub = entry.get("hub")
        if hub is not None and not _HUB_NAME.fullmatch(str(hub)):
            where, message = mark_of(entry, "hub", mark), f"{shown(hub)} is no repository name"
            self.problem(where, "GF123", message, "expected owner/name")
        revision = entry.get("revision")
        if revision is not None and not _REVISION.fullmatch(str(revision)):
            where = mark_of(entry, "revision", mark)
            hint = "expected a commit, a tag or a branch"
            self.problem(where, "GF123", f"{shown(revision)} is no revision of a repository", hint)
        if entry.get("endpoint") and not _is_address(str(entry["endpoint"])):
            where, message = mark_of(entry, "endpoint", mark), f"{shown(entry['endpoint'])} is no address of a service"
            self.problem(where, "GF123", message, "expected http:// or https:// and a host")
        if entry.get("endpoint") and self.folder is None:
            where = mark_of(entry, "endpoint", mark)
            self.problem(where, "GF121", f"model '{name}' of a picture's graph can't call a service", "use --models")
        if self.inline and "api_key_env" in options:
            hint = "put the model into a preset file of your own and name it after --models"
            self.problem(mark_of(options, "api_key_env", mark), "GF121", "a graph can't ask for a key", hint)
        for key in ("packaged", "part"):
            if ".." in Path(str(entry.get(key) or "")).parts or Path(str(entry.get(key) or "")).is_absolute():
                where = mark_of(entry, key, mark)
                self.problem(where, "GF123", f"'{key}:' of model '{name}' leaves its folder: {entry[key]}")
        path = self.path(name, entry, mark)
        if len(self.problems) > before or loader is None:
            return None
        space = entry.get("space") or self.space or (base.space if base else "") or str(hub or name)
        return ModelRef(
            loader.role, loader.name, str(space), hub, entry.get("revision"), path, entry.get("packaged"),
            entry.get("endpoint"), str(entry.get("part") or ""), dtype, plain(options), mark, name,
        )  # fmt: skip

    def path(self, name: str, entry: YamlMap, mark: Mark) -> Path | None:
        if not entry.get("path"):
            return None
        if self.folder is None:
            where = mark_of(entry, "path", mark)
            self.problem(where, "GF121", f"model '{name}' of a picture's graph can't open a path", "use --models")
            return None
        try:
            return (self.folder / str(entry["path"])).resolve()
        except (OSError, ValueError) as error:
            where = mark_of(entry, "path", mark)
            self.problem(where, "GF123", f"{shown(entry['path'])} is no path: {error}")
            return None

    def problem(self, mark: Mark, code: str, message: str, hint: str = "") -> None:
        self.problems.append(Diagnostic(mark, code, message, hint))


def _is_address(text: str) -> bool:
    from urllib.parse import urlsplit

    try:
        found = urlsplit(text)
        return found.scheme in ("http", "https") and bool(found.hostname) and found.port != 0
    except ValueError:  # of a port or an IPv6 host that is none
        return False


def preset_data(value: Any) -> Any:
    """What a record keeps of `models:`: the name, or the mapping without positions."""
    return plain(value)
