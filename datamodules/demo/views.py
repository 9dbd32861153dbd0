"""Images without text and without any theme: patterns, landscapes, food. Image height is -1..1."""

from __future__ import annotations

import math
import random

from mmib.datamodules.demo.pen import Colour, Pen, any_colour, shade, vary
from mmib.datamodules.demo.scenery import FAR, bands, sky


def pattern(pen: Pen, rng: random.Random, wide: float) -> None:
    """A motif that repeats over the whole image, in two to four colours, with random rotation and size."""
    del wide
    colours = [any_colour(rng, (0.1, 0.95)) for _ in range(rng.randint(2, 4))]
    pen.box(-FAR, -FAR, FAR, FAR, colours[0])
    motif = rng.choice((_stripes, _dots, _checks, _zigzag, _rings, _diamonds))
    motif(pen.at(rng.uniform(-0.2, 0.2), 0, 1.0, rng.uniform(-0.8, 0.8)), rng.uniform(0.1, 0.26), colours[1:])


def _grid(step: float) -> list[tuple[int, int, float, float]]:
    """Row, column and place of each cell that may be visible."""
    reach = math.ceil(2.0 / step)
    return [(row, column, column * step, row * step) for row in range(-reach, reach) for column in range(-reach, reach)]


def _stripes(pen: Pen, step: float, colours: list[Colour]) -> None:
    for place in range(math.ceil(-2.0 / step), math.ceil(2.0 / step)):
        pen.box(-FAR, place * step, FAR, (place + 0.5) * step, colours[place % len(colours)])


def _dots(pen: Pen, step: float, colours: list[Colour]) -> None:
    for row, column, x, y in _grid(step):
        pen.oval(x + step / 2 * (row % 2), y, 0.32 * step, 0.32 * step, colours[(row + column) % len(colours)])


def _checks(pen: Pen, step: float, colours: list[Colour]) -> None:
    for row, column, x, y in _grid(step):
        if (row + column) % 2:
            pen.box(x, y, x + step, y + step, colours[row % len(colours)])


def _zigzag(pen: Pen, step: float, colours: list[Colour]) -> None:
    reach = math.ceil(2.0 / step)
    for row in range(-reach, reach):
        points = [(column * step, step * (row + 0.4 * (column % 2))) for column in range(-reach, reach)]
        pen.path(points, 0.4 * step, colours[row % len(colours)])


def _rings(pen: Pen, step: float, colours: list[Colour]) -> None:
    for row, column, x, y in _grid(2 * step):
        for place, radius in enumerate((1.0, 0.7, 0.4)):
            colour = colours[(row + column + place) % len(colours)]
            pen.oval(x, y, radius * step, radius * step, colour if place != 1 else shade(colour, 0.6))


def _diamonds(pen: Pen, step: float, colours: list[Colour]) -> None:
    for row, column, x, y in _grid(step):
        half = step / 2
        corners = [(x, y - half), (x + half, y), (x, y + half), (x - half, y)]
        pen.shape(corners, colours[(row * 2 + column) % len(colours)])


def landscape(pen: Pen, rng: random.Random, wide: float) -> None:
    """Nature without people: mountains, the sea, a desert or a forest."""
    horizon = rng.uniform(-0.15, 0.3)
    sky(pen, rng, horizon + 0.05)
    if rng.random() < 0.6:
        size = rng.uniform(0.1, 0.18)
        pen.oval(rng.uniform(-0.8, 0.8) * wide, rng.uniform(-0.8, -0.4), size, size, vary(rng, (252, 236, 170), 12))
    rng.choice((_mountains, _sea, _desert, _forest))(pen, rng, wide, horizon)


def _ridge(
    pen: Pen, rng: random.Random, y: float, height: float, step: float, fill: Colour
) -> list[tuple[float, float]]:
    """Draw a jagged line of peaks from edge to edge, filled down to the ground; return the peaks."""
    points, x, low = [(-FAR, y)], -2.0, True
    while x < 2.0:
        points.append((x, y - rng.uniform(0.0, 0.25) * height if low else y - rng.uniform(0.6, 1.0) * height))
        x, low = x + step * rng.uniform(0.7, 1.3), not low
    pen.shape([*points, (FAR, y), (FAR, FAR), (-FAR, FAR)], fill)
    return points[2::2]


