"""HTML out of Python: text can never become markup."""

from __future__ import annotations

import html
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from mmib.charts.markup import Html, element, escape, join

HOSTILE = "</script><img src=x onerror=\"alert('1')\">&amp;"


class Reader(HTMLParser):
    """Remembers every tag, every attribute and the text between."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text())
def test_any_text_stays_text_in_content_and_in_attributes(text: str) -> None:
    read = Reader(element("p", text, title=text))
    assert [tag for tag, _ in read.tags] == ["p"]
    assert read.text == read.tags[0][1]["title"] == html.unescape(escape(text))


def test_hostile_text_is_kept_and_harmless() -> None:
    read = Reader(element("p", HOSTILE, data_word=HOSTILE))
    assert read.tags == [("p", {"data-word": HOSTILE})]
    assert read.text == HOSTILE


def test_what_no_page_may_hold_is_replaced() -> None:
    assert escape("a\x00b\ud83dc\u0085") == "a\ufffdb\ufffdc\ufffd"
    escape("\ud800").encode()


def test_html_is_not_escaped_twice() -> None:
    inner = element("b", "a & b")
    assert element("p", inner, [inner, "<"]) == "<p><b>a &amp; b</b><b>a &amp; b</b>&lt;</p>"
    assert join([inner, "<"], " & ") == "<b>a &amp; b</b> &amp; &lt;"
    assert escape(Html("<br>")) == "<br>"


def test_attributes_without_a_value_and_left_out() -> None:
    assert element("input", hidden=True, checked=False, title=None, class_="a", data_right="0") == (
        '<input hidden class="a" data-right="0">'
    )
    assert element("rect", x=0, y=0.0) == '<rect x="0" y="0.0"></rect>'
