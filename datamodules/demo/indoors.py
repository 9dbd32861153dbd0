"""Indoor scenes: office, stage, home. Image height is -1..1, width a little more."""

from __future__ import annotations

import math
import random

from mmib.datamodules.demo.pen import Colour, Pen, any_colour, shade, vary
from mmib.datamodules.demo.scenery import FAR, FLOORS, WALLS, bands, ground


def _room(pen: Pen, rng: random.Random, horizon: float) -> None:
    wall = vary(rng, rng.choice(WALLS))
    bands(pen, (-FAR, horizon), shade(wall, rng.uniform(0.85, 1.05)), wall)
    ground(pen, rng, horizon, FLOORS)
    pen.box(-FAR, horizon - 0.05, FAR, horizon, shade(wall, 0.75))


def office(pen: Pen, rng: random.Random) -> None:
    """Desks with screens under strip lights."""
    horizon = rng.uniform(0.1, 0.35)
    _room(pen, rng, horizon)
    for x in (-0.9, 0.0, 0.9):
        pen.shape([(x - 0.3, -0.92), (x + 0.3, -0.92), (x + 0.24, -0.84), (x - 0.24, -0.84)], (252, 252, 244))
    for step in range(rng.randint(2, 4)):
        x = -1.2 + 0.66 * step
        pen.box(x, -0.7, x + 0.55, -0.15, (120, 126, 134))
        for slat in range(7):
            pen.box(x + 0.02, -0.68 + 0.075 * slat, x + 0.53, -0.63 + 0.075 * slat, (226, 234, 240))
    wood = vary(rng, rng.choice(((196, 160, 116), (222, 220, 214), (120, 88, 62))))
    for row, (y, size) in enumerate(((horizon + 0.05, 0.36), (horizon + 0.38, 0.5))):
        count = rng.randint(2, 3)
        for desk in range(count):
            x = (desk - (count - 1) / 2) * rng.uniform(1.9, 2.3) * size + 0.15 * row
            _desk(pen.at(x, y, size), rng, wood)


def _desk(pen: Pen, rng: random.Random, wood: Colour) -> None:
    pen.box(-0.9, 0.0, 0.9, 0.12, wood)
    pen.box(-0.85, 0.12, -0.3, 0.65, shade(wood, 0.85))
    pen.box(0.75, 0.12, 0.85, 0.65, shade(wood, 0.8))
    light = vary(rng, rng.choice(((84, 150, 214), (60, 90, 140), (226, 236, 244), (40, 60, 70))))
    pen.box(-0.5, -0.66, 0.4, -0.12, (36, 38, 44))
    pen.box(-0.45, -0.61, 0.35, -0.17, light)
    for line in range(3):
        pen.box(-0.38, -0.54 + 0.12 * line, rng.uniform(-0.1, 0.28), -0.49 + 0.12 * line, shade(light, 0.6))
    pen.box(-0.1, -0.12, 0.0, 0.0, (50, 52, 58))
    pen.box(-0.35, -0.04, 0.25, 0.01, (70, 72, 78))
    for sheet in range(rng.randint(0, 4)):
        pen.box(0.5, -0.04 * sheet - 0.04, 0.8, -0.04 * sheet - 0.01, (250, 250, 246))
    if rng.random() < 0.5:
        pen.box(0.55, -0.3, 0.7, 0.0, any_colour(rng))


def stage(pen: Pen, rng: random.Random) -> None:
    """Curtains, coloured spotlights, loudspeakers and a microphone."""
    floor = rng.uniform(0.35, 0.55)
    back = vary(rng, rng.choice(((26, 22, 40), (40, 20, 34), (20, 30, 52))), 10)
    pen.box(-FAR, -FAR, FAR, FAR, back)
    for _ in range(rng.randint(3, 6)):
        _beam(pen, rng, floor, back)
    pen.box(-FAR, floor, FAR, FAR, vary(rng, (96, 66, 48)))
    for line in range(5):
        pen.box(-FAR, floor + 0.1 * line, FAR, floor + 0.1 * line + 0.012, (60, 42, 34))
    cloth = vary(rng, rng.choice(((166, 24, 36), (120, 20, 70), (150, 30, 24))))
    for side in (-1, 1):
        for fold in range(5):
            x = 1.55 - 0.17 * fold
            pen.box(side * x, -FAR, side * (x - 0.17), floor + 0.08, shade(cloth, 1.1 if fold % 2 else 0.72))
    for swag in range(-5, 6):
        pen.oval(0.32 * swag, -0.98, 0.2, 0.2, shade(cloth, 1.1 if swag % 2 else 0.8))
    for side in (-1, 1):
        _loudspeaker(pen.at(side * rng.uniform(0.55, 0.75), floor - 0.12, rng.uniform(0.2, 0.3)))
    _microphone_stand(pen.at(rng.uniform(-0.3, 0.3), floor + 0.1, rng.uniform(0.5, 0.7)))


