"""The HTML frame of every report: one self-contained file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from mmib.charts import Chart
from mmib.charts.chart import stylesheet
from mmib.charts.markup import Child, Html, element, join

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        name: anchor of the section.
        title: heading of the section.
        reading: one or two sentences on how to read it.
        body: content of the section.
    """

    name: str
    title: str
    reading: str
    body: Html


def page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Return the whole HTML document."""
    style = Html(stylesheet("palette.css") + stylesheet("charts.css") + _files("base.css", "page.css"))
    script = _files("theme.js", "page.js")
    head = [
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"{title} - mmib"),
        element("style", style),
    ]
    links = [element("a", section.title, href=f"#{section.name}") for section in sections]
    body = [
        element("a", "skip to the content", href="#content", class_="skip"),
        element(
            "header",
            element("button", "dark", type="button", id="theme", hidden=True),
            element("p", "mmib report", class_="kicker"),
            element("h1", title),
            element("p", subtitle, class_="subtitle"),
            element("nav", links, aria_label="sections") if len(links) > 1 else None,
        ),
        element("main", [_section(section) for section in sections], id="content"),
        element("script", script),
    ]
    document = element("html", element("head", head), element("body", body), lang="en")
    return f"<!DOCTYPE html>\n{document}\n"


def _files(*names: str) -> Html:
    """Concatenate files of this package."""
    folder = resources.files("mmib.analysis.report")
    return Html("".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names))


def _section(section: Section) -> Html:
    heading = element("h2", section.title, id=f"{section.name}-title")
    reading = element("p", section.reading, class_="reading") if section.reading else None
    return element("section", heading, reading, section.body, id=section.name, aria_labelledby=f"{section.name}-title")


def table(headings: Sequence[str], rows: Sequence[Sequence[Child]], caption: str, numbers: bool = True) -> Html:
    """Return a table whose first column names the rows. On narrow screens it scrolls on its own."""
    style = "numbers" if numbers else None
    head = element("tr", [element("th", heading, scope="col") for heading in headings])
    body = [
        element("tr", element("th", row[0], scope="row"), [element("td", cell) for cell in row[1:]]) for row in rows
    ]
    whole = element("table", element("caption", caption), element("thead", head), element("tbody", body), class_=style)
    return scrolling(whole, caption)


def scrolling(body: Html, label: str) -> Html:
    """Wrap wide content in a frame that scrolls on its own, also with the keyboard."""
    return element("div", body, class_="scroll", tabindex="0", role="region", aria_label=label)


def note(text: str) -> Html:
    """Return a note on what is missing, and why."""
    return element("p", text, class_="missing")


def grid(*charts: Chart | None) -> Html | None:
    """Arrange charts side by side where there is room; None without charts."""
    there = [chart.html for chart in charts if chart is not None]
    return element("div", join(there), class_="charts") if there else None