def _mountains(pen: Pen, rng: random.Random, wide: float, horizon: float) -> None:
    del wide
    rock = vary(rng, rng.choice(((110, 120, 146), (134, 124, 120), (96, 104, 112))))
    height = rng.uniform(0.6, 0.9)
    for x, y in _ridge(pen, rng, horizon, height, rng.uniform(0.35, 0.55), rock):
        cap = 0.22 * height
        pen.shape(
            [(x, y), (x + 0.13, y + cap), (x + 0.03, y + 0.7 * cap), (x - 0.05, y + cap), (x - 0.12, y + 0.9 * cap)],
            (244, 248, 252),
        )
    _ridge(pen, rng, horizon + 0.25, 0.3, 0.3, vary(rng, (84, 116, 92)))
    _ridge(pen, rng, horizon + 0.55, 0.2, 0.5, vary(rng, (64, 104, 62)))


def _sea(pen: Pen, rng: random.Random, wide: float, horizon: float) -> None:
    water = vary(rng, rng.choice(((30, 110, 160), (40, 140, 150), (24, 70, 120))))
    bands(pen, (horizon, 1.2), shade(water, 1.25), shade(water, 0.75), 20)
    for _ in range(rng.randint(25, 45)):
        x, y = rng.uniform(-wide, wide), rng.uniform(horizon + 0.05, 0.9)
        reach = 0.04 + 0.16 * (y - horizon)
        pen.path(
            [(x - reach, y), (x - reach / 3, y - 0.02), (x + reach / 3, y), (x + reach, y - 0.015)],
            0.012,
            shade(water, 1.7),
        )
    shore = rng.uniform(0.55, 0.85)
    sand = vary(rng, (232, 208, 160))
    pen.shape(
        [(-FAR, shore + 0.25), (-0.3, shore + 0.12), (0.8, shore), (FAR, shore - 0.1), (FAR, FAR), (-FAR, FAR)], sand
    )
    pen.path([(-FAR, shore + 0.25), (-0.3, shore + 0.12), (0.8, shore), (FAR, shore - 0.1)], 0.04, (248, 250, 250))


def _desert(pen: Pen, rng: random.Random, wide: float, horizon: float) -> None:
    sand = vary(rng, rng.choice(((226, 178, 112), (214, 150, 96), (236, 204, 150))))
    pen.box(-FAR, horizon, FAR, FAR, sand)
    for row in range(4):
        y, phase, swing = horizon + 0.22 * row, rng.uniform(0, 6.3), rng.uniform(0.06, 0.14)
        crest = [(-2.0 + 0.1 * step, y + swing * math.sin(phase + 0.22 * step)) for step in range(41)]
        pen.shape([*crest, (2.0, FAR), (-2.0, FAR)], shade(sand, 1.08 - 0.09 * row))
        pen.path(crest, 0.015, shade(sand, 0.7))
    for _ in range(rng.randint(1, 3)):
        cactus = pen.at(rng.uniform(-0.9, 0.9) * wide, rng.uniform(0.35, 0.8), rng.uniform(0.14, 0.24))
        green = vary(rng, (70, 128, 74))
        cactus.path([(0, 1), (0, -1)], 0.34, green)
        cactus.path([(0, 0.3), (-0.6, 0.2), (-0.6, -0.4)], 0.24, green)
        cactus.path([(0, 0.0), (0.6, -0.1), (0.6, -0.7)], 0.24, green)


