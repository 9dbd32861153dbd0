"""Charts as inline SVG; every colour comes from the page's style sheet, by class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from mmib.analysis.report.markup import Html, element, join

Point = tuple[float, float]

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 50, 18, 10, 38
# A line of more points than this is thinned: it could not be told apart on paper either.
MOST_POINTS = 240
# Levels that span this factor are drawn on a logarithmic axis.
LOGARITHMIC_FROM = 50
# Percentage points: a dot plot of scores closer together shows that part of the scale only.
SMALL_PART = 30


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        name: for the key; lines of one name share an entry.
        points: x and y, in order of x.
        style: classes of the style sheet, a colour first: `text`, `image`, `ink`, `c0` to `c7`; then `faint`, `dashed`.
        errors: lower and upper end of each point's error bar.
        dots: whether points are marked.
    """

    name: str
    points: Sequence[Point]
    style: str
    errors: Sequence[Point] = field(default=())
    dots: bool = True


@dataclass(frozen=True)
class Axis:
    """Maps values onto a stretch of a chart.

    Attributes:
        low, high: values at its ends.
        start, end: coordinates of its ends.
        logarithmic: whether equal ratios are equally long.
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """The coordinate of a value, to a tenth."""
        low, high, value = (math.log(v) if self.logarithmic else v for v in (self.low, self.high, value))
        share = (value - low) / (high - low) if high > low else 0.5
        return round(self.start + share * (self.end - self.start), 1)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round values between two values, both ends included where they are round."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def number(value: float) -> str:
    """A number in at most four significant digits, with a true minus."""
    if value == 0:
        return "0"
    size = abs(value)
    text = f"{value:,.0f}" if size >= 1000 else f"{value:.4g}" if size >= 1e-3 else f"{value:.1e}"
    return text.replace("-", "\u2212")


def share(value: float, digits: int = 0) -> str:
    """A fraction in percent."""
    return f"{100 * value:.{digits}f} %"


def line_chart(
    title: str, series: Sequence[Series], x: str, unit: str = "", note: str = "", keyed: bool = True
) -> Html | None:
    """Lines over a common axis, with a key where there is more than one; None where there is nothing to draw.

    Args:
        title: what is shown.
        series: the lines; points that are not finite are left out.
        x: what the horizontal axis counts.
        unit: of the vertical axis, behind the title.
        note: one more line below the chart.
        keyed: False where a key stands elsewhere.
    """
    lines = [line for line in series if line.points]
    if not lines:
        return None
    values = [
        value for line in lines for value in (*(y for _, y in line.points), *(e for pair in line.errors for e in pair))
    ]
    places = [place for line in lines for place, _ in line.points]
    logarithmic = (
        min(places) > 0
        and len(set(places)) > 2
        and max(places) / min(places) >= LOGARITHMIC_FROM
        and any(line.errors for line in lines)
    )
    across = Axis(min(places), max(places), LEFT, WIDTH - RIGHT, logarithmic)
    up = _padded(min(values), max(values), HEIGHT - BOTTOM, TOP)
    marks = sorted(set(places)) if logarithmic else ticks(across.low, across.high)
    drawn = join([_grid(up), _x_axis(across, marks, x), *(_line(line, across, up) for line in lines)])
    summary = "; ".join(
        f"{line.name}: {number(line.points[0][1])} to {number(line.points[-1][1])}" for line in lines[:8]
    )
    return figure(
        title, _svg(WIDTH, HEIGHT, f"{title}, {x}. {summary}", drawn), unit, key(lines) if keyed else None, note
    )


def _padded(low: float, high: float, start: float, end: float) -> Axis:
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return Axis(low - margin, high + margin, start, end)


def _grid(up: Axis) -> Html:
    rows = []
    for value in ticks(up.low, up.high):
        y = up(value)
        rows.append(element("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y))
        rows.append(element("text", number(value), class_="tick", x=LEFT - 6, y=y + 4, text_anchor="end"))
    return join(rows)


def _x_axis(across: Axis, marks: Sequence[float], label: str, bottom: float = HEIGHT - BOTTOM) -> Html:
    numbers = [
        element("text", number(value), class_="tick", x=across(value), y=bottom + 15, text_anchor="middle")
        for value in marks
    ]
    middle = (across.start + across.end) / 2
    return join([*numbers, element("text", label, class_="axis", x=middle, y=bottom + 32, text_anchor="middle")])


def _line(line: Series, across: Axis, up: Axis) -> Html:
    points = list(line.points)
    if len(points) > MOST_POINTS:
        stride = math.ceil(len(points) / MOST_POINTS)
        points = [*points[::stride], points[-1]]
    path = " ".join(f"{across(x)},{up(y)}" for x, y in points)
    drawn = [element("polyline", class_="line", points=path)]
    for (x, _), (low, high) in zip(line.points, line.errors, strict=False):
        drawn.append(element("line", class_="error", x1=across(x), x2=across(x), y1=up(low), y2=up(high)))
    if line.dots or len(points) == 1:
        drawn += [
            dot(across(x), up(y), f"{line.name}: {number(y)} at {number(x)}", 2.6 if len(points) < 40 else 1.6)
            for x, y in points
        ]
    return element("g", drawn, class_=f"series {line.style}")


def dot(x: float, y: float, says: str, radius: float = 2.6) -> Html:
    """A point that tells its values when pointed at."""
    return element("circle", element("title", says), class_="dot", cx=x, cy=y, r=radius)


@dataclass(frozen=True)
class Mark:
    """One row of a dot plot, in percent.

    Attributes:
        name: what was scored.
        value: its score.
        low, high: ends of its error bar.
        ceilings: further values on the same scale, by style.
        style: colour class.
    """

    name: str
    value: float
    low: float
    high: float
    ceilings: dict[str, float] = field(default_factory=dict)
    style: str = "ink"


def dot_plot(
    title: str, marks: Sequence[Mark], unit: str = "percent", legend: Html | None = None, note: str = ""
) -> Html:
    """A score a row on one scale: a dot with its error bar, ceilings as ticks. In HTML, so that names may wrap."""
    ends = [end for mark in marks for end in (mark.low, mark.high, *mark.ceilings.values())]
    # The whole scale unless everything lies in a small part of it.
    whole = max(ends) - min(ends) > SMALL_PART
    low, high = (0.0, 100.0) if whole else (math.floor(min(ends) / 5) * 5, math.ceil(max(ends) / 5) * 5)
    along = Axis(low, max(high, low + 5), 0, 100)
    lines = [element("i", class_="grid", style=f"left:{along(tick)}%") for tick in ticks(along.low, along.high)]
    rows = []
    for mark in marks:
        left, right = along(max(mark.low, along.low)), along(min(mark.high, along.high))
        drawn = [*lines, element("i", class_="error", style=f"left:{left}%;width:{right - left:.1f}%")]
        drawn += [
            element("i", class_=f"ceiling {style}", style=f"left:{along(value)}%", title=f"{value:.1f}")
            for style, value in mark.ceilings.items()
        ]
        drawn.append(element("i", class_=f"dot {mark.style}", style=f"left:{along(mark.value)}%"))
        label = f"{mark.name}: {mark.value:.1f}, error bar from {mark.low:.1f} to {mark.high:.1f}"
        track = element("span", drawn, class_="track", role="img", aria_label=label)
        rows.append(_plot_row(mark.name, track, f"{mark.value:.1f}"))
    scale = [element("i", number(tick), style=f"left:{along(tick)}%") for tick in ticks(along.low, along.high)]
    rows.append(_plot_row("", element("span", scale, class_="track scale", aria_hidden="true"), ""))
    return figure(title, element("div", rows, class_="dotplot"), unit, legend, note)


def _plot_row(name: str, track: Html, value: str) -> Html:
    return element(
        "div", element("span", name, class_="name"), track, element("span", value, class_="value"), class_="row"
    )


def scatter(title: str, groups: Sequence[Series], pairs: Sequence[tuple[Point, Point]], note: str = "") -> Html:
    """Clouds of points on equal axes without numbers, some points joined by lines."""
    size = 300
    xs, ys = ([point[axis] for group in groups for point in group.points] for axis in (0, 1))
    reach = max(max(xs) - min(xs), max(ys) - min(ys)) / 2 or 1.0
    centre_x, centre_y = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    across = Axis(centre_x - reach, centre_x + reach, 10, size - 10)
    up = Axis(centre_y - reach, centre_y + reach, size - 10, 10)
    drawn = [
        element("line", class_="pair", x1=across(a[0]), y1=up(a[1]), x2=across(b[0]), y2=up(b[1])) for a, b in pairs
    ]
    for group in groups:
        circles = [element("circle", class_="dot", cx=across(x), cy=up(y), r=2.4) for x, y in group.points]
        drawn.append(element("g", circles, class_=f"series cloud {group.style}"))
    return figure(title, _svg(size, size, f"{title}. {note}", join(drawn)), legend=key(groups), note=note)


def trajectory(title: str, points: Sequence[tuple[float, float, float]], style: str, x: str, y: str) -> Html:
    """A path over a plane whose dots grow darker with time.

    Args:
        title: what is shown.
        points: place on both axes, and the step, in order of step.
        style: colour class.
        x, y: what the axes count.
    """
    across = _padded(min(p[0] for p in points), max(p[0] for p in points), LEFT, WIDTH - RIGHT)
    up = _padded(min(p[1] for p in points), max(p[1] for p in points), HEIGHT - BOTTOM, TOP)
    path = " ".join(f"{across(px)},{up(py)}" for px, py, _ in points)
    drawn = [element("polyline", class_="line faint", points=path)]
    for place, (px, py, step) in enumerate(points):
        says = f"step {number(step)}: {number(px)}, {number(py)}"
        circle = dot(across(px), up(py), says, 4)
        drawn.append(element("g", circle, style=f"opacity:{0.25 + 0.75 * (place + 1) / len(points):.2f}"))
    ends = {points[0]: -8} | ({points[-1]: 18} if len(points) > 1 else {})
    for (px, py, step), drop in ends.items():
        anchor = "end" if across(px) > (LEFT + WIDTH) / 2 else "start"
        x_text, y_text = across(px), up(py) + drop
        drawn.append(element("text", f"step {number(step)}", class_="axis", x=x_text, y=y_text, text_anchor=anchor))
    marks = ticks(across.low, across.high, 3)
    body = join([_grid(up), _x_axis(across, marks, x), element("g", drawn, class_=f"series {style}")])
    first, last = points[0], points[-1]
    label = (
        f"{title}: from rate {number(first[0])}, distortion {number(first[1])} to {number(last[0])}, {number(last[1])}"
    )
    return figure(title, _svg(WIDTH, HEIGHT, label, body), y)


def reliability(title: str, bins: Sequence[tuple[float, float, int]], note: str) -> Html:
    """Share that is right against mean confidence, a dot a bin, above a histogram of the confidences.

    Args:
        title: what is shown.
        bins: (mean confidence, share that is right, number) of the bins that are not empty.
        note: the calibration error in words.
    """
    bottom, floor, height = 230, 290, 328
    across, up = Axis(0, 1, LEFT, WIDTH - RIGHT), Axis(0, 1, bottom, TOP)
    most = max(count for _, _, count in bins)
    drawn = []
    for value in (0, 0.25, 0.5, 0.75, 1):
        drawn.append(element("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=up(value), y2=up(value)))
        drawn.append(element("text", share(value), class_="tick", x=LEFT - 6, y=up(value) + 4, text_anchor="end"))
        drawn.append(element("text", share(value), class_="tick", x=across(value), y=floor + 15, text_anchor="middle"))
    drawn.append(element("line", class_="diagonal", x1=across(0), y1=up(0), x2=across(1), y2=up(1)))
    drawn.append(element("text", "confidence", class_="axis", x=(LEFT + WIDTH) / 2, y=floor + 32, text_anchor="middle"))
    for confidence, right, count in bins:
        x, tall = across(confidence), round(44 * count / most, 1)
        says = f"{count:,} with mean confidence {share(confidence)}: {share(right)} right"
        drawn.append(element("line", class_="error", x1=x, x2=x, y1=up(confidence), y2=up(right)))
        drawn.append(dot(x, up(right), says, round(2.5 + 4 * math.sqrt(count / most), 1)))
        drawn.append(
            element("rect", element("title", says), class_="bar", x=x - 8, y=floor - tall, width=16, height=tall)
        )
    svg = _svg(WIDTH, height, f"{title}. {note}", element("g", drawn, class_="series ink"))
    return figure(title, svg, "share that is right", note=note)


def key(lines: Sequence[Series]) -> Html | None:
    """What the colours stand for; None for a single name."""
    styles = {line.name: line.style for line in lines}
    if len(styles) < 2:
        return None
    entries = [
        element("li", element("span", class_=f"swatch {style}", aria_hidden="true"), name)
        for name, style in styles.items()
    ]
    return element("ul", entries, class_="key")


def figure(title: str, body: Html, unit: str = "", legend: Html | None = None, note: str = "") -> Html:
    """A chart with its title, unit, key and note."""
    caption = element("figcaption", element("b", title), element("span", f" {unit}", class_="unit") if unit else None)
    return element("figure", caption, legend, body, element("p", note, class_="note") if note else None, class_="chart")


def _svg(width: int, height: int, label: str, body: Html) -> Html:
    return element("svg", body, viewBox=f"0 0 {width} {height}", role="img", aria_label=label)
