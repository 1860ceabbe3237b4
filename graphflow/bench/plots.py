"""Plots of a bench: preservation against edit strength, a bar per edit type, time per picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from graphflow.bench.results import Results
from graphflow.bench.spec import SECONDS
from graphflow.bench.statistics import Estimate, estimate
from graphflow.bench.table import Head, Row, Table

# Okabe and Ito's palette without yellow, which is too light for lines on white: told apart with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = "osD^vPX*"
HATCHES = ("", "///", "...", "xxx")  # for bars of one colour
BASELINE = "#767676"

NAMES = ("preservation", "types", "seconds")
SUFFIXES = (".svg", ".png")
Style = dict[str, tuple[str, str, str]]  # method → colour, marker, hatch


def draw_plots(results: Results, table: Table, folder: Path) -> list[Path]:
    """Draw what the results allow as PNG and SVG; returns the PNG files.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    style = _style(results, table)
    drawings: list[Callable[[], Any]] = [
        lambda: _preservation(results, table, style),
        lambda: _types(results, table, style),
        lambda: _seconds(table, style),
    ]
    out = []
    settings: Any = {
        "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
        "grid.color": "#e3e3e3", "grid.linewidth": 0.7, "axes.axisbelow": True, "axes.edgecolor": "#555555",
        "svg.hashsalt": "graphflow", "svg.fonttype": "none", "legend.frameon": False,
    }  # fmt: skip
    with plt.rc_context(settings):
        for name, draw in zip(NAMES, drawings, strict=True):
            figure = draw()
            if figure is None:
                continue
            for suffix in SUFFIXES:
                path = folder / f"{name}{suffix}"
                figure.savefig(path, dpi=160, bbox_inches="tight", metadata={"Date": None} if suffix == ".svg" else {})
            plt.close(figure)
            out.append(folder / f"{name}.png")
    return out


def _style(results: Results, table: Table) -> Style:
    """A colour a curve; a marker a method, and a hatch where several bars have one colour."""
    out: Style = {}
    curves: dict[str, str] = {}
    markers = dict.fromkeys(("method", "baseline"), 0)
    for row in table.rows:
        if row.kind == "published":
            continue
        colour = BASELINE
        if row.kind == "method":
            curve = results.spec.methods[row.name].curve or row.name
            colour = curves.setdefault(curve, COLOURS[len(curves) % len(COLOURS)])
        alike = sum(found[0] == colour for found in out.values())
        out[row.name] = colour, MARKERS[markers[row.kind] % len(MARKERS)], HATCHES[alike % len(HATCHES)]
        markers[row.kind] += 1
    return out


def _at(table: Table, key: str | None) -> int | None:
    return next((n for n, head in enumerate(table.heads) if head.key == key), None)


def _arm(found: Estimate) -> list[list[float]]:
    """What matplotlib calls an error: the distances to both ends of the interval."""
    low = found.low if found.low is not None else found.mean
    high = found.high if found.high is not None else found.mean
    return [[max(found.mean - low, 0.0)], [max(high - found.mean, 0.0)]]


def _preservation(results: Results, table: Table, style: Style) -> Any:
    """A point a method: what it has kept, against how much of the edit it has done."""
    import matplotlib.pyplot as plt

    plots = results.spec.plots
    x, y = _at(table, plots.strength), _at(table, plots.preservation)
    if x is None or y is None:
        return None
    shown = [row for row in table.rows if row.name in style and row.cells[x].found and row.cells[y].found]
    if not shown:
        return None
    figure, axes = plt.subplots(figsize=(6.4, 4.4))
    for place, limit in ((x, axes.set_xlim), (y, axes.set_ylim)):
        limit(*_range([cell for row in shown if row.kind == "method" and (cell := row.cells[place].found)]))
    for row in shown:
        across, up = row.cells[x].found, row.cells[y].found
        assert across is not None
        assert up is not None
        colour, marker, _ = style[row.name]
        label = row.title
        if not (_within(axes.get_xlim(), across.mean) and _within(axes.get_ylim(), up.mean)):
            label += f"\n({across.mean:.{table.heads[x].digits}f}, {up.mean:.{table.heads[y].digits}f}; off the axes)"
        axes.errorbar(
            across.mean, up.mean, xerr=_arm(across), yerr=_arm(up), color=colour, marker=marker, markersize=8,
            markerfacecolor="white" if row.kind == "baseline" else colour, linestyle="none", elinewidth=1.2,
            capsize=2.5, label=label, zorder=3,
        )  # fmt: skip
    _join(axes, results, shown, (x, y), style)
    axes.set_xlabel(f"edit strength: {table.heads[x].text}")
    axes.set_ylabel(f"preservation: {table.heads[y].text}")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), labelspacing=0.9)
    return figure


