"""Axes, ticks, and number formatting."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """A map from values to coordinates of a chart.

    Attributes:
        low, high: values at the ends of the axis.
        start, end: coordinates of the ends.
        logarithmic: whether the scale is logarithmic.
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Return the coordinate of a value, rounded to a tenth."""
        low, high, value = (math.log(v) if self.logarithmic else v for v in (self.low, self.high, value))
        fraction = (value - low) / (high - low) if high > low else 0.5
        return round(self.start + fraction * (self.end - self.start), 1)


def padded_axis(low: float, high: float, start: float, end: float) -> Axis:
    """Return an axis that extends slightly beyond the values on both sides.

    If all values are 0, there is no scale; the axis then starts near 0, as rates and betas are never negative.
    """
    if low == high == 0:
        return Axis(-0.06, 1.0, start, end)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return Axis(low - margin, high + margin, start, end)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Return about `count` round values between two values, including the ends if they are round."""
    if not (high > low and math.isfinite(high - low)):
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def number(value: float) -> str:
    """Format a number with up to four significant digits, or without decimals from 1000, and a true minus sign."""
    if value == 0:
        return "0"
    size = abs(value)
    text = f"{value:,.0f}" if size >= 1000 else f"{value:.4g}" if size >= 1e-3 else f"{value:.1e}"
    return text.replace("-", "\u2212")


def share(value: float, digits: int = 0) -> str:
    """Format a fraction in percent."""
    return f"{100 * value:.{digits}f} %"
