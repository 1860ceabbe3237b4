"""The page of a bench: the table, the plots, and every edit with the pictures of all methods side by side."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphflow import units
from graphflow.bench.compiled import Compiled
from graphflow.bench.names import column_of, image_of
from graphflow.bench.results import Results
from graphflow.bench.spec import Method
from graphflow.bench.table import Head, Table
from graphflow.bench.text import cells, footnotes, titles
from graphflow.outputs import replace_file
from graphflow.run import Run

if TYPE_CHECKING:
    import PIL.Image

PAGE = "report.html"
PICTURES = "pictures"
LIMIT = 512  # pixels of the longer side of a picture on the page
LOSSLESS = 256  # up to here PNG, beyond it WebP
_SHOWN = ("source", "target")  # columns of pictures that the page shows, where no method stands for them


@dataclass(frozen=True)
class Shot:
    """A picture of an edit: a file beside the page, or the reason why there is none, and the scores below it."""

    file: str | None
    reason: str
    scores: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Edit:
    """A row of the grid; `values` are what it can be sorted by."""

    name: str
    kind: str
    text: str
    shots: tuple[Shot, ...]
    values: str


@dataclass(frozen=True)
class Line:
    """A row of the table: text and title of each cell, and what it is sorted by."""

    kind: str
    cells: tuple[tuple[str, str, str, bool], ...]


def write_page(
    results: Results, table: Table, compiled: Compiled, run: Run, plots: Sequence[Path], folder: Path
) -> Path:
    """Write the page with its pictures, one at a time; returns its path."""
    import jinja2
    from markupsafe import Markup

    columns = _columns(results, compiled)
    files = [_write_pictures(run, output, folder / PICTURES, name) for name, (_, output, _) in columns.items()]
    methods = [method for _, _, method in columns.values()]
    heads = [head for head in table.heads if any(results.values(m, head.key) for m in results.measured)]
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    script = _resource("bench", "page.js")
    text = environment.from_string(_resource("bench", "page.html")).render(
        table=table, titles=titles(table), lines=list(_lines(table)), device=results.device,
        notes=[units.printable(note) for note in footnotes(table)], plots=[_plot(path) for path in plots],
        columns=[title for title, _, _ in columns.values()], types=list(dict.fromkeys(results.types)),
        sorts=[(m.title, h.text) for m in methods if m for h in heads if results.values(m.name, h.key)],
        edits=_edits(results, methods, files, heads), script=Markup(script),
        style=Markup(_resource("report", "report.css") + _resource("bench", "page.css")),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )  # fmt: skip
    replace_file(folder / PAGE, lambda path: path.write_text(text, encoding="utf-8"))
    return folder / PAGE


def _resource(package: str, name: str) -> str:
    return (resources.files(f"graphflow.{package}") / name).read_text(encoding="utf-8")


def _columns(results: Results, compiled: Compiled) -> dict[str, tuple[str, str, Method | None]]:
    """The columns of the grid: name → title, graph output with the pictures, the method if it is one."""
    methods = compiled.methods.values()
    taken = {m.column for m in methods}
    given = {c: (c, column_of(c), None) for c in _SHOWN if c in compiled.columns and c not in taken}
    out: dict[str, tuple[str, str, Method | None]] = {f"data-{n}": v for n, v in given.items() if n == "source"}
    for m in methods:
        out[m.name] = (m.title, column_of(m.column) if m.column else image_of(m.name), m)
    return out | {f"data-{n}": v for n, v in given.items() if n != "source"}


def _write_pictures(run: Run, output: str, folder: Path, name: str) -> dict[int, str]:
    """Write the pictures of a column; returns position → file, relative to the page."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    out = {}
    for position, image in run.elements(output) if output in run.runner.outputs else ():
        shown, suffix = _small(image)
        file = f"{name}/{position:05d}{suffix}"
        options: dict[str, Any] = {"format": "PNG"} if suffix == ".png" else {"format": "WEBP", "quality": 88}
        replace_file(folder / file, partial(shown.save, **options))
        out[position] = f"{PICTURES}/{file}"
    return out


def _small(image: PIL.Image.Image) -> tuple[PIL.Image.Image, str]:
    from PIL import Image, features

    shown = image if image.mode in ("RGB", "L") else image.convert("RGB")
    if max(shown.size) > LIMIT:
        shown = shown.copy()
        shown.thumbnail((LIMIT, LIMIT), Image.Resampling.LANCZOS)
    return shown, ".png" if max(shown.size) <= LOSSLESS or not features.check("webp") else ".webp"


def _edits(
    results: Results, methods: Sequence[Method | None], files: Sequence[dict[int, str]], heads: Sequence[Head]
) -> Iterator[Edit]:
    failed = _failures(results)
    texts = results.texts.get("instruction") or results.texts.get("target_caption") or results.names
    for at, name in enumerate(results.names):
        shots, values = [], list[float | None]()
        for method, found in zip(methods, files, strict=True):
            measured = [(h, v) for h in heads if method and (v := results.values(method.name, h.key))]
            numbers = [(h, v[at] * h.scale if v[at] is not None else None) for h, v in measured]  # type: ignore[operator]
            scores = tuple((h.title, _score(h, v)) for h, v in numbers if v is not None)
            reason = failed.get((method.name, at), "no picture") if method else "no picture"
            shots.append(Shot(found.get(at), reason, scores))
            values += [v for _, v in numbers]
        kind = results.types[at] if results.types else ""
        yield Edit(units.printable(name), kind, units.printable(texts[at]), tuple(shots), json.dumps(values))


def _score(head: Head, value: float) -> str:
    return f"{value:.{head.digits}f} {head.unit}".rstrip()


def _failures(results: Results) -> dict[tuple[str, int], str]:
    """Method and position → why there is no picture."""
    out: dict[tuple[str, int], str] = {}
    for name, message in results.failures.items():
        method, _, rest = name.partition("[")
        position = rest.partition("]")[0]
        if position.isdigit() and "/edit/" in rest:
            out.setdefault((method, int(position)), units.printable(message))
    return out


def _lines(table: Table) -> Iterator[Line]:
    skip = len(titles(table)) - len(table.heads)
    for row in table.rows:
        texts = cells(table, row)
        found: list[tuple[str, str, str, bool]] = [(text, "", text, False) for text in texts[:skip]]
        for text, cell, head in zip(texts[skip:], row.cells, table.heads, strict=True):
            e = cell.found
            title = cell.reason
            if e is not None and e.low is not None and e.high is not None:
                title = f"95 % interval {e.low:.{head.digits}f} … {e.high:.{head.digits}f}, {e.n} pictures"
            found.append((text, title, "" if e is None else repr(e.mean), cell.best))
        yield Line(row.kind, tuple(found))


def _plot(path: Path) -> tuple[str, str]:
    """Name and data URI of a plot, so that the page shows it wherever it is moved."""
    return path.stem, f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
