"""Outdoor scenes: wedding, stadium, skyline, podium, graduation. Image height is -1..1, width a little more."""

from __future__ import annotations

import itertools
import math
import random

from mmib.datamodules.demo.pen import Colour, Pen, Point, any_colour, shade, vary
from mmib.datamodules.demo.scenery import FAR, LAWNS, PAVING, ground, sky

_WHITE: Colour = (246, 244, 240)


def wedding(pen: Pen, rng: random.Random) -> None:
    """An arch of flowers, hearts and chairs."""
    horizon = rng.uniform(0.15, 0.4)
    sky(pen, rng, horizon)
    ground(pen, rng, horizon, LAWNS)
    aisle = vary(rng, _WHITE, 9)
    pen.shape([(-0.12, horizon), (0.12, horizon), (0.5, FAR), (-0.5, FAR)], aisle)
    _flower_arch(pen.at(0, horizon, rng.uniform(0.9, 1.25)), rng)
    heart = vary(rng, rng.choice(((226, 54, 92), (240, 110, 150), (206, 30, 50))))
    for _ in range(rng.randint(5, 10)):
        place = (rng.uniform(-1.1, 1.1), rng.uniform(-0.95, 0.1))
        _heart(pen.at(*place, rng.uniform(0.07, 0.17), rng.uniform(-0.4, 0.4)), vary(rng, heart))
    for side in (-1, 1):
        for row in range(rng.randint(2, 3)):
            _chair(pen.at(side * (0.5 + 0.2 * row), 0.55 + 0.18 * row, 0.2, 0.0, side > 0), _WHITE)


def _flower_arch(pen: Pen, rng: random.Random) -> None:
    petals = vary(rng, rng.choice(((246, 170, 190), (250, 240, 236), (226, 120, 170))))
    frame = [(-0.5, 0.05), (-0.5, -0.45)]
    frame += [(-0.5 * math.cos(math.pi * step / 12), -0.45 - 0.5 * math.sin(math.pi * step / 12)) for step in range(13)]
    frame += [(0.5, 0.05)]
    pen.path(frame, 0.08, _WHITE)
    for first, second in itertools.pairwise(frame):
        for mix in (0.0, 0.5):
            x, y = (a + (b - a) * mix for a, b in zip(first, second, strict=True))
            pen.oval(x + rng.uniform(-0.05, 0.05), y, 0.09, 0.07, vary(rng, (86, 148, 86)))
            pen.oval(x, y + rng.uniform(-0.05, 0.05), 0.07, 0.07, vary(rng, petals))


def _heart(pen: Pen, colour: Colour) -> None:
    angles = [2 * math.pi * step / 24 for step in range(24)]
    outline = [(math.sin(a) ** 3, -(13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a)) / 16) for a in angles]
    pen.shape(outline, colour)


def _chair(pen: Pen, colour: Colour) -> None:
    pen.box(-0.6, -1.0, -0.45, 1.0, colour)
    pen.box(0.35, 0.1, 0.5, 1.0, shade(colour, 0.9))
    pen.box(-0.6, 0.0, 0.5, 0.16, shade(colour, 0.95))
    for y in (-0.9, -0.55):
        pen.box(-0.6, y, -0.1, y + 0.16, colour)


def stadium(pen: Pen, rng: random.Random) -> None:
    """Stands full of people, a pitch with its lines, a goal."""
    horizon = rng.uniform(-0.15, 0.15)
    sky(pen, rng, horizon)
    _stands(pen, rng, horizon)
    grass = vary(rng, (52, 142, 58))
    for stripe in range(6):
        top = horizon + 0.02 * stripe + 0.035 * stripe**2
        pen.box(-FAR, top, FAR, FAR, shade(grass, 1.0 if stripe % 2 else 1.14))
    for points in (
        [(-FAR, horizon + 0.12), (FAR, horizon + 0.12)],
        [(-0.8, horizon + 0.12), (-1.0, horizon + 0.5), (1.0, horizon + 0.5), (0.8, horizon + 0.12)],
    ):
        pen.path(points, 0.025, _WHITE)
    goal = pen.at(rng.uniform(-0.35, 0.35), horizon + 0.12, rng.uniform(0.75, 1.1))
    for step in range(-5, 6):
        goal.path([(step * 0.1, -0.36), (step * 0.09, 0.0)], 0.008, (220, 224, 224))
    for step in range(4):
        goal.path([(-0.5, -0.32 + 0.09 * step), (0.5, -0.32 + 0.09 * step)], 0.008, (220, 224, 224))
    goal.path([(-0.5, 0.02), (-0.5, -0.38), (0.5, -0.38), (0.5, 0.02)], 0.035, (255, 255, 255))


