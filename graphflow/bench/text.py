"""The table as text: Markdown, CSV, LaTeX, and the scores of each picture as CSV."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from graphflow.bench.results import Results
from graphflow.bench.spec import SECONDS
from graphflow.bench.statistics import difference, scaled
from graphflow.bench.table import Cell, Head, Row, Table

MEANING = "± is half of the 95 % bootstrap interval over pictures."
BEST = "the best method of a column, and those that a paired bootstrap (95 %) does not tell from it."
_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "±": r"$\pm$",
    "–": "--", "×": r"$\times$",
}  # fmt: skip


def titles(table: Table) -> list[str]:
    """The heads of all columns, the method's first."""
    return ["method", *(["pictures"] if table.incomplete else []), *(head.text for head in table.heads)]


def cells(table: Table, row: Row, mark: Callable[[str], str] = lambda text: text) -> list[str]:
    """A row as text; `mark` distinguishes the best."""
    texts = [_cell(cell, head, mark) for cell, head in zip(row.cells, table.heads, strict=True)]
    made = [f"{row.made} / {table.count}" if row.made is not None else ""] if table.incomplete else []
    return [label(row), *made, *texts]


def label(row: Row) -> str:
    """The method's title; of published numbers with that word."""
    return f"{row.title} (published)" if row.kind == "published" else row.title


def _cell(cell: Cell, head: Head, mark: Callable[[str], str]) -> str:
    text = cell.text(head.digits)
    return mark(text) if cell.best else text


def footnotes(table: Table, marked: str = "Bold") -> list[str]:
    """What stands below the table in every form of it; `marked` says how the best are."""
    found = [c for row in table.rows for c in row.cells]
    out = [f"{table.count} pictures."]
    if any(c.found is not None and c.found.low is not None for c in found):
        out[0] += f" {MEANING}"
    if any(c.best for c in found):
        out[0] += f" {marked}: {BEST}"
    return [*out, *table.notes]


def markdown(table: Table) -> str:
    """The table as GitHub shows it, with notes and the definitions of its columns below."""
    lines = [_md_row(titles(table)), _md_row(["---"] + ["---:"] * (len(titles(table)) - 1))]
    for row in table.rows:
        texts = cells(table, row, lambda text: f"**{text}**")
        lines.append(_md_row([f"*{t}*" if row.kind == "published" and t not in ("", "–") else t for t in texts]))
    lines += ["", *footnotes(table)[:1]]
    lines += [f"\n- {note}" if n == 0 else f"- {note}" for n, note in enumerate(footnotes(table)[1:])]
    defined = [f"- **{h.title}** (`{h.key}`): {h.definition}" for h in table.heads if h.definition]
    return "\n".join([*lines, "", *defined]) + "\n"


def _md_row(texts: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", r"\|") for text in texts) + " |"


def latex(table: Table) -> str:
    r"""The table for LaTeX with the package booktabs; published rows stand below a rule of their own."""
    columns = "l" + "r" * (len(titles(table)) - 1)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", _tex_row(titles(table)), r"\midrule"]
    before = ""
    for row in table.rows:
        if row.kind == "published" and before not in ("", "published"):
            lines.append(r"\midrule")
        before = row.kind
        texts = [_tex_cell(text) for text in cells(table, row, lambda text: f"\0{text}")]
        lines.append(" & ".join(rf"\textit{{{t}}}" if row.kind == "published" and t else t for t in texts) + r" \\")
    notes = [f"% {note}" for note in footnotes(table)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *notes]) + "\n"


def _tex_cell(text: str) -> str:
    return rf"\textbf{{{_escaped(text[1:])}}}" if text.startswith("\0") else _escaped(text)


def _tex_row(texts: Sequence[str]) -> str:
    return " & ".join(map(_escaped, texts)) + r" \\"


def _escaped(text: str) -> str:
    return re.sub("|".join(map(re.escape, _TEX)), lambda found: _TEX[found[0]], text)


def tidy_csv(table: Table) -> str:
    """A line for each cell: method, kind, column, mean with both ends of its interval, unit, n, and what is missing."""
    lines = [["method", "title", "kind", "column", "unit", "mean", "low", "high", "n", "best", "missing", "source"]]
    for row in table.rows:
        for head, cell in zip(table.heads, row.cells, strict=True):
            e = cell.found
            ends = ["", "", ""] if e is None else [_number(e.mean), _number(e.low), _number(e.high)]
            numbers = [*ends, str(e.n) if e is not None and e.n else ""]
            best = "yes" if cell.best else ""
            lines.append([row.name, row.title, row.kind, head.key, head.unit, *numbers, best, cell.reason, row.source])
    return _csv(lines)


def scores_csv(results: Results) -> str:
    """A line for each method and picture, with every number that was measured, as it was measured."""
    measured = results.measured.values()
    keys = list(dict.fromkeys(k for m in measured for k, v in m.items() if not (v.whole or k.endswith("."))))
    types = results.types
    lines = [["picture", *(["edit_type"] if types else []), "method", *keys, SECONDS]]
    for method, columns in results.measured.items():
        values: Mapping[str, list[float | None]] = {
            **{k: columns[k].values for k in keys if k in columns}, SECONDS: results.seconds.get(method, [])
        }  # fmt: skip
        for at, name in enumerate(results.names):
            found = (_at(values.get(key, []), at) for key in (*keys, SECONDS))
            lines.append([name, *([types[at]] if types else []), method, *map(_number, found)])
    return _csv(lines)


def differences_csv(results: Results, table: Table) -> str:
    """A line for each two methods and column: how much larger the first is, over the pictures that both have."""
    lines = [["method", "minus", "column", "unit", "mean", "low", "high", "n"]]
    names = [row.name for row in table.rows if row.kind != "published"]
    for head in table.heads:
        for first, second in itertools.combinations(names, 2):
            values = results.values(first, head.key), results.values(second, head.key)
            found = difference(*values) if all(values) else None
            if found is not None:
                e = scaled(found, head.scale)
                numbers = [_number(end) for end in (e.mean, e.low, e.high)]
                lines.append([first, second, head.key, head.unit, *numbers, str(e.n)])
    return _csv(lines)


def _at(values: Sequence[float | None], position: int) -> float | None:
    return values[position] if position < len(values) else None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"


def _csv(lines: Sequence[Sequence[str]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(map(list, _harmless(lines)))
    return out.getvalue()


def _harmless(lines: Sequence[Sequence[str]]) -> Iterator[Iterator[str]]:
    """Text that a spreadsheet would take for a formula gets an apostrophe before it."""
    for line in lines:
        yield (f"'{text}" if text[:1] in ("=", "+", "@") or _formula(text) else text for text in line)


def _formula(text: str) -> bool:
    return text.startswith("-") and not re.fullmatch(r"-\d[\d.e+-]*", text)


FORMATS: dict[str, Callable[[Table], str]] = {"md": markdown, "csv": tidy_csv, "tex": latex}
