"""People: a figure about 2 high (head at -1, feet at 1) and 1.3 wide, with empty hands."""

from __future__ import annotations

import random

from mmib.datamodules.demo.pen import Colour, Pen, any_colour, shade, vary

_SKINS: tuple[Colour, ...] = ((250, 217, 188), (232, 190, 152), (196, 144, 104), (146, 98, 66), (98, 64, 44))
_HAIRS: tuple[Colour, ...] = ((32, 26, 22), (74, 46, 26), (132, 84, 44), (206, 166, 92), (150, 150, 152), (150, 60, 30))
_TROUSERS: tuple[Colour, ...] = (
    (58, 58, 62),
    (96, 84, 72),
    (40, 40, 44),
    (120, 122, 126),
    (88, 86, 84),
    (150, 136, 112),
)


def draw_person(pen: Pen, rng: random.Random, shirt: Colour) -> None:
    """Draw a person; everything except the shirt is random."""
    skin, hair = vary(rng, rng.choice(_SKINS), 10), vary(rng, rng.choice(_HAIRS), 12)
    trousers = vary(rng, rng.choice(_TROUSERS), 14)
    width = rng.uniform(0.46, 0.54)
    _legs(pen, rng, trousers, width)
    _arms(pen, rng, shirt, skin, width)
    pen.shape([(-width, -0.42), (width, -0.42), (width * 0.9, 0.5), (-width * 0.9, 0.5)], shirt)
    pen.oval(0, -0.42, width, 0.1, shirt)
    pen.path([(0, -0.36), (0, 0.46)], 0.025, shade(shirt, 0.86))
    _head(pen, rng, skin, hair)


def _legs(pen: Pen, rng: random.Random, trousers: Colour, width: float) -> None:
    gap = rng.uniform(0.02, 0.1)
    shoe = vary(rng, (60, 50, 46), 40)
    for side in (-1, 1):
        pen.shape(
            [(side * gap, 0.38), (side * width * 0.9, 0.38), (side * (width * 0.75), 0.94), (side * gap * 1.5, 0.94)],
            trousers,
        )
        pen.oval(side * 0.28, 0.95, 0.17, 0.06, shoe)


def _arms(pen: Pen, rng: random.Random, shirt: Colour, skin: Colour, width: float) -> None:
    for side in (-1, 1):
        hand = (side * (width + rng.uniform(0.03, 0.1)), rng.uniform(0.14, 0.4))
        pen.path([(side * width * 0.85, -0.36), (side * (width + 0.1), -0.02), hand], 0.17, shade(shirt, 0.92))
        pen.oval(*hand, 0.09, 0.09, skin)


def _head(pen: Pen, rng: random.Random, skin: Colour, hair: Colour) -> None:
    long_hair = rng.random() < 0.45
    if long_hair:
        pen.oval(0, -0.66, 0.3, 0.34, hair)
    pen.box(-0.08, -0.56, 0.08, -0.42, shade(skin, 0.9))
    pen.oval(0, -0.74, 0.22, 0.25, skin)
    fringe = [(-0.24, -0.74), (-0.2, -0.95), (0, -1.02), (0.2, -0.95), (0.24, -0.74), (0.1, -0.86), (-0.1, -0.86)]
    pen.shape(fringe, hair)
    for side in (-1, 1):
        pen.oval(side * 0.08, -0.74, 0.03, 0.035, (30, 26, 26))
    smile = rng.uniform(0.02, 0.06)
    pen.path([(-0.08, -0.62), (0, -0.62 + smile), (0.08, -0.62)], 0.025, (150, 50, 50))


def random_shirt(rng: random.Random) -> Colour:
    """A shirt colour without meaning, for the people of a scene."""
    return any_colour(rng, (0.0, 0.8))
