"""The timeline as markup."""

from __future__ import annotations

from functools import partial

from graphflow.report.html import Html, tag
from graphflow.report.timeline import Drawn, Mark, Track, Weights

div, span, p = (partial(tag, name) for name in ("div", "span", "p"))


def lanes(drawn: Drawn) -> Html:
    """What stands below the section's heading."""
    figures = tag("dl", (div(tag("dt", name), tag("dd", text)) for name, text in drawn.figures), class_="scores")
    ticks = div(
        span((span(text, style=f"left:{left:.2f}%") for left, text in drawn.ticks), class_="ticks"), class_="lane"
    )
    signs = [*drawn.legend, *_signs(drawn)]
    legend = p((span(tag("i", class_=f"c {style}"), word) for style, word in signs), class_="quiet legend")
    rows = [_weights(found) if isinstance(found, Weights) else _track(found) for found in drawn.tracks]
    return Html(figures + div(ticks, rows, class_="lanes") + legend + _waits(drawn) + _loads(drawn))


def _signs(drawn: Drawn) -> list[tuple[str, str]]:
    """The legend of what is no call, as far as there is any."""
    styles = {mark.style for track in drawn.tracks if isinstance(track, Track) for mark in track.marks}
    signs = (
        ("call failed", "with failures"), ("wait", "waiting"), ("load disk", "from disk"), ("load", "host → device"),
    )  # fmt: skip
    return [(style, word) for style, word in signs if style in styles]


def _track(track: Track) -> Html:
    marks = span(map(_mark, track.marks), class_="track")
    return div(span(track.name, class_="who"), marks, span(track.note, class_="when"), class_="lane")


def _mark(mark: Mark) -> Html:
    place = f"left:{mark.left:.3f}%;width:{mark.width:.3f}%"
    if mark.rows > 1:
        place += f";top:{100 * mark.row / mark.rows:.1f}%;height:{100 / mark.rows:.1f}%"
    if len(mark.fill) == 1:
        place += f";--c:var(--{mark.fill[0][0]})"
    elif mark.fill:
        place += f";background:{_stripes(mark.fill)}"
    style = mark.style + (" half" if mark.rows > 1 else "")
    if mark.anchor:
        return tag("a", mark.label, href=f"#node-{mark.anchor}", class_=style, style=place, title=mark.tip)
    return span(mark.label, class_=style, style=place, title=mark.tip)


def _stripes(fill: list[tuple[str, float]]) -> str:
    """Kinds that share a mark lie above each other, as high as their share of its time."""
    stops, at = [], 0.0
    for colour, share in fill:
        stops.append(f"var(--{colour}) {100 * at:.0f}% {100 * (at + share):.0f}%")
        at += share
    return f"linear-gradient({','.join(stops)})"


def _weights(found: Weights) -> Html:
    budget = tag("path", d=f"M0 {found.budget:.1f}H1000", class_="budget") if found.budget is not None else None
    drawing = tag(
        "svg", tag("path", d=found.path), budget, viewBox="0 0 1000 100", preserveAspectRatio="none", role="img",
        aria_label=f"weights on {found.device}: {found.note}",
    )  # fmt: skip
    note = span(found.note, class_="when")
    return div(span("weights", class_="who"), span(drawing, class_="track"), note, class_="lane weights")


def _waits(drawn: Drawn) -> Html | str:
    if not drawn.waits:
        return ""
    return _table(f"Longest waits ({len(drawn.waits)})", ("at", "device", "time", "waited"), drawn.waits)


def _loads(drawn: Drawn) -> Html | str:
    if not drawn.loads:
        return ""
    count = len(drawn.loads) + drawn.more_loads
    columns = ("at", "model", "way", "size", "time", "speed")
    more = p(f"and {drawn.more_loads} more", class_="quiet") if drawn.more_loads else None
    return _table(f"Loads ({count})", columns, drawn.loads, more)


def _table(name: str, columns: tuple[str, ...], rows: list[tuple[str, ...]], more: Html | None = None) -> Html:
    head = tag("thead", tag("tr", (tag("th", column) for column in columns)))
    body = tag("tbody", (tag("tr", (tag("td", cell) for cell in row)) for row in rows))
    return tag("details", tag("summary", name), div(tag("table", head, body), class_="scroll"), more, class_="moves")