def _beam(pen: Pen, rng: random.Random, floor: float, back: Colour) -> None:
    top, foot, spread = rng.uniform(-1, 1), rng.uniform(-0.8, 0.8), rng.uniform(0.15, 0.3)
    light = any_colour(rng, (0.2, 0.9))
    red, green, blue = ((a + b) // 2 for a, b in zip(light, back, strict=True))
    pen.shape([(top - 0.03, -1), (top + 0.03, -1), (foot + spread, floor), (foot - spread, floor)], (red, green, blue))
    pen.oval(top, -0.98, 0.08, 0.08, shade(light, 1.3))


def _loudspeaker(pen: Pen) -> None:
    pen.box(-0.6, -1.0, 0.6, 1.0, (22, 22, 26))
    for y, radius in ((-0.5, 0.3), (0.35, 0.48)):
        pen.oval(0, y, radius, radius, (70, 72, 78))
        pen.oval(0, y, radius * 0.5, radius * 0.5, (30, 30, 34))


def _microphone_stand(pen: Pen) -> None:
    pen.path([(0, -1.0), (0, 0)], 0.04, (180, 182, 188))
    pen.path([(-0.2, 0.06), (0, 0), (0.2, 0.06)], 0.05, (180, 182, 188))
    pen.path([(0, -1.0), (0.16, -1.12)], 0.07, (40, 40, 46))
    pen.oval(0.2, -1.15, 0.09, 0.09, (150, 152, 160))


def home(pen: Pen, rng: random.Random) -> None:
    """A sofa, a standard lamp, a window with curtains, a picture and a rug."""
    horizon = rng.uniform(0.2, 0.4)
    _room(pen, rng, horizon)
    _window(pen.at(rng.uniform(-0.7, 0.7), -0.42, rng.uniform(0.32, 0.42)), rng)
    frame = pen.at(rng.uniform(-1.0, 1.0), -0.6, rng.uniform(0.12, 0.2))
    frame.box(-1.0, -0.8, 1.0, 0.8, (120, 84, 52))
    frame.box(-0.8, -0.6, 0.8, 0.6, any_colour(rng))
    pen.oval(0, horizon + 0.45, 0.95, 0.2, any_colour(rng, (0.3, 0.7)))
    side = rng.choice((-1, 1))
    _lamp(pen.at(side * rng.uniform(0.75, 0.95), horizon + 0.15, rng.uniform(0.85, 1.05)), rng)
    _sofa(pen.at(-side * rng.uniform(0.0, 0.3), horizon + 0.1, rng.uniform(0.55, 0.7)), rng)


def _window(pen: Pen, rng: random.Random) -> None:
    curtain = any_colour(rng, (0.2, 0.7))
    pen.box(-0.85, -0.9, 0.85, 0.8, (246, 246, 242))
    for x in (-0.76, 0.04):
        for y in (-0.8, 0.0):
            pen.box(x, y, x + 0.72, y + 0.7, vary(rng, (168, 206, 236)))
    for side in (-1, 1):
        folds = [(1.15, -1), (0.45, -1), (0.75, 0.1), (0.8, 1), (1.15, 1)]
        pen.shape([(side * x, y) for x, y in folds], curtain)
    pen.path([(-1.25, -1), (1.25, -1)], 0.08, (110, 80, 54))


def _lamp(pen: Pen, rng: random.Random) -> None:
    pen.box(-0.02, -0.7, 0.02, 0.3, (90, 76, 60))
    pen.oval(0, 0.3, 0.14, 0.04, (90, 76, 60))
    pen.shape([(-0.12, -0.98), (0.12, -0.98), (0.22, -0.66), (-0.22, -0.66)], vary(rng, (252, 226, 160)))


def _sofa(pen: Pen, rng: random.Random) -> None:
    cloth = any_colour(rng, (0.15, 0.65))
    pen.box(-1.0, -0.6, 1.0, 0.3, cloth)
    for x in (-0.97, 0.02):
        pen.box(x, -0.05, x + 0.95, 0.22, shade(cloth, 1.2))
        pen.box(x, -0.55, x + 0.95, -0.08, shade(cloth, 1.1))
    for side in (-1, 1):
        pen.box(side * 1.0 - 0.16, -0.25, side * 1.0 + 0.16, 0.4, shade(cloth, 0.85))
        pen.box(side * 0.9 - 0.05, 0.4, side * 0.9 + 0.05, 0.5, (70, 50, 40))
    pillow = any_colour(rng, (0.3, 0.9))
    for x in (-0.6, 0.62):
        corner = math.radians(rng.uniform(-15, 15))
        pen.at(x, -0.22, 0.2, corner).box(-1, -1, 1, 1, pillow)
