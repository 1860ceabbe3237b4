"""Markup: texts are escaped, whatever they are part of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from graphflow.report.html import Html, markup, tag


def test_texts_are_escaped_once_and_markup_stays() -> None:
    assert tag("p", "a < b & 'c'", tag("b", '"d"')) == "<p>a &lt; b &amp; &#39;c&#39;<b>&#34;d&#34;</b></p>"
    assert tag("p", ["1", (Html("<hr>"), None), (x for x in ("2", "3"))]) == "<p>1<hr>23</p>"
    assert isinstance(tag("p"), Html)


def test_attributes_are_escaped_renamed_or_left_out() -> None:
    found = tag("img", src='x" onerror="y', class_=None, alt="", width=3, data_copy=True, hidden=False, aria_label="a")
    assert found == '<img src="x&#34; onerror=&#34;y" alt="" width="3" data-copy aria-label="a"/>'
    assert tag("meta", name="n", http_equiv="h") == '<meta name="n" http-equiv="h"/>'


@given(st.text())
def test_no_text_opens_a_tag_or_ends_an_attribute(text: str) -> None:
    assert not set(markup(text)) & set("<>\"'")
    assert tag("i", text, title=text).count('"') == 2
