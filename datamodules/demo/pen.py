"""A pen that draws in local coordinates: x to the right, y down, an object within about -1..1."""

from __future__ import annotations

import colorsys
import functools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import ImageDraw, ImageFont

Colour = tuple[int, int, int]
Point = tuple[float, float]

_CIRCLE = [(math.cos(2 * math.pi * step / 28), math.sin(2 * math.pi * step / 28)) for step in range(28)]


@dataclass(frozen=True)
class Pen:
    """Draws on an image around (x, y), with `scale` pixels per unit, rotated by `angle` radians."""

    draw: ImageDraw.ImageDraw
    x: float
    y: float
    scale: float
    angle: float = 0.0
    mirrored: bool = False

    def at(self, x: float, y: float, scale: float = 1.0, angle: float = 0.0, mirrored: bool = False) -> Pen:
        """Return a pen for a part of the drawing, at a place in this pen's coordinates."""
        (px, py) = self._place((x, y))
        turn = -angle if self.mirrored else angle
        return replace(
            self,
            x=px,
            y=py,
            scale=self.scale * scale,
            angle=self.angle + turn,
            mirrored=self.mirrored ^ mirrored,
        )

    def shape(self, points: Sequence[Point], fill: Colour) -> None:
        """Draw a filled polygon."""
        self.draw.polygon([self._place(point) for point in points], fill=fill)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Colour) -> None:
        """Draw a filled rectangle."""
        self.shape([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], fill)

    def oval(self, x: float, y: float, rx: float, ry: float, fill: Colour) -> None:
        """Draw a filled ellipse."""
        self.shape([(x + rx * cos, y + ry * sin) for cos, sin in _CIRCLE], fill)

    def path(self, points: Sequence[Point], width: float, fill: Colour) -> None:
        """Draw a line of the given width."""
        pixels = max(1, round(width * self.scale))
        self.draw.line([self._place(point) for point in points], fill=fill, width=pixels, joint="curve")

    def text(self, x: float, y: float, words: str, height: float, fill: Colour, **how: Any) -> None:
        """Draw a line of text, upright for any angle of the pen.

        Args:
            x, y: middle of its left edge, or the point given by `anchor`.
            words: the text.
            height: size of the font.
            fill: colour.
            how: further options of Pillow's `ImageDraw.text`.
        """
        font = _font(max(1, round(height * self.scale)))
        self.draw.text(self._place((x, y)), words, fill=fill, font=font, **({"anchor": "lm"} | how))

    def _place(self, point: Point) -> Point:
        x, y = point
        if self.mirrored:
            x = -x
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return (self.x + self.scale * (x * cos - y * sin), self.y + self.scale * (x * sin + y * cos))


_MEASURED = 64  # font size for text measurement


@functools.cache
def _font(size: int) -> Any:
    """Pillow's default font, of a size in pixels."""
    return ImageFont.load_default(size)


def text_width(words: str, height: float) -> float:
    """Width of a line of text, in the unit of its height."""
    width: float = _font(_MEASURED).getlength(words) * height / _MEASURED
    return width


def wrapped(words: str, height: float, width: float) -> list[str]:
    """Wrap text into lines of at most `width`; a longer word gets its own line."""
    lines: list[str] = []
    for word in words.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, height) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def vary(rng: random.Random, colour: Colour, amount: int = 22) -> Colour:
    """A random colour near the given one."""
    shift = rng.randint(-amount, amount)
    red, green, blue = (min(255, max(0, part + shift + rng.randint(-amount // 3, amount // 3))) for part in colour)
    return red, green, blue


def shade(colour: Colour, factor: float) -> Colour:
    """A darker (factor below 1) or lighter version of a colour."""
    red, green, blue = (min(255, int(part * factor)) for part in colour)
    return red, green, blue


def any_colour(rng: random.Random, saturation: tuple[float, float] = (0.2, 0.8)) -> Colour:
    """A random colour of any hue."""
    parts = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(0.45, 0.95))
    red, green, blue = (int(255 * part) for part in parts)
    return red, green, blue
