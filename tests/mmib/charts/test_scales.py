"""Axes, ticks and numbers."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmib.charts.scales import Axis, number, padded_axis, share, ticks


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e6))
def test_ticks_are_few_evenly_spaced_and_inside_the_axis(low: float, width: float) -> None:
    high = low + width
    found = ticks(low, high)
    slack = 1e-6 * max(abs(low), abs(high), width)
    assert len(found) <= 6
    assert all(low - slack <= tick <= high + slack for tick in found)
    steps = {round((b - a) / width, 5) for a, b in itertools.pairwise(found)}
    assert len(steps) <= 1


def test_ticks_are_round_numbers() -> None:
    assert ticks(0, 100) == [0, 25, 50, 75, 100]
    assert ticks(0.013, 0.049) == pytest.approx([0.02, 0.03, 0.04])
    assert ticks(3, 3) == [3]


def test_an_axis_maps_its_ends_and_preserves_ratios() -> None:
    assert [Axis(2, 4, 100, 0)(value) for value in (2, 3, 4)] == [100, 50, 0]
    assert [Axis(1e-3, 1e-1, 0, 100, logarithmic=True)(value) for value in (1e-3, 1e-2, 1e-1)] == [0, 50, 100]
    assert Axis(1, 1, 0, 100)(1) == 50


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_a_padded_axis_keeps_values_away_from_its_ends(low: float, width: float) -> None:
    axis = padded_axis(low, low + width, 0, 1000)
    assert 0 < axis(low) <= axis(low + width) < 1000


def test_zeros_are_near_the_start_of_their_axis() -> None:
    axis = padded_axis(0, 0, 0, 1000)
    assert ticks(axis.low, axis.high)[0] == 0
    assert 0 < axis(0) < 100


@pytest.mark.parametrize("high", [float("inf"), float("nan")])
def test_an_unbounded_axis_has_one_tick(high: float) -> None:
    assert ticks(1.0, high) == [1.0]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (-1.5, "\u22121.5"), (12345.6, "12,346"), (0.00012, "1.2e\u221204"), (0.123456, "0.1235")],
)
def test_numbers_are_formatted_for_readers(value: float, text: str) -> None:
    assert number(value) == text


def test_fractions_are_formatted_in_percent() -> None:
    assert share(0.256) == "26 %"
    assert share(0.256, 1) == "25.6 %"
