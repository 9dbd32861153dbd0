"""A chart: an SVG drawing with title, key and note, for a page or as a file."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from mmib.base.files import write_text
from mmib.charts.markup import Html, element, join

# Layout of a file: space around and between charts, height of a text line, mean width of a letter, scale factor.
MARGIN, LINE, LETTER, SCALE = 16, 16, 6.4, 1.5
SWATCH = 20


@dataclass(frozen=True)
class Chart:
    """A drawing and its texts. Style sheets define all colours, by class.

    Attributes:
        title: title of the chart.
        width, height: size of the drawing.
        drawing: SVG elements of the drawing.
        label: description of the drawing in words, for screen readers.
        unit: unit of the vertical axis.
        key: {name: style} of the colours.
        note: a sentence below the drawing.
    """

    title: str
    width: int
    height: int
    drawing: Html
    label: str
    unit: str = ""
    key: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def html(self) -> Html:
        """The chart as an HTML figure."""
        caption = element(
            "figcaption",
            element("b", self.title),
            element("span", f" {self.unit}", class_="unit") if self.unit else None,
        )
        svg = element("svg", self.drawing, viewBox=f"0 0 {self.width} {self.height}", role="img", aria_label=self.label)
        note = element("p", self.note, class_="note") if self.note else None
        return element("figure", caption, key(self.key), svg, note, class_="chart")


def key(styles: Mapping[str, str]) -> Html | None:
    """Return the key of the colours as an HTML list; None for fewer than two names."""
    if len(styles) < 2:
        return None
    entries = [
        element("li", element("svg", _swatch(style), viewBox=f"0 0 {SWATCH} 12", aria_hidden="true"), name)
        for name, style in styles.items()
    ]
    return element("ul", entries, class_="key")


def _swatch(style: str) -> Html:
    """Return a sample of the line, dot or stroke of a style."""
    classes = style.split()
    if "points" in classes:
        drawn = element("circle", class_="dot", cx=SWATCH / 2, cy=6, r=3)
    elif "stroke" in classes:
        drawn = element("line", class_="line", x1=SWATCH / 2, x2=SWATCH / 2, y1=0, y2=12)
    else:
        drawn = element("line", class_="line", x1=0, x2=SWATCH - 4, y1=6, y2=6)
    return element("g", drawn, class_=f"series {style}")


def save(charts: Sequence[Chart], path: Path) -> None:
    """Write charts side by side as one SVG file, in the light colours of the palette.

    The file includes its style, and uses only features that programs other than browsers support.
    """
    heads = [_head(chart) for chart in charts]
    top = max(height for _, height in heads) + MARGIN
    parts, left, bottom = [], MARGIN, 0.0
    for chart, (head, _) in zip(charts, heads, strict=True):
        note = _lines(textwrap.wrap(chart.note, int(chart.width / LETTER)), chart.height + LINE, "note")
        bottom = max(bottom, top + chart.height + LINE * (len(note) + 0.5))
        parts.append(element("g", head, transform=f"translate({left} {MARGIN / 2:g})"))
        parts.append(element("g", chart.drawing, note, transform=f"translate({left} {top})"))
        left += chart.width + MARGIN
    paper = element("rect", class_="paper", width=left, height=bottom)
    picture = element(
        "svg",
        element("style", Html(standalone_style())),
        element("title", "; ".join(chart.title for chart in charts)),
        paper,
        join(parts),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {left} {bottom}",
        width=SCALE * left,
        height=SCALE * bottom,
    )
    write_text(path, f"{picture}\n")


def _head(chart: Chart) -> tuple[list[Html], float]:
    """Return title, unit and key above a drawing, and their height."""
    letters = int(chart.width / LETTER)
    title, unit = textwrap.wrap(chart.title, letters - 6), textwrap.wrap(chart.unit, letters)
    parts = [*_lines(title, LINE, "title"), *_lines(unit, LINE * (len(title) + 1), "unit")]
    row, x = len(parts), 0.0
    for name, style in chart.key.items() if len(chart.key) > 1 else ():
        width = SWATCH + LETTER * (len(name) + 2)
        if x and x + width > chart.width:
            row, x = row + 1, 0.0
        y = LINE * (row + 1)
        parts.append(element("g", _swatch(style), transform=f"translate({x:.0f} {y - 10})"))
        parts.append(element("text", name, x=round(x + SWATCH), y=y))
        x += width
    return parts, LINE * (row + (x > 0) + 0.5)


def _lines(lines: Sequence[str], y: float, style: str) -> list[Html]:
    return [element("text", line, class_=style, y=y + LINE * place) for place, line in enumerate(lines)]


def standalone_style() -> str:
    """Return the style sheet of charts, with variables replaced by the palette's light values."""
    palette, style = (stylesheet(name) for name in ("palette.css", "charts.css"))
    values = dict(re.findall(r"--([\w-]+):\s*(.+);", palette))
    return re.sub(r"var\(--([\w-]+)\)", lambda found: _light(values[found[1]]), style)


def _light(value: str) -> str:
    """Return the first of the two colours of `light-dark(…)`; any other value unchanged."""
    colours = re.fullmatch(r"light-dark\((.+), (.+)\)", value)
    return colours[1] if colours else value


def stylesheet(name: str) -> str:
    """Return a style sheet of this package."""
    return resources.files("mmib.charts").joinpath(name).read_text(encoding="utf-8")