def _stands(pen: Pen, rng: random.Random, horizon: float) -> None:
    top = horizon - rng.uniform(0.5, 0.7)
    concrete = vary(rng, (104, 108, 122))
    pen.box(-FAR, top, FAR, horizon, concrete)
    crowd = [any_colour(rng, (0.3, 0.9)) for _ in range(5)]
    for row in range(7):
        y = top + 0.06 + (horizon - top - 0.08) * row / 7
        pen.box(-FAR, y - 0.03, FAR, y - 0.015, shade(concrete, 0.8))
        for seat in range(34):
            if rng.random() < 0.8:
                x = -1.5 + seat * 0.09 + 0.04 * (row % 2)
                pen.box(x, y, x + 0.055, y + 0.06, rng.choice(crowd))
    for x in (-0.95, 0.95):
        pen.box(x - 0.02, top - 0.35, x + 0.02, top, (90, 92, 98))
        pen.box(x - 0.16, top - 0.45, x + 0.16, top - 0.3, (250, 248, 220))


def skyline(pen: Pen, rng: random.Random) -> None:
    """Towers with lit windows, behind water or a street."""
    horizon = rng.uniform(0.2, 0.5)
    sky(pen, rng, horizon)
    base = vary(rng, rng.choice(((92, 104, 126), (120, 116, 118), (66, 74, 98), (140, 128, 120))))
    left = -1.7
    while left < 1.6:
        width = rng.uniform(0.2, 0.36)
        _tower(pen, rng, (left, left + width), (horizon - rng.uniform(0.45, 1.3), horizon), vary(rng, base, 26))
        left += width + rng.uniform(-0.03, 0.06)
    ground(pen, rng, horizon, ((84, 128, 158), (72, 76, 82), (108, 140, 156)))


def _tower(pen: Pen, rng: random.Random, sides: Point, ends: Point, colour: Colour) -> None:
    left, right = sides
    top, bottom = ends
    middle = (left + right) / 2
    pen.box(left, top, right, bottom, colour)
    if rng.random() < 0.35:
        pen.shape([(left, top), (middle, top - rng.uniform(0.1, 0.2)), (right, top)], shade(colour, 0.9))
    elif rng.random() < 0.4:
        pen.box(middle - 0.012, top - 0.2, middle + 0.012, top, shade(colour, 0.7))
    lit = rng.choice(((250, 232, 150), (196, 222, 240)))
    columns = max(2, int((right - left) / 0.075))
    step = (right - left) / columns
    for row in range(int((bottom - top) / 0.11)):
        for column in range(columns):
            x, y = left + step * (column + 0.2), top + 0.04 + 0.11 * row
            pen.box(x, y, x + step * 0.55, y + 0.06, lit if rng.random() < 0.55 else shade(colour, 0.6))


