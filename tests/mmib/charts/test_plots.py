"""Contents of charts, parsed from their SVG."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pytest

from mmib.charts.chart import Chart
from mmib.charts.plots import (
    MOST_POINTS,
    Mark,
    Series,
    dot_plot,
    information_plane,
    line_chart,
    reliability,
    scatter,
)


def drawn_lines(series: Sequence[Series]) -> Chart:
    chart = line_chart("F1", series, "steps")
    assert chart is not None
    return chart


def dots(drawing: str, axis: str = "x") -> list[float]:
    return [float(place) for place in re.findall(rf'class="dot"[^>]* c{axis}="([\d.]+)"', drawing)]


def test_a_chart_without_points_is_omitted() -> None:
    assert line_chart("F1", [Series("F1", [], "ink")], "steps") is None


def test_long_lines_are_subsampled_and_keep_their_ends() -> None:
    points = [(float(step), float(step % 7)) for step in range(10 * MOST_POINTS)]
    (path,) = re.findall(r'points="([^"]+)"', drawn_lines([Series("loss", points, "ink", dots=False)]).drawing)
    places = [float(pair.split(",")[0]) for pair in path.split()]
    assert MOST_POINTS / 2 < len(places) <= MOST_POINTS + 1
    assert places[0] == 50
    assert places[-1] == 342


def test_levels_spanning_decades_are_spaced_evenly() -> None:
    points = [(1e-4, 1.0), (1e-3, 2.0), (1e-2, 3.0)]
    x = dots(drawn_lines([Series("F1", points, "c0", [(y - 1, y + 1) for _, y in points])]).drawing)
    assert x[1] - x[0] == pytest.approx(x[2] - x[1])


def test_error_bars_at_equal_levels_do_not_overlap() -> None:
    points, errors = [(0.0, 1.0), (1.0, 2.0)], [(0.5, 1.5), (1.5, 2.5)]
    series = [Series(name, points, "c0", errors) for name in ("a", "b")]
    bars = re.findall(r'class="error" x1="([\d.]+)"', drawn_lines(series).drawing)
    assert len(set(bars)) == 4
    assert bars == [f"{place}" for place in dots(drawn_lines(series).drawing)], "under their own dots"


def test_a_style_can_omit_lines_between_points() -> None:
    points = [(0.0, 1.0), (1.0, 2.0)]
    assert "polyline" in drawn_lines([Series("a", points, "c0")]).drawing
    assert "polyline" not in drawn_lines([Series("a", points, "c0 points")]).drawing


def test_a_legend_names_each_colour_once() -> None:
    lines = [Series(name, [(0.0, 1.0)], style) for name, style in (("a", "c0"), ("a", "c0"), ("b", "c1"))]
    assert drawn_lines(lines).key == {"a": "c0", "b": "c1"}
    chart = line_chart("F1", lines, "steps", keyed=False)
    assert chart is not None
    assert not chart.key


def test_scores_are_plotted_at_their_value_on_the_full_scale() -> None:
    drawing = dot_plot("F1", [Mark("test", 60, 58, 62, {"text": 50.0}), Mark("hard", 20, 10, 30)]).drawing
    ticks = {text: float(x) for x, text in re.findall(r'<text x="([\d.]+)" y="[\d.]+"[^>]*>(\d+)</text>', drawing)}
    at = {value: ticks["0"] + value * (ticks["100"] - ticks["0"]) / 100 for value in (60, 20, 50)}
    assert dots(drawing) == pytest.approx([at[60], at[20]], abs=0.1)
    (ceiling,) = re.findall(r'class="series text"><line class="line" x1="([\d.]+)"', drawing)
    assert float(ceiling) == pytest.approx(at[50], abs=0.1)


def test_close_scores_are_plotted_on_part_of_the_scale() -> None:
    drawing = dot_plot("F1", [Mark("a", 96, 95.5, 96.5), Mark("b", 92, 91, 93)]).drawing
    assert ">90<" in drawing
    assert ">0<" not in drawing
    left, right = sorted(dots(drawing))
    assert right - left > 50, "they can be told apart"


def test_a_dot_plot_shows_single_values_and_wraps_long_names() -> None:
    plain = dot_plot("F1", [Mark("a", 50, 40, 60)])
    name = "a variant without the refinement and without the alignment, share of irrelevant images 0.5, the best"
    plot = dot_plot("F1", [Mark(name, 50, 40, 60, values=[40, 50, 60])])
    assert plot.drawing.count('class="value"') == 3
    assert plot.height > plain.height
    lines = re.findall(r'<text class="name" y="[\d.]+">([^<]+)</text>', plot.drawing)
    assert len(lines) == 2
    assert " ".join(lines) == name


PLANE: list[Mapping[str, float]] = [
    {"step": 10 * number, "rate_text": 40.0 - number, "rate_image": 9.0, "distortion": 2.0 / (number + 1)}
    for number in range(8)
]


def test_the_information_plane_has_one_dot_per_validation_that_darkens_with_time() -> None:
    text, image = information_plane(PLANE)
    assert (text.title, image.title) == ("Information plane, text", "Information plane, image")
    assert dots(text.drawing) == sorted(dots(text.drawing), reverse=True), "the rate falls"
    assert len(set(dots(image.drawing))) == 1, "the rate stays"
    for chart in (text, image):
        assert dots(chart.drawing, "y") == sorted(dots(chart.drawing, "y")), "the distortion falls, and y counts down"
        opacity = [float(value) for value in re.findall(r'opacity="([\d.]+)"', chart.drawing)]
        assert opacity == sorted(set(opacity))
        assert "step 70" in chart.drawing


def test_a_single_validation_is_a_single_dot() -> None:
    assert all(len(dots(chart.drawing)) == 1 for chart in information_plane(PLANE[:1]))


def test_a_perfectly_calibrated_bin_lies_on_the_diagonal() -> None:
    (error,) = re.findall(
        r'class="error" x1="[\d.]+" x2="[\d.]+" y1="([\d.]+)" y2="([\d.]+)"',
        reliability("Calibration", [(0.5, 0.5, 3)], "").drawing,
    )
    assert error[0] == error[1]


def test_a_scatter_plot_has_equal_axis_scales() -> None:
    """Equal distances have equal length on both axes."""
    chart = scatter("clouds", [Series("text", [(0, 0), (4, 0), (0, 2)], "text")], [((0, 0), (4, 0))])
    x, y = dots(chart.drawing), dots(chart.drawing, "y")
    assert x[1] - x[0] == pytest.approx(2 * (y[0] - y[2]), abs=0.2)