def _join(axes: Any, results: Results, rows: Sequence[Row], at: tuple[int, int], style: Style) -> None:
    """Lines between methods of one curve, in the order of the file."""
    curves: dict[str, list[Row]] = {}
    for row in rows:
        if curve := results.spec.methods[row.name].curve:
            curves.setdefault(curve, []).append(row)
    for found in curves.values():
        points = [[cell.mean for row in found if (cell := row.cells[n].found)] for n in at]
        axes.plot(*points, color=style[found[0].name][0], linewidth=1.4, zorder=2)


def _range(found: Sequence[Estimate]) -> tuple[float | None, float | None]:
    """Where the methods lie, with room around; a baseline far away would squeeze them into a corner."""
    if not found:
        return None, None
    ends = [end for e in found for end in (e.mean, e.low, e.high) if end is not None]
    room = 0.35 * (max(ends) - min(ends)) or 0.1 * abs(max(ends)) or 1.0
    return min(ends) - room, max(ends) + room


def _within(limits: tuple[float, float], value: float) -> bool:
    return limits[0] <= value <= limits[1]


def _types(results: Results, table: Table, style: Style) -> Any:
    """A bar for each edit type and method, one panel a column."""
    import matplotlib.pyplot as plt

    heads = [h for h in table.heads if h.key in results.spec.plots.types]
    types = list(dict.fromkeys(results.types))
    rows = [row for row in table.rows if row.kind == "method"]
    if not heads or len(types) < 2 or not rows:
        return None
    width = min(16.0, max(6.4, 1.2 + len(types) * (0.45 + 0.16 * len(rows))))
    figure, panels = plt.subplots(len(heads), 1, figsize=(width, 2.7 * len(heads)), sharex=True, squeeze=False)
    for head, axes in zip(heads, panels[:, 0], strict=True):
        for number, row in enumerate(rows):
            _bars(axes, results, head, row, types, (number, len(rows)), style)
        axes.set_ylabel(head.text)
        axes.grid(axis="x", visible=False)
        axes.margins(x=0.01)
    bottom = panels[-1, 0]
    bottom.set_xticks(range(len(types)), [t.replace("_", " ") for t in types])
    if len(types) > 7 or max(map(len, types)) > 12:
        bottom.tick_params(axis="x", rotation=30)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(4, len(labels)))
    figure.tight_layout()
    return figure


def _bars(
    axes: Any, results: Results, head: Head, row: Row, types: Sequence[str], place: tuple[int, int], style: Style
) -> None:
    """The bars of one method; a type of which nothing was measured has none."""
    width = 0.8 / place[1]
    colour, _, hatch = style[row.name]
    values = results.values(row.name, head.key)
    for at, kind in enumerate(types):
        found = estimate(
            [v * head.scale for v, t in zip(values, results.types, strict=False) if t == kind and v is not None]
        )
        left = at - 0.4 + (place[0] + 0.5) * width
        if found is None:
            axes.annotate("–", (left, 0), (0, 2), textcoords="offset points", ha="center", color=BASELINE)
        else:
            axes.bar(
                left,
                found.mean,
                0.92 * width,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                linewidth=0,
                label=row.title if at == 0 else None,
            )
            axes.errorbar(left, found.mean, yerr=_arm(found), color="#333333", elinewidth=1, capsize=1.5)


def _seconds(table: Table, style: Style) -> Any:
    """Computing time of a picture, a bar a method."""
    import matplotlib.pyplot as plt

    at = _at(table, SECONDS)
    rows = [r for r in table.rows if r.kind == "method" and at is not None and r.cells[at].found]
    if at is None or not rows:
        return None
    figure, axes = plt.subplots(figsize=(6.4, 0.9 + 0.42 * len(rows)))
    for number, row in enumerate(reversed(rows)):
        found = row.cells[at].found
        assert found is not None
        axes.barh(
            number, found.mean, 0.66, color=style[row.name][0], hatch=style[row.name][2], edgecolor="white", linewidth=0
        )
        axes.errorbar(found.mean, number, xerr=_arm(found), color="#333333", elinewidth=1, capsize=2)
        end = found.high if found.high is not None else found.mean
        axes.annotate(
            f"{found.mean:.{table.heads[at].digits}f}", (end, number), (5, 0), textcoords="offset points", va="center"
        )
    axes.set_yticks(range(len(rows)), [row.title for row in reversed(rows)])
    axes.set_xlabel("seconds a picture, models loaded")
    axes.set_xlim(left=0)
    axes.margins(x=0.16)
    axes.grid(axis="y", visible=False)
    return figure