def _forest(pen: Pen, rng: random.Random, wide: float, horizon: float) -> None:
    green = vary(rng, rng.choice(((46, 98, 60), (60, 110, 54), (36, 84, 76))))
    _ridge(pen, rng, horizon, 0.3, 0.6, shade(green, 1.5))
    pen.box(-FAR, horizon + 0.3, FAR, FAR, shade(green, 1.2))
    for row in range(3):
        for _ in range(rng.randint(8, 13)):
            place = (rng.uniform(-wide, wide), horizon + 0.15 + 0.28 * row + rng.uniform(0, 0.12))
            _fir(pen.at(*place, 0.18 + 0.09 * row), vary(rng, shade(green, 1.15 - 0.15 * row), 14))


def _fir(pen: Pen, leaf: Colour) -> None:
    pen.box(-0.1, 0.7, 0.1, 1.0, (84, 62, 44))
    for tier in range(3):
        width, y = 0.7 - 0.16 * tier, 0.75 - 0.5 * tier
        pen.shape([(-width, y), (width, y), (0, y - 0.75)], shade(leaf, 1.0 + 0.08 * tier))


def food(pen: Pen, rng: random.Random, wide: float) -> None:
    """A dish on a plate, seen from above, on a laid table."""
    _table_top(pen, rng)
    x, size = rng.uniform(-0.2, 0.2), rng.uniform(0.68, 0.86)
    _cutlery(pen, rng, x - size - 0.16, x + size + 0.16)
    y = rng.uniform(-0.08, 0.08)
    pen.oval(x + 0.03, y + 0.04, 1.02 * size, 1.02 * size, (58, 44, 36))
    plate = pen.at(x, y, size, rng.uniform(-3.1, 3.1))
    china = vary(rng, rng.choice(((246, 246, 244), (60, 66, 76), (206, 222, 232), (232, 212, 190))), 8)
    plate.oval(0, 0, 1.0, 1.0, china)
    plate.oval(0, 0, 0.78, 0.78, shade(china, 0.92))
    rng.choice((_pizza, _sushi, _salad, _breakfast, _cake))(plate, rng)


def _table_top(pen: Pen, rng: random.Random) -> None:
    if rng.random() < 0.5:
        wood = vary(rng, rng.choice(((150, 104, 66), (196, 158, 112), (96, 68, 50))))
        for plank in range(-6, 7):
            pen.box(-FAR, 0.3 * plank, FAR, 0.3 * plank + 0.29, vary(rng, wood, 12))
        return
    cloth = any_colour(rng, (0.3, 0.8))
    pen.box(-FAR, -FAR, FAR, FAR, (244, 242, 238))
    for line in range(-8, 9):
        pen.box(0.22 * line, -FAR, 0.22 * line + 0.11, FAR, shade(cloth, 1.25))
    for line in range(-5, 6):
        pen.box(-FAR, 0.22 * line, FAR, 0.22 * line + 0.11, cloth)


def _cutlery(pen: Pen, rng: random.Random, left: float, right: float) -> None:
    steel = vary(rng, (196, 200, 206), 12)
    pen.path([(left, -0.2), (left, 0.6)], 0.05, steel)
    for tine in (-0.06, -0.02, 0.02, 0.06):
        pen.path([(left + tine, -0.5), (left + tine, -0.25)], 0.018, steel)
    pen.box(left - 0.07, -0.28, left + 0.07, -0.18, steel)
    pen.path([(right, 0.0), (right, 0.6)], 0.05, steel)
    pen.shape(
        [(right - 0.05, 0.02), (right - 0.05, -0.45), (right + 0.03, -0.52), (right + 0.04, 0.02)], shade(steel, 1.1)
    )


def _scattered(rng: random.Random, count: int, radius: float) -> list[tuple[float, float]]:
    """Random places within a circle."""
    places = []
    for _ in range(count):
        angle, reach = rng.uniform(0, 2 * math.pi), radius * math.sqrt(rng.random())
        places.append((reach * math.cos(angle), reach * math.sin(angle)))
    return places


