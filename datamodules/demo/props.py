"""Props that people hold on the hard level, one per theme, each within -1..1."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from mmib.datamodules.demo.pen import Pen, any_colour, shade, vary

_BLOSSOMS = (
    (-0.6, -0.3),
    (-0.2, -0.2),
    (0.25, -0.2),
    (0.62, -0.32),
    (-0.4, -0.62),
    (0, -0.58),
    (0.42, -0.64),
    (0, -0.85),
)
Drawer = Callable[[Pen, random.Random], None]


def _bouquet(pen: Pen, rng: random.Random) -> None:
    wrap = vary(rng, (236, 226, 214), 18)
    pen.shape([(-0.62, -0.05), (0.62, -0.05), (0.1, 1.0), (-0.1, 1.0)], wrap)
    pen.path([(-0.3, -0.05), (0, 0.9)], 0.05, shade(wrap, 0.8))
    pen.path([(0.3, -0.05), (0, 0.9)], 0.05, shade(wrap, 0.8))
    for step in range(9):
        pen.oval(-0.8 + 0.2 * step, -0.1 - 0.25 * (step % 2), 0.2, 0.16, vary(rng, (60, 130, 60), 20))
    petal = vary(rng, rng.choice(((240, 120, 160), (222, 60, 90), (250, 190, 205), (232, 140, 190))), 14)
    for x, y in _BLOSSOMS:
        for turn in range(5):
            angle = 2 * math.pi * turn / 5
            pen.oval(x + 0.13 * math.cos(angle), y + 0.13 * math.sin(angle), 0.11, 0.11, petal)
        pen.oval(x, y, 0.08, 0.08, (250, 220, 90))


def _laptop(pen: Pen, rng: random.Random) -> None:
    body = vary(rng, rng.choice(((176, 180, 186), (90, 94, 100), (210, 212, 216))), 12)
    screen = vary(rng, (70, 130, 200), 30)
    pen.shape([(-0.8, -0.85), (0.8, -0.85), (0.8, 0.35), (-0.8, 0.35)], body)
    pen.box(-0.7, -0.74, 0.7, 0.24, screen)
    for row in range(4):
        pen.box(-0.58, -0.62 + 0.2 * row, rng.uniform(-0.1, 0.55), -0.54 + 0.2 * row, (236, 242, 250))
    pen.shape([(-0.8, 0.38), (0.8, 0.38), (1.0, 0.82), (-1.0, 0.82)], shade(body, 0.85))
    for row in range(3):
        y, reach = 0.47 + 0.1 * row, 0.72 + 0.06 * row
        pen.path([(-reach, y), (reach, y)], 0.05, shade(body, 0.45))


def _ball(pen: Pen, rng: random.Random) -> None:
    leather, patch = vary(rng, (240, 240, 240), 10), vary(rng, (24, 24, 28), 12)
    pen.oval(0, 0, 0.95, 0.95, shade(leather, 0.7))
    pen.oval(0, 0, 0.9, 0.9, leather)
    pen.shape(_pentagon(0, 0, 0.32, -math.pi / 2), patch)
    for turn in range(5):
        angle = 2 * math.pi * turn / 5 - math.pi / 2
        cos, sin = math.cos(angle), math.sin(angle)
        pen.path([(0.3 * cos, 0.3 * sin), (0.66 * cos, 0.66 * sin)], 0.05, patch)
        pen.shape(_pentagon(0.74 * cos, 0.74 * sin, 0.2, angle + math.pi), patch)


def _pentagon(x: float, y: float, radius: float, start: float) -> list[tuple[float, float]]:
    angles = [start + 2 * math.pi * turn / 5 for turn in range(5)]
    return [(x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles]


def _suitcase(pen: Pen, rng: random.Random) -> None:
    body = vary(rng, rng.choice(((142, 88, 48), (112, 70, 40), (166, 112, 64))), 14)
    pen.path([(-0.3, -0.5), (-0.3, -0.92), (0.3, -0.92), (0.3, -0.5)], 0.12, (50, 44, 40))
    pen.box(-0.9, -0.55, 0.9, 0.8, shade(body, 0.7))
    pen.box(-0.84, -0.49, 0.84, 0.74, body)
    for x in (-0.55, 0.55):
        pen.box(x - 0.1, -0.55, x + 0.1, 0.8, shade(body, 0.5))
        pen.box(x - 0.08, -0.2, x + 0.08, -0.05, (222, 190, 90))
    for x in (-0.6, 0.6):
        pen.oval(x, 0.88, 0.12, 0.12, (30, 30, 32))
    pen.box(-0.25, 0.1, 0.3, 0.5, vary(rng, any_colour(rng), 10))


def _microphone(pen: Pen, rng: random.Random) -> None:
    metal = vary(rng, (150, 152, 160), 16)
    dark = vary(rng, (34, 34, 40), 12)
    pen.shape([(-0.2, -0.2), (0.2, -0.2), (0.12, 1.0), (-0.12, 1.0)], dark)
    pen.box(-0.13, 0.25, 0.13, 0.4, (200, 40, 40))
    pen.oval(0, -0.5, 0.46, 0.48, shade(metal, 0.65))
    pen.oval(0, -0.5, 0.41, 0.43, metal)
    for step in range(-2, 3):
        reach, place = 0.37 - 0.04 * abs(step), 0.15 * step
        pen.path([(-reach, place - 0.5), (reach, place - 0.5)], 0.04, shade(metal, 0.5))
        pen.path([(place, -0.5 - reach), (place, -0.5 + reach)], 0.04, shade(metal, 0.5))
    pen.box(-0.44, -0.16, 0.44, -0.02, shade(metal, 0.45))
    for side in (-1, 1):
        for ring in range(2):
            x = side * (0.62 + 0.2 * ring)
            pen.path([(x, -0.8 - 0.1 * ring), (x + side * 0.1, -0.5), (x, -0.2 + 0.1 * ring)], 0.07, (250, 250, 250))


def _trophy(pen: Pen, rng: random.Random) -> None:
    gold = vary(rng, (226, 176, 40), 14)
    for side in (-1, 1):
        handle = [(side * 0.5, -0.75), (side * 0.92, -0.7), (side * 0.82, -0.25), (side * 0.3, -0.02)]
        pen.path(handle, 0.12, shade(gold, 0.8))
    pen.shape([(-0.6, -0.92), (0.6, -0.92), (0.48, -0.25), (0.16, 0.12), (-0.16, 0.12), (-0.48, -0.25)], gold)
    pen.oval(0, -0.92, 0.6, 0.1, shade(gold, 1.2))
    pen.box(-0.09, 0.1, 0.09, 0.5, shade(gold, 0.8))
    pen.shape([(-0.35, 0.5), (0.35, 0.5), (0.45, 0.62), (-0.45, 0.62)], gold)
    pen.box(-0.52, 0.62, 0.52, 0.98, (52, 34, 26))
    pen.shape(_star(0, -0.48, 0.26), (255, 240, 170))


def _star(x: float, y: float, radius: float) -> list[tuple[float, float]]:
    points = []
    for turn in range(10):
        reach = radius if turn % 2 == 0 else radius * 0.42
        angle = math.pi * turn / 5 - math.pi / 2
        points.append((x + reach * math.cos(angle), y + reach * math.sin(angle)))
    return points


def _mortarboard(pen: Pen, rng: random.Random) -> None:
    cloth = vary(rng, (28, 28, 36), 12)
    paper = vary(rng, (248, 240, 214), 6)
    pen.shape([(-0.5, -0.35), (0.5, -0.35), (0.46, 0.14), (-0.46, 0.14)], shade(cloth, 1.5))
    pen.shape([(0, -0.98), (1.0, -0.5), (0, -0.02), (-1.0, -0.5)], cloth)
    tassel = vary(rng, (240, 190, 40), 14)
    pen.path([(0, -0.5), (0.72, -0.4), (0.76, 0.1)], 0.06, tassel)
    pen.oval(0.76, 0.18, 0.1, 0.16, tassel)
    pen.shape([(-0.85, 0.36), (0.8, 0.36), (0.8, 0.84), (-0.85, 0.84)], paper)
    pen.oval(0.8, 0.6, 0.1, 0.24, shade(paper, 0.8))
    pen.box(-0.14, 0.34, 0.08, 0.86, (196, 36, 44))


def _teddy(pen: Pen, rng: random.Random) -> None:
    fur = vary(rng, rng.choice(((186, 126, 70), (206, 152, 96), (160, 104, 58))), 12)
    light = shade(fur, 1.3)
    for side in (-1, 1):
        pen.oval(side * 0.42, -0.82, 0.2, 0.2, fur)
        pen.oval(side * 0.42, -0.82, 0.11, 0.11, light)
        pen.oval(side * 0.62, 0.18, 0.2, 0.32, shade(fur, 0.92))
        pen.oval(side * 0.4, 0.8, 0.26, 0.2, shade(fur, 0.92))
        pen.oval(side * 0.42, 0.8, 0.14, 0.11, light)
    pen.oval(0, 0.3, 0.52, 0.58, fur)
    pen.oval(0, 0.34, 0.32, 0.38, light)
    pen.oval(0, -0.48, 0.5, 0.44, fur)
    pen.oval(0, -0.34, 0.24, 0.19, light)
    pen.oval(0, -0.42, 0.09, 0.07, (30, 22, 20))
    for side in (-1, 1):
        pen.oval(side * 0.2, -0.58, 0.06, 0.07, (30, 22, 20))


PROPS: dict[str, Drawer] = {
    "wedding": _bouquet,
    "office": _laptop,
    "stadium": _ball,
    "skyline": _suitcase,
    "stage": _microphone,
    "podium": _trophy,
    "graduation": _mortarboard,
    "home": _teddy,
}


def draw_prop(pen: Pen, rng: random.Random, theme: str) -> None:
    """Draw the prop of a theme."""
    PROPS[theme](pen, rng)
