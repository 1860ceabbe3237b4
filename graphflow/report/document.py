"""The page as HTML."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from functools import partial

from graphflow.report.chart import Box
from graphflow.report.elements import Cell
from graphflow.report.html import Content, Html, tag
from graphflow.report.lanes import lanes
from graphflow.report.page import Page
from graphflow.report.pictures import Picture
from graphflow.report.steps import Bar, Step
from graphflow.report.values import View

div, p, section, small, span = (partial(tag, name) for name in ("div", "p", "section", "small", "span"))
h2, h3, code, td = (partial(tag, name) for name in ("h2", "h3", "code", "td"))

LOGO = Html(
    '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M5 6h5a3 3 0 0 1 3 3v6a3 3 0 0 0 3 3h3M13 12h6"/>'
    '<circle cx="5" cy="6" r="2.6"/><circle cx="19" cy="12" r="2.6"/><circle cx="19" cy="18" r="2.6"/></svg>'
)


def document(page: Page, style: str, script: str) -> str:
    """The whole file.

    Args:
        page: what stands on it.
        style: CSS.
        script: JavaScript. The policy lets the browser run this one script and load nothing: whatever a text holds, it
            stays text.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("title", page.title),
        tag("style", Html(style)),
    )
    parts = (_failure, _hero, _elements, _chart, _steps, _timeline, _time, _models, _source)
    main = tag("main", *(Html("\n" + found) for part in parts if (found := part(page)) is not None))
    began = f" · {page.record.started}" if page.record.started else ""
    footer = tag("footer", f"graphflow {page.record.graphflow}{began}")
    body = tag("body", _header(page), main, footer, tag("script", Html(script)))
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _header(page: Page) -> Html:
    status = page.record.status
    took = f" in {page.times[0][1]}" if status == "done" else ""
    return tag(
        "header",
        p(LOGO, "graphflow", class_="brand"),
        p(status + took, class_=f"pill {status}"),
        tag("h1", page.title),
        p(map(span, page.facts), class_="meta"),
    )


def _failure(page: Page) -> Html | None:
    if page.failure is None:
        return None
    return section(h2(page.failure[0]), tag("pre", page.failure[1]), class_="failure", role="alert")


# --- pictures on top, inputs and outputs ------------------------------------------------------------------------------


def _hero(page: Page) -> Html:
    before, after = page.hero.before, page.hero.after
    compared: Html | None = None
    if before is not None and after is not None:
        compared = _compare(before, after)
    elif (only := after or before) is not None:
        name = page.hero.name or "input"
        compared = _frame(only, _plain(only, name), span(name, class_="tag left"))
    panel = div(
        tag("blockquote", page.instruction) if page.instruction else None,
        _listing(page.plain_inputs, "facts") if page.plain_inputs else None,
        [_value(v, "input") for v in page.input_views],
        _listing([(k.replace("_", " "), t) for k, t in page.scores], "scores") if page.scores else None,
        [_value(v, "output") for v in page.output_views],
        _rerun(page),
        class_="panel",
    )
    return section(compared, panel, class_="hero" if compared else "hero textual")


def _compare(before: Picture, after: Picture) -> Html:
    return _frame(
        after,
        _plain(after, "after"),
        tag("img", src=before.uri, alt="before", class_="before crisp" if before.crisp else "before"),
        span("before", class_="tag left"),
        span("after", class_="tag right"),
        span(class_="grip", aria_hidden="true"),
        tag("input", type="range", min=0, max=100, value=50, step=0.1, aria_label="drag to compare before and after"),
    )


def _frame(shape: Picture, *content: Content) -> Html:
    return div(*content, class_="compare", style=f"--w:{shape.width};--h:{shape.height}")


def _plain(found: Picture, alt: str) -> Html:
    return tag("img", src=found.uri, alt=alt, class_="crisp" if found.crisp else None)


def _value(view: View, side: str) -> Html:
    return div(h3(view.port, " ", small(side)), _view(view), class_="value")


def _listing(rows: Iterable[tuple[str, str]], kind: str) -> Html:
    return tag("dl", (div(tag("dt", name), tag("dd", text)) for name, text in rows), class_=kind)


def _rerun(page: Page) -> Html:
    copy = tag("button", "copy", type="button", data_copy=True)
    return div(
        h3("Run it again"),
        div(code([(span(part), " ") for part in page.rerun]), copy, class_="code"),
        div(code(page.again), copy, class_="code"),
        p(
            "Add ", code("-i name=value"), " or ", code("--set node.parameter=value"),
            " to change something; what did not change is not computed again.", class_="quiet",
        ),
        class_="rerun",
    )  # fmt: skip


# --- values -----------------------------------------------------------------------------------------------------------


def _view(view: View) -> Content:
    more = _more(view.more)
    if view.shape == "pictures":
        return _pictures(view), more
    if view.shape == "text":
        return p(view.text, class_="text"), more
    if view.shape == "texts":
        return tag("ol", (tag("li", text) for text in view.texts), class_="texts"), more
    if view.shape in ("scores", "table"):
        rows = tag("tbody", (tag("tr", map(td, row)) for row in view.rows))
        return div(tag("table", _head(view.columns) if view.columns else None, rows), class_="scroll"), more
    if view.shape == "lost":
        return p(view.text, class_="quiet"), more
    facts = [(span(span(name), " ", text, class_="fact"), " ") for name, text in view.facts]
    return _pictures(view) if view.pictures else None, p(facts, class_="quiet"), more


def _more(count: int) -> Html | None:
    return p(f"and {count} more", class_="quiet") if count else None