def _pizza(pen: Pen, rng: random.Random) -> None:
    pen.oval(0, 0, 0.84, 0.84, vary(rng, (206, 150, 84)))
    pen.oval(0, 0, 0.74, 0.74, vary(rng, (206, 70, 40)))
    pen.oval(0, 0, 0.7, 0.7, vary(rng, (246, 206, 110)))
    for x, y in _scattered(rng, rng.randint(8, 14), 0.58):
        pen.oval(x, y, 0.11, 0.11, vary(rng, (182, 44, 36)))
    for x, y in _scattered(rng, rng.randint(6, 16), 0.62):
        pen.oval(x, y, 0.07, 0.035, vary(rng, (70, 130, 50)))
    for cut in range(4):
        angle = math.pi * cut / 4
        x, y = 0.82 * math.cos(angle), 0.82 * math.sin(angle)
        pen.path([(-x, -y), (x, y)], 0.02, (150, 90, 50))


def _sushi(pen: Pen, rng: random.Random) -> None:
    for row in range(3):
        for column in range(3):
            roll = pen.at(0.46 * (column - 1), 0.44 * (row - 1), 0.19)
            roll.oval(0, 0, 1.0, 1.0, (30, 44, 36))
            roll.oval(0, 0, 0.84, 0.84, (248, 246, 238))
            roll.oval(0, 0, 0.42, 0.42, vary(rng, rng.choice(((244, 130, 92), (110, 170, 70), (226, 70, 60)))))
    pen.oval(0.0, 0.72, 0.14, 0.09, (150, 190, 90))


def _salad(pen: Pen, rng: random.Random) -> None:
    for x, y in _scattered(rng, 40, 0.66):
        pen.at(x, y, 0.2, rng.uniform(0, 3.1)).oval(0, 0, 1.0, 0.55, vary(rng, (96, 160, 60), 40))
    for x, y in _scattered(rng, rng.randint(5, 9), 0.56):
        pen.oval(x, y, 0.13, 0.13, (200, 40, 36))
        pen.oval(x, y, 0.09, 0.09, (236, 90, 70))
    for x, y in _scattered(rng, rng.randint(4, 8), 0.58):
        pen.oval(x, y, 0.12, 0.12, (120, 170, 90))
        pen.oval(x, y, 0.1, 0.1, (222, 236, 186))


def _breakfast(pen: Pen, rng: random.Random) -> None:
    for x in (-0.34, 0.3):
        y = rng.uniform(-0.35, -0.1)
        for dx, dy in _scattered(rng, 5, 0.13):
            pen.oval(x + dx, y + dy, 0.24, 0.22, (252, 250, 244))
        pen.oval(x, y, 0.13, 0.13, vary(rng, (250, 180, 40), 14))
    for strip in range(rng.randint(2, 3)):
        y = 0.22 + 0.15 * strip
        wave = [(-0.5 + 0.1 * step, y + 0.03 * (-1) ** step) for step in range(8)]
        pen.path(wave, 0.11, vary(rng, (170, 60, 50)))
        pen.path(wave, 0.03, (240, 200, 180))
    for x, y in ((0.42, 0.34), (0.46, 0.54)):
        pen.oval(x, y, 0.13, 0.13, vary(rng, (214, 56, 44)))


def _cake(pen: Pen, rng: random.Random) -> None:
    icing = vary(rng, rng.choice(((250, 200, 214), (98, 60, 42), (250, 244, 230), (190, 220, 240))), 10)
    pen.oval(0, 0, 0.7, 0.7, shade(icing, 0.8))
    pen.oval(0, 0, 0.64, 0.64, icing)
    for step in range(12):
        angle = 2 * math.pi * step / 12
        pen.oval(0.56 * math.cos(angle), 0.56 * math.sin(angle), 0.1, 0.1, shade(icing, 1.15))
        pen.oval(0.56 * math.cos(angle), 0.56 * math.sin(angle), 0.055, 0.055, vary(rng, (206, 30, 50)))
    for x, y in _scattered(rng, 30, 0.42):
        pen.at(x, y, 0.04, rng.uniform(0, 3.1)).box(-1.0, -0.3, 1.0, 0.3, any_colour(rng, (0.6, 0.9)))
