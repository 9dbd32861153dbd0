"""The charts of the project: line charts, dot plots, scatter plots, the information plane, reliability diagrams."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mmib.charts.chart import LETTER, Chart
from mmib.charts.markup import Html, element, join
from mmib.charts.scales import Axis, number, padded_axis, share, ticks

Point = tuple[float, float]

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 50, 18, 10, 38
# A line with more points is thinned, because they could not be distinguished.
MOST_POINTS = 240
# Levels that span this factor are drawn on a logarithmic axis.
LOGARITHMIC_FROM = 50
# A dot plot whose scores span at most this many percentage points shows only their part of the scale.
SMALL_PART = 30
# Horizontal distance between lines with error bars, so that no bar hides another.
BESIDE = 2.5
# Layout of a dot plot: width of the scores, height of a line of a name and of the scale below it.
SCORE, NAME_LINE, ROW = 42, 15, 20


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        name: name in the key; lines with the same name share an entry.
        points: x and y, in order of x.
        style: CSS classes: first a colour (`text`, `image`, `ink`, `c0` to `c7`), then `faint`, `dashed` or `points`,
            which omits the line between the points.
        errors: lower and upper end of each point's error bar.
        dots: whether points are marked.
    """

    name: str
    points: Sequence[Point]
    style: str
    errors: Sequence[Point] = field(default=())
    dots: bool = True


def line_chart(
    title: str, series: Sequence[Series], x: str, unit: str = "", note: str = "", keyed: bool = True
) -> Chart | None:
    """Draw lines over a common axis, with a key if there are several; None without points.

    Args:
        title: title of the chart.
        series: the lines.
        x: label of the horizontal axis.
        unit: unit of the vertical axis.
        note: a line of text below the chart.
        keyed: whether to add a key; False if the page has one elsewhere.
    """
    lines = [line for line in series if line.points]
    if not lines:
        return None
    values = [
        value for line in lines for value in (*(y for _, y in line.points), *(e for pair in line.errors for e in pair))
    ]
    levels = [level for line in lines for level, _ in line.points]
    barred = [line for line in lines if line.errors]
    logarithmic = (
        bool(barred) and min(levels) > 0 and len(set(levels)) > 2 and max(levels) / min(levels) >= LOGARITHMIC_FROM
    )
    across = Axis(min(levels), max(levels), LEFT, WIDTH - RIGHT, logarithmic)
    up = padded_axis(min(values), max(values), HEIGHT - BOTTOM, TOP)
    marks = sorted(set(levels)) if logarithmic else ticks(across.low, across.high)
    shifts = {id(line): BESIDE * (place - (len(barred) - 1) / 2) for place, line in enumerate(barred)}
    drawn = [_line(line, across, up, shifts.get(id(line), 0.0)) for line in lines]
    summary = "; ".join(
        f"{line.name}: {number(line.points[0][1])} to {number(line.points[-1][1])}" for line in lines[:8]
    )
    return Chart(
        title=title,
        width=WIDTH,
        height=HEIGHT,
        drawing=join([_grid(up), _x_axis(across, marks, x), *drawn]),
        label=f"{title}, {x}. {summary}",
        unit=unit,
        key={line.name: line.style for line in lines} if keyed else {},
        note=note,
    )