def _pictures(view: View) -> Html:
    return div((_figure(found, view.port) for found in view.pictures), class_=f"pictures n{min(len(view.pictures), 2)}")


def _figure(found: Picture, name: str) -> Html:
    image = tag(
        "img", src=found.uri, alt=name or found.caption, width=found.width, height=found.height, loading="lazy",
        class_="crisp" if found.crisp else None,
    )  # fmt: skip
    return tag("figure", image, tag("figcaption", found.caption) if found.caption else None)


def _head(columns: Iterable[Content]) -> Html:
    return tag("thead", tag("tr", (tag("th", column) for column in columns)))


# --- sections ---------------------------------------------------------------------------------------------------------


def _elements(page: Page) -> Html | None:
    table = page.elements
    if table is None:
        return None
    head = _head([None, *((c.name, " ", small("input")) if c.given else c.name for c in table.columns)])
    rows = (
        tag("tr", td(str(i), class_="quiet"), (td(_cell(c.cells[i], c.name)) for c in table.columns))
        for i in range(table.count)
    )
    grid = tag("table", head, tag("tbody", rows), class_="grid")
    return section(h2("Elements"), div(grid, class_="scroll"), _more(table.more))


def _cell(found: Cell, name: str) -> Html | str:
    if isinstance(found, Picture):
        return _figure(found, name)
    return span(found, class_="bad") if found == "failed" else found


def _chart(page: Page) -> Html | None:
    chart = page.chart
    if not chart.boxes:
        return None
    drawing = tag(
        "svg", (tag("path", d=edge) for edge in chart.edges), (_box(box, chart.box) for box in chart.boxes),
        viewBox=f"0 0 {chart.width} {chart.height}", width=chart.width, style=f"--w:{chart.width}", role="img",
        aria_label="the graph of the run",
    )  # fmt: skip
    kinds = [("ran", "computed"), ("", "cached"), *([("failed", "failed")] if page.failure else [])]
    legend = p([(tag("i", class_=kind or None), word) for kind, word in kinds], class_="quiet legend")
    return section(h2("Graph"), div(drawing, class_="scroll chart"), legend)


def _box(box: Box, width: float) -> Html:
    given, middle = box.status == "input", box.x + width / 2
    name = f"{_cut(box.name, 14)} ×{box.count}" if box.count > 1 else _cut(box.name, 19)
    return tag(
        "a",
        tag("rect", x=box.x, y=box.y, width=width, height=42, rx=21 if given else 7),
        tag("text", name, x=middle, y=box.y + 18),
        tag("text", _cut(box.kind, 24), class_="kind", x=middle, y=box.y + 32),
        href=None if given else f"#node-{box.name}",
        class_=box.status,
    )


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _steps(page: Page) -> Html | None:
    return section(h2("Steps"), div(map(_step, page.steps), class_="steps")) if page.steps else None


def _step(step: Step) -> Html:
    kind = p(step.kind, class_="kind") if step.kind != step.name else None
    values = (
        div(tag("h4", v.port, " ", small(v.type)), _view(v), class_="value") for v in step.views
    )  # fmt: skip
    header = tag("header", h3(_foldable(step.name)), kind, p(step.time, class_="quiet"))
    return tag("article", header, div(values, class_="values"), class_=step.status)


def _foldable(name: str) -> list[Content]:
    """A name that is folded behind its slashes only."""
    *parts, last = name.split("/")
    return [*((span(part, "/", class_="part"), tag("wbr")) for part in parts), span(last, class_="part")]


def _timeline(page: Page) -> Html | None:
    return section(h2("Timeline"), lanes(page.timeline)) if page.timeline is not None else None


def _time(page: Page) -> Html | None:
    if not page.bars:
        return None
    return section(h2("Time"), _listing(page.times, "scores"), div(map(_bar, page.bars), class_="bars"))


def _bar(bar: Bar) -> Html:
    width = span(style=f"left:{bar.left:.2f}%;width:{bar.width:.2f}%")
    summary = tag(
        "summary", span(_foldable(bar.name), class_="who"), span(width, class_="track"), span(bar.time, class_="when")
    )
    facts: Sequence[Content] = [div(tag("dt", name), tag("dd", text)) for name, text in bar.facts]
    if bar.key:
        facts = [*facts, div(tag("dt", "key"), tag("dd", bar.key, class_="digest"))]
    peaks = any(e.peak for e in bar.elements)
    rows = (
        tag("tr", map(td, (e.position, e.status, e.time, *[e.peak] * peaks, e.reason)), class_=e.status)
        for e in bar.elements
    )
    head = _head(["element", "status", "time", *["peak memory"] * peaks, "reason"])
    table = tag("table", head, tag("tbody", rows), class_="elements")
    return tag(
        "details", summary, tag("dl", facts, class_="facts"), table if bar.elements else None, _more(bar.more),
        id=f"node-{bar.anchor}", class_=bar.status,
    )  # fmt: skip


def _models(page: Page) -> Html | None:
    if not page.models:
        return None
    rows = (
        tag("tr", map(td, (role, m.source, m.loader, m.space)), td(m.fingerprint[:16], class_="digest"))
        for role, m in page.models
    )
    head = _head(["role", "source", "loader", "space", "fingerprint"])
    return section(h2("Models"), div(tag("table", head, tag("tbody", rows)), class_="scroll models"))


def _source(page: Page) -> Html | None:
    if not page.record.text:
        return None
    return section(tag("details", tag("summary", "The graph file"), tag("pre", page.record.text), class_="source"))
