"""Backgrounds, and clutter without meaning."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from mmib.datamodules.demo.pen import Colour, Pen, any_colour, shade, vary

FAR = 3.0  # beyond every edge of an image of any shape and camera position


def bands(pen: Pen, span: tuple[float, float], first: Colour, last: Colour, count: int = 14) -> None:
    """A vertical gradient from one colour to another."""
    top, bottom = span
    height = (bottom - top) / count
    for step in range(count):
        mix = step / (count - 1)
        red, green, blue = (int(a + (b - a) * mix) for a, b in zip(first, last, strict=True))
        pen.box(-FAR, top + step * height, FAR, top + (step + 1.2) * height, (red, green, blue))


def sky(pen: Pen, rng: random.Random, bottom: float) -> None:
    """A sky at a random time of day."""
    first, last = rng.choice(
        (
            ((96, 160, 226), (206, 228, 246)),
            ((150, 170, 190), (214, 220, 226)),
            ((70, 84, 150), (246, 170, 120)),
            ((24, 30, 66), (84, 92, 140)),
        )
    )
    bands(pen, (-FAR, -1.0), first, first, 2)
    bands(pen, (-1.0, bottom), vary(rng, first), vary(rng, last))


def ground(pen: Pen, rng: random.Random, top: float, colours: tuple[Colour, ...]) -> None:
    """The ground from `top` down."""
    colour = vary(rng, rng.choice(colours))
    bands(pen, (top, 1.4), colour, shade(colour, rng.uniform(0.75, 1.1)), 6)
    pen.box(-FAR, 1.3, FAR, FAR, colour)


LAWNS: tuple[Colour, ...] = ((104, 160, 84), (132, 170, 92), (86, 140, 88))
PAVING: tuple[Colour, ...] = ((170, 166, 160), (140, 140, 146), (190, 178, 156))
WALLS: tuple[Colour, ...] = ((228, 220, 206), (206, 216, 224), (222, 208, 190), (200, 210, 196), (214, 206, 222))
FLOORS: tuple[Colour, ...] = ((168, 124, 84), (142, 110, 84), (150, 150, 156), (190, 172, 148))


def plain_background(pen: Pen, rng: random.Random) -> None:
    """A background without meaning: indoors with a wall, or outdoors."""
    horizon = rng.uniform(0.1, 0.6)
    if rng.random() < 0.5:
        wall = vary(rng, rng.choice(WALLS))
        bands(pen, (-FAR, horizon), shade(wall, rng.uniform(0.8, 1.1)), wall)
        ground(pen, rng, horizon, FLOORS)
    else:
        sky(pen, rng, horizon)
        ground(pen, rng, horizon, LAWNS + PAVING)


def _tree(pen: Pen, rng: random.Random) -> None:
    leaf = vary(rng, (60, 124, 62), 26)
    pen.box(-0.1, 0.1, 0.1, 1.0, (104, 76, 50))
    for _ in range(5):
        pen.oval(rng.uniform(-0.35, 0.35), rng.uniform(-0.6, 0.05), 0.42, 0.38, vary(rng, leaf, 12))


def _cloud(pen: Pen, rng: random.Random) -> None:
    white = vary(rng, (236, 240, 244), 14)
    for x in (-0.6, -0.2, 0.25, 0.6):
        pen.oval(x, rng.uniform(-0.15, 0.1), 0.42, 0.28, white)


def _car(pen: Pen, rng: random.Random) -> None:
    paint = any_colour(rng)
    pen.shape([(-0.5, -0.05), (-0.3, -0.4), (0.35, -0.4), (0.6, -0.05)], shade(paint, 0.85))
    pen.shape([(-0.4, -0.06), (-0.25, -0.33), (0.3, -0.33), (0.48, -0.06)], (186, 210, 226))
    pen.box(-1.0, -0.05, 1.0, 0.3, paint)
    for x in (-0.55, 0.55):
        pen.oval(x, 0.3, 0.2, 0.2, (30, 30, 32))
        pen.oval(x, 0.3, 0.09, 0.09, (150, 150, 154))


def _balloons(pen: Pen, rng: random.Random) -> None:
    for x in (-0.45, 0.0, 0.45):
        y = rng.uniform(-0.7, -0.3)
        pen.path([(x, y + 0.3), (0, 1.0)], 0.03, (90, 90, 90))
        pen.oval(x, y, 0.28, 0.34, any_colour(rng, (0.4, 0.9)))


def _bench(pen: Pen, rng: random.Random) -> None:
    wood = vary(rng, (138, 96, 60))
    for y in (-0.3, -0.1, 0.15):
        pen.box(-1.0, y, 1.0, y + 0.13, wood)
    for x in (-0.8, 0.8):
        pen.box(x - 0.06, -0.3, x + 0.06, 0.6, (60, 60, 64))


def _bush(pen: Pen, rng: random.Random) -> None:
    for x in (-0.5, 0.0, 0.5):
        pen.oval(x, rng.uniform(0.3, 0.5), 0.45, 0.4, vary(rng, (76, 130, 70)))


def _sign(pen: Pen, rng: random.Random) -> None:
    pen.box(-0.06, -0.2, 0.06, 1.0, (110, 112, 118))
    board = any_colour(rng)
    if rng.random() < 0.5:
        pen.oval(0, -0.5, 0.42, 0.42, board)
    else:
        pen.box(-0.5, -0.85, 0.5, -0.2, board)
    pen.box(-0.28, -0.55, 0.28, -0.45, (244, 244, 240))


def _bird(pen: Pen, rng: random.Random) -> None:
    pen.path([(-0.5, -0.2), (-0.2, -0.05), (0, 0.1), (0.2, -0.05), (0.5, -0.2)], 0.07, (50, 50, 56))


def _lamp_post(pen: Pen, rng: random.Random) -> None:
    pen.box(-0.05, -0.8, 0.05, 1.0, (66, 68, 74))
    pen.oval(0, -0.85, 0.18, 0.16, vary(rng, (250, 240, 190), 8))


def _fence(pen: Pen, rng: random.Random) -> None:
    paint = vary(rng, (206, 196, 176), 26)
    for step in range(-3, 4):
        pen.box(0.3 * step - 0.06, -0.1, 0.3 * step + 0.06, 0.7, paint)
    for y in (0.05, 0.4):
        pen.box(-1.0, y, 1.0, y + 0.1, shade(paint, 0.9))


_HIGH: tuple[Callable[[Pen, random.Random], None], ...] = (_cloud, _balloons, _bird)
_LOW: tuple[Callable[[Pen, random.Random], None], ...] = (_tree, _car, _bench, _bush, _sign, _lamp_post, _fence)


def clutter(pen: Pen, rng: random.Random, wide: float, count: int) -> list[tuple[float, float]]:
    """Draw things without meaning; return their places."""
    places = []
    for _ in range(count):
        high = rng.random() < 0.35
        place = (rng.uniform(-wide, wide), rng.uniform(-0.95, -0.55) if high else rng.uniform(0.1, 0.7))
        size, turn = rng.uniform(0.13, 0.26), math.radians(rng.uniform(-6, 6))
        rng.choice(_HIGH if high else _LOW)(pen.at(*place, size, turn, rng.random() < 0.5), rng)
        places.append(place)
    return places