def _grid(up: Axis) -> Html:
    rows = []
    for value in ticks(up.low, up.high):
        y = up(value)
        rows.append(element("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y))
        rows.append(element("text", number(value), x=LEFT - 6, y=y + 4, text_anchor="end"))
    return join(rows)


def _x_axis(across: Axis, marks: Sequence[float], label: str) -> Html:
    bottom = HEIGHT - BOTTOM
    numbers = [element("text", number(value), x=across(value), y=bottom + 15, text_anchor="middle") for value in marks]
    middle = (across.start + across.end) / 2
    return join([*numbers, element("text", label, x=middle, y=bottom + 32, text_anchor="middle")])


def _line(line: Series, across: Axis, up: Axis, shift: float) -> Html:
    points = list(line.points)
    if len(points) > MOST_POINTS:
        stride = math.ceil(len(points) / MOST_POINTS)
        points = [*points[::stride], points[-1]]
    drawn = []
    if "points" not in line.style.split():
        path = " ".join(f"{across(x) + shift:g},{up(y)}" for x, y in points)
        drawn.append(element("polyline", class_="line", points=path))
    for (x, _), (low, high) in zip(line.points, line.errors, strict=False):
        place = round(across(x) + shift, 1)
        drawn.append(element("line", class_="error", x1=place, x2=place, y1=up(low), y2=up(high)))
    if line.dots or len(points) == 1:
        drawn += [
            _dot(
                round(across(x) + shift, 1),
                up(y),
                f"{line.name}: {number(y)} at {number(x)}",
                2.6 if len(points) < 40 else 1.6,
            )
            for x, y in points
        ]
    return element("g", drawn, class_=f"series {line.style}")


def _dot(x: float, y: float, text: str, radius: float = 2.6) -> Html:
    """Return a point with a tooltip that shows its values."""
    return element("circle", element("title", text), class_="dot", cx=x, cy=y, r=radius)


@dataclass(frozen=True)
class Mark:
    """One row of a dot plot, in percent.

    Attributes:
        name: name of the row.
        value: the score.
        low, high: ends of the error bar.
        ceilings: further values on the same scale, by style.
        style: CSS class of the colour.
        values: the single values that make up the score.
    """

    name: str
    value: float
    low: float
    high: float
    ceilings: dict[str, float] = field(default_factory=dict)
    style: str = "ink"
    values: Sequence[float] = ()


def dot_plot(
    title: str, marks: Sequence[Mark], unit: str = "percent", key: Mapping[str, str] | None = None, note: str = ""
) -> Chart:
    """Draw one score per row on a common scale.

    A row has a name and, below it, a dot with an error bar, and ceilings and single values as strokes.

    Args:
        title: title of the chart.
        marks: the rows.
        unit: unit of the scores.
        key: {name: style} of the ceilings.
        note: a line of text below the chart.
    """
    ends = [end for mark in marks for end in (mark.low, mark.high, *mark.values, *mark.ceilings.values())]
    # Show the whole scale unless all values are in a small part of it.
    whole = max(ends) - min(ends) > SMALL_PART
    low, high = (0.0, 100.0) if whole else (math.floor(min(ends) / 5) * 5, math.ceil(max(ends) / 5) * 5)
    along = Axis(low, max(high, low + 5), 8, WIDTH - SCORE)
    scale = {tick: along(tick) for tick in ticks(along.low, along.high)}
    rows, y = [], 4
    for mark in marks:
        lines = textwrap.wrap(mark.name, int(WIDTH / LETTER)) or [""]
        y += NAME_LINE * len(lines) + ROW
        rows += [element("line", class_="grid", x1=x, x2=x, y1=y - ROW, y2=y) for x in scale.values()]
        rows.append(_row(mark, lines, along, y))
    numbers = [element("text", number(tick), x=x, y=y + 15, text_anchor="middle") for tick, x in scale.items()]
    summary = "; ".join(f"{mark.name}: {mark.value:.1f}, {mark.low:.1f} to {mark.high:.1f}" for mark in marks)
    return Chart(
        title=title,
        width=WIDTH,
        height=y + 20,
        drawing=join([*rows, *numbers]),
        label=f"{title}. {summary}",
        unit=unit,
        key=key or {},
        note=note,
    )


def _row(mark: Mark, lines: Sequence[str], along: Axis, bottom: float) -> Html:
    """Draw a row of a dot plot that ends at `bottom`."""
    middle = bottom - ROW / 2
    names = [
        element("text", line, class_="name", y=bottom - ROW - NAME_LINE * (len(lines) - place) + 12)
        for place, line in enumerate(lines)
    ]
    left, right = along(max(mark.low, along.low)), along(min(mark.high, along.high))
    ceilings = [
        element("g", _stroke(along(value), middle, 7, f"{value:.1f}"), class_=f"series {style}")
        for style, value in mark.ceilings.items()
    ]
    score = [
        *(_stroke(along(value), middle, 5, f"{value:.1f}", "value") for value in mark.values),
        element("line", class_="error", x1=left, x2=right, y1=middle, y2=middle),
        _dot(along(mark.value), middle, f"{mark.name}: {mark.value:.1f}, {mark.low:.1f} to {mark.high:.1f}", 4.5),
    ]
    value = element("text", f"{mark.value:.1f}", class_="name", x=WIDTH, y=middle + 4, text_anchor="end")
    return join([*names, *ceilings, element("g", score, class_=f"series {mark.style}"), value])


def _stroke(x: float, y: float, reach: float, text: str, style: str = "line") -> Html:
    return element("line", element("title", text), class_=style, x1=x, x2=x, y1=y - reach, y2=y + reach)


def scatter(title: str, groups: Sequence[Series], pairs: Sequence[tuple[Point, Point]], note: str = "") -> Chart:
    """Draw groups of points on equally scaled axes without numbers, with lines between pairs of points."""
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
    key = {group.name: f"{group.style} points" for group in groups}
    return Chart(title, size, size, join(drawn), f"{title}. {note}", key=key, note=note)


def information_plane(points: Sequence[Mapping[str, float]]) -> list[Chart]:
    """Draw a chart per modality of rate against distortion, in nats per post, with dots that darken with time.

    Args:
        points: `step`, `rate_text`, `rate_image` and `distortion` of each validation, in order of step.
    """
    return [
        _trajectory(
            f"Information plane, {modality}",
            [(point[f"rate_{modality}"], point["distortion"], point["step"]) for point in points],
            modality,
            "rate: mean KL, nats a post",
            "distortion: task loss, nats per post",
        )
        for modality in ("text", "image")
    ]


def _trajectory(title: str, points: Sequence[tuple[float, float, float]], style: str, x: str, y: str) -> Chart:
    """Draw a path in the plane through points (x, y, step)."""
    across = padded_axis(min(p[0] for p in points), max(p[0] for p in points), LEFT, WIDTH - RIGHT)
    up = padded_axis(min(p[1] for p in points), max(p[1] for p in points), HEIGHT - BOTTOM, TOP)
    path = " ".join(f"{across(px)},{up(py)}" for px, py, _ in points)
    drawn = [element("g", element("polyline", class_="line", points=path), class_="faint")]
    for place, (px, py, step) in enumerate(points):
        circle = _dot(across(px), up(py), f"step {number(step)}: {number(px)}, {number(py)}", 4)
        drawn.append(element("g", circle, opacity=f"{0.25 + 0.75 * (place + 1) / len(points):.2f}"))
    below = 18 if up(points[-1][1]) + 18 < HEIGHT - BOTTOM else -8
    ends = {points[0]: -8} | ({points[-1]: below} if len(points) > 1 else {})
    for (px, py, step), drop in ends.items():
        anchor = "end" if across(px) > (LEFT + WIDTH) / 2 else "start"
        drawn.append(element("text", f"step {number(step)}", x=across(px), y=up(py) + drop, text_anchor=anchor))
    marks = ticks(across.low, across.high, 3)
    first, last = points[0], points[-1]
    return Chart(
        title=title,
        width=WIDTH,
        height=HEIGHT,
        drawing=join([_grid(up), _x_axis(across, marks, x), element("g", drawn, class_=f"series {style}")]),
        label=f"{title}: from rate {number(first[0])}, distortion {number(first[1])} to {number(last[0])}, "
        f"{number(last[1])}",
        unit=y,
    )


def reliability(title: str, bins: Sequence[tuple[float, float, int]], note: str) -> Chart:
    """Draw a reliability diagram, accuracy against mean confidence by bin, above a histogram of the confidences.

    Args:
        title: title of the chart.
        bins: (mean confidence, accuracy, number of predictions) of the non-empty bins.
        note: the calibration error in words.
    """
    bottom, floor, height = 230, 290, 328
    across, up = Axis(0, 1, LEFT, WIDTH - RIGHT), Axis(0, 1, bottom, TOP)
    most = max(count for _, _, count in bins)
    drawn = []
    for value in (0, 0.25, 0.5, 0.75, 1):
        drawn.append(element("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=up(value), y2=up(value)))
        drawn.append(element("text", share(value), x=LEFT - 6, y=up(value) + 4, text_anchor="end"))
        drawn.append(element("text", share(value), x=across(value), y=floor + 15, text_anchor="middle"))
    drawn.append(element("line", class_="diagonal", x1=across(0), y1=up(0), x2=across(1), y2=up(1)))
    drawn.append(element("text", "confidence", x=(LEFT + WIDTH) / 2, y=floor + 32, text_anchor="middle"))
    for confidence, right, count in bins:
        x, tall = across(confidence), round(44 * count / most, 1)
        text = f"{count:,} with mean confidence {share(confidence)}: {share(right)} right"
        drawn.append(element("line", class_="error", x1=x, x2=x, y1=up(confidence), y2=up(right)))
        drawn.append(_dot(x, up(right), text, round(2.5 + 4 * math.sqrt(count / most), 1)))
        drawn.append(
            element("rect", element("title", text), class_="bar", x=x - 8, y=floor - tall, width=16, height=tall)
        )
    return Chart(
        title=title,
        width=WIDTH,
        height=height,
        drawing=element("g", drawn, class_="series ink"),
        label=f"{title}. {note}",
        unit="share that is right",
        note=note,
    )
