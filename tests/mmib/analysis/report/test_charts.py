"""Charts: axes, thinning, and what is left out."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmib.analysis.report.charts import (
    MOST_POINTS,
    Axis,
    Mark,
    Series,
    dot_plot,
    line_chart,
    number,
    reliability,
    ticks,
)


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e6))
def test_ticks_are_few_even_and_inside(low: float, width: float) -> None:
    high = low + width
    found = ticks(low, high)
    slack = 1e-6 * max(abs(low), abs(high), width)
    assert len(found) <= 6
    assert all(low - slack <= tick <= high + slack for tick in found)
    steps = {round((b - a) / width, 5) for a, b in itertools.pairwise(found)}
    assert len(steps) <= 1


def test_ticks_are_round() -> None:
    assert ticks(0, 100) == [0, 25, 50, 75, 100]
    assert ticks(0.013, 0.049) == pytest.approx([0.02, 0.03, 0.04])
    assert ticks(3, 3) == [3]


def test_an_axis_maps_its_ends_and_equal_ratios() -> None:
    assert [Axis(2, 4, 100, 0)(value) for value in (2, 3, 4)] == [100, 50, 0]
    assert [Axis(1e-3, 1e-1, 0, 100, logarithmic=True)(value) for value in (1e-3, 1e-2, 1e-1)] == [0, 50, 100]
    assert Axis(1, 1, 0, 100)(1) == 50


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (-1.5, "\u22121.5"), (12345.6, "12,346"), (0.00012, "1.2e\u221204"), (0.123456, "0.1235")],
)
def test_numbers_as_people_write_them(value: float, text: str) -> None:
    assert number(value) == text


def test_a_chart_without_points_is_none() -> None:
    assert line_chart("F1", [Series("F1", [], "ink")], "steps") is None


def test_long_lines_are_thinned_and_keep_their_ends() -> None:
    points = [(float(step), float(step % 7)) for step in range(10 * MOST_POINTS)]
    chart = line_chart("loss", [Series("loss", points, "ink", dots=False)], "steps")
    assert chart is not None
    (path,) = re.findall(r'points="([^"]+)"', chart)
    places = [float(pair.split(",")[0]) for pair in path.split()]
    assert MOST_POINTS / 2 < len(places) <= MOST_POINTS + 1
    assert places[0] == 50
    assert places[-1] == 342


def test_levels_over_decades_are_spread_evenly() -> None:
    points = [(1e-4, 1.0), (1e-3, 2.0), (1e-2, 3.0)]
    chart = line_chart("F1", [Series("F1", points, "c0", [(y - 1, y + 1) for _, y in points])], "beta")
    assert chart is not None
    x = [float(place) for place in re.findall(r'cx="([\d.]+)"', chart)]
    assert x[1] - x[0] == pytest.approx(x[2] - x[1])


def test_a_key_names_each_colour_once() -> None:
    lines = [Series(name, [(0.0, 1.0)], style) for name, style in (("a", "c0"), ("a", "c0"), ("b", "c1"))]
    chart = line_chart("F1", lines, "steps")
    assert chart is not None
    assert len(re.findall("<li>", chart)) == 2


def test_dots_stand_on_the_scale_that_is_drawn() -> None:
    plot = dot_plot("F1", [Mark("test", 60, 58, 62, {"text": 50.0}), Mark("hard", 20, 10, 30)])
    assert re.findall(r'class="dot ink" style="left:([\d.]+)%', plot) == ["60.0", "20.0"]
    assert re.findall(r'class="ceiling text" style="left:([\d.]+)%', plot) == ["50.0"]


def test_close_scores_are_drawn_on_a_part_of_the_scale() -> None:
    plot = dot_plot("F1", [Mark("a", 96, 95.5, 96.5), Mark("b", 92, 91, 93)])
    assert re.findall(r'class="dot ink" style="left:([\d.]+)%', plot) == ["60.0", "20.0"]
    assert ">90<" in plot
    assert ">0<" not in plot


def test_a_perfectly_calibrated_bin_lies_on_the_diagonal() -> None:
    chart = reliability("Calibration", [(0.5, 0.5, 3)], "")
    (error,) = re.findall(r'class="error" x1="[\d.]+" x2="[\d.]+" y1="([\d.]+)" y2="([\d.]+)"', chart)
    assert error[0] == error[1]