def podium(pen: Pen, rng: random.Random) -> None:
    """Three steps with a winner's cup on top, banners, confetti."""
    horizon = rng.uniform(0.1, 0.35)
    sky(pen, rng, horizon)
    ground(pen, rng, horizon, PAVING)
    flag = any_colour(rng, (0.4, 0.9))
    for step in range(-6, 7):
        x = 0.26 * step
        pen.shape([(x - 0.1, -0.95), (x + 0.1, -0.95), (x, -0.7)], flag if step % 2 else _WHITE)
    steps = pen.at(rng.uniform(-0.3, 0.3), 0.75, rng.uniform(0.85, 1.15))
    front = vary(rng, rng.choice(((226, 222, 214), (196, 60, 60), (60, 96, 180), (222, 178, 70))))
    for number, x, height in ((2, -0.78, 0.5), (3, 0.26, 0.34), (1, -0.26, 0.75)):
        steps.box(x, -height, x + 0.52, 0.2, shade(front, 0.78 if number > 1 else 1.0))
        steps.box(x, -height, x + 0.52, -height + 0.07, shade(front, 1.2))
        _digit(steps.at(x + 0.26, -height + 0.24, 0.11), number)
    _cup(steps.at(0, -0.97, 0.22), vary(rng, (230, 182, 50)))
    for _ in range(rng.randint(50, 90)):
        place = (rng.uniform(-1.4, 1.4), rng.uniform(-1, 0.8))
        pen.at(*place, 0.03, rng.uniform(0, 3)).box(-1.0, -0.5, 1.0, 0.5, any_colour(rng, (0.6, 1.0)))


def _digit(pen: Pen, number: int) -> None:
    strokes: dict[int, list[Point]] = {
        1: [(-0.5, -0.6), (0, -1), (0, 1)],
        2: [(-0.6, -0.7), (0, -1), (0.6, -0.6), (-0.6, 1), (0.6, 1)],
        3: [(-0.6, -1), (0.6, -1), (0, -0.1), (0.6, 0.5), (0, 1), (-0.6, 0.8)],
    }
    pen.path(strokes[number], 0.32, (30, 30, 36))


def _cup(pen: Pen, gold: Colour) -> None:
    pen.path([(-0.5, -0.8), (-0.95, -0.6), (-0.4, -0.1)], 0.15, shade(gold, 0.85))
    pen.path([(0.5, -0.8), (0.95, -0.6), (0.4, -0.1)], 0.15, shade(gold, 0.85))
    pen.shape([(-0.65, -1), (0.65, -1), (0.3, 0.1), (-0.3, 0.1)], gold)
    pen.box(-0.1, 0.1, 0.1, 0.7, shade(gold, 0.85))
    pen.box(-0.45, 0.7, 0.45, 1.0, (60, 40, 30))


def graduation(pen: Pen, rng: random.Random) -> None:
    """A hall with columns, and caps in the air."""
    horizon = rng.uniform(0.3, 0.5)
    sky(pen, rng, horizon)
    ground(pen, rng, horizon, LAWNS + PAVING)
    stone = vary(rng, rng.choice(((226, 214, 190), (206, 196, 180), (196, 140, 110))))
    hall = pen.at(rng.uniform(-0.25, 0.25), horizon, rng.uniform(0.9, 1.15))
    hall.box(-0.95, -0.75, 0.95, 0, shade(stone, 0.75))
    count = rng.randint(4, 7)
    for column in range(count):
        x = -0.86 + 1.72 * column / (count - 1)
        hall.box(x - 0.07, -0.75, x + 0.07, 0, stone)
        hall.box(x - 0.1, -0.78, x + 0.1, -0.71, shade(stone, 1.1))
    hall.box(-1.05, -0.86, 1.05, -0.76, stone)
    hall.shape([(-1.1, -0.86), (0, -1.25), (1.1, -0.86)], shade(stone, 0.92))
    for step in range(3):
        reach, y = 1.05 + 0.08 * step, 0.07 * step
        hall.box(-reach, y, reach, y + 0.07, shade(stone, 1.05 - 0.08 * step))
    for _ in range(rng.randint(6, 11)):
        place = (rng.uniform(-1.1, 1.1), rng.uniform(-0.9, 0.35))
        _cap(pen.at(*place, rng.uniform(0.1, 0.18), rng.uniform(-0.6, 0.6)), rng)


def _cap(pen: Pen, rng: random.Random) -> None:
    cloth = vary(rng, (26, 26, 34), 10)
    pen.shape([(-0.5, 0), (0.5, 0), (0.45, 0.55), (-0.45, 0.55)], shade(cloth, 1.5))
    pen.shape([(0, -0.5), (1, 0), (0, 0.5), (-1, 0)], cloth)
    pen.path([(0, 0), (0.75, 0.08), (0.8, 0.6)], 0.09, (240, 196, 60))
