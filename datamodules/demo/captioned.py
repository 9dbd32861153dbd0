"""Images of text without any theme: screenshots, and memes with captions.

Image height is -1..1, width -wide..wide.
"""

from __future__ import annotations

import math
import random

from mmib.datamodules.demo.pen import Colour, Pen, any_colour, shade, text_width, vary, wrapped
from mmib.datamodules.demo.scenery import FAR, bands
from mmib.datamodules.demo.wordings import CHATTER, ORDINARY_WORDS

_BLACK: Colour = (14, 14, 16)
_WHITE: Colour = (250, 250, 250)


def _sentence(rng: random.Random) -> str:
    wording = rng.choice(CHATTER)
    for word in rng.sample(ORDINARY_WORDS, wording.count("{w}")):
        wording = wording.replace("{w}", word, 1)
    return wording


def _paragraph(rng: random.Random, sentences: int) -> str:
    return ". ".join(_sentence(rng).rstrip(" ?").capitalize() for _ in range(sentences)) + "."


def screenshot(pen: Pen, rng: random.Random, wide: float) -> None:
    """A screen full of text: a chat, an article, a post with a reply, or a list, on a light or dark background."""
    ground, ink = rng.choice(((_WHITE, (30, 32, 38)), ((238, 240, 244), (24, 26, 32)), ((26, 28, 34), (232, 234, 238))))
    faint: Colour = (136, 140, 150)
    pen.box(-FAR, -FAR, FAR, FAR, ground)
    rng.choice((_chat, _article, _post, _list))(pen, rng, wide, ink, faint)


def _bar(pen: Pen, rng: random.Random, wide: float, title: str) -> Colour:
    """Draw the bar at the top of a screen; return its colour."""
    accent = any_colour(rng, (0.5, 0.9))
    pen.box(-FAR, -FAR, FAR, -0.8, accent)
    for line in range(3):
        pen.box(-wide + 0.08, -0.95 + 0.05 * line, -wide + 0.2, -0.935 + 0.05 * line, _WHITE)
    pen.text(-wide + 0.3, -0.9, title, 0.11, _WHITE)
    return accent


def _lines(pen: Pen, x: float, y: float, lines: list[str], height: float, fill: Colour) -> float:
    """Draw lines of text one below the other; return the position of the next line."""
    for line in lines:
        pen.text(x, y, line, height, fill)
        y += 1.35 * height
    return y


def _chat(pen: Pen, rng: random.Random, wide: float, ink: Colour, faint: Colour) -> None:
    accent = _bar(pen, rng, wide, rng.choice(ORDINARY_WORDS).capitalize())
    height, y = rng.uniform(0.075, 0.1), -0.66
    while y < 0.8:
        lines = wrapped(_sentence(rng), height, 1.2 * wide)
        width = max(text_width(line, height) for line in lines)
        mine = rng.random() < 0.5
        x = wide - 0.16 - width if mine else -wide + 0.16
        foot = y + 1.35 * height * (len(lines) - 1)
        pen.box(x - 0.06, y - height, x + width + 0.06, foot + height, accent if mine else (206, 210, 216))
        _lines(pen, x, y, lines, height, _WHITE if mine else _BLACK)
        pen.text(x, foot + 1.5 * height, f"{rng.randint(7, 22)}:{rng.randint(10, 59)}", 0.05, faint)
        y = foot + rng.uniform(3.0, 3.8) * height
    pen.box(-wide + 0.08, 0.86, wide - 0.08, 0.97, ink)


def _article(pen: Pen, rng: random.Random, wide: float, ink: Colour, faint: Colour) -> None:
    accent = _bar(pen, rng, wide, f"The {rng.choice(ORDINARY_WORDS)} news")
    height, margin = rng.uniform(0.14, 0.19), 2 * wide - 0.24
    y = _lines(pen, -wide + 0.12, -0.62, wrapped(_sentence(rng).title(), height, margin), height, ink)
    pen.text(-wide + 0.12, y, f"{rng.randint(2, 9)} min read", 0.07, accent)
    pen.box(-wide + 0.12, y + 0.07, wide - 0.12, y + 0.078, faint)
    height = rng.uniform(0.065, 0.085)
    _lines(pen, -wide + 0.12, y + 0.17, wrapped(_paragraph(rng, 14), height, margin), height, ink)


def _post(pen: Pen, rng: random.Random, wide: float, ink: Colour, faint: Colour) -> None:
    y = rng.uniform(-0.86, -0.7)
    while y < 0.85:
        pen.oval(-wide + 0.22, y, 0.11, 0.11, any_colour(rng, (0.4, 0.9)))
        name = rng.choice(ORDINARY_WORDS)
        pen.text(-wide + 0.4, y - 0.05, name.capitalize(), 0.1, ink)
        pen.text(-wide + 0.4, y + 0.06, f"@{name}{rng.randint(1, 99)}", 0.07, faint)
        height = rng.uniform(0.1, 0.15)
        words = " ".join(_sentence(rng) for _ in range(rng.randint(1, 2)))
        y = _lines(pen, -wide + 0.12, y + 0.26, wrapped(words, height, 2 * wide - 0.24), height, ink)
        for place in range(4):
            pen.text(-wide + 0.16 + 0.45 * place, y, f"{rng.randint(1, 999)}", 0.07, faint)
        y += 0.12
        pen.box(-FAR, y, FAR, y + 0.01, faint)
        y += 0.2


def _list(pen: Pen, rng: random.Random, wide: float, ink: Colour, faint: Colour) -> None:
    accent = _bar(pen, rng, wide, rng.choice(ORDINARY_WORDS).capitalize())
    step = rng.uniform(0.2, 0.3)
    for row in range(math.ceil(1.8 / step)):
        y = -0.66 + step * row
        pen.box(-wide + 0.1, y - 0.05, -wide + 0.2, y + 0.05, any_colour(rng, (0.4, 0.9)))
        pen.text(-wide + 0.3, y - 0.03, rng.choice(ORDINARY_WORDS).capitalize(), 0.09, ink)
        pen.text(-wide + 0.3, y + 0.06, _sentence(rng)[:26], 0.06, faint)
        on = rng.random() < 0.5
        pen.box(wide - 0.32, y - 0.045, wide - 0.12, y + 0.045, accent if on else faint)
        pen.oval(wide - (0.16 if on else 0.28), y, 0.04, 0.04, _WHITE)
        pen.box(-wide + 0.1, y + step / 2 + 0.015, FAR, y + step / 2 + 0.02, faint)


def meme(pen: Pen, rng: random.Random, wide: float) -> None:
    """A large face of an animal, and a joke in capitals across it, or above it on white."""
    rng.choice((_rays, _fade))(pen, rng)
    above = rng.random() < 0.35
    middle = 0.3 if above else rng.uniform(-0.05, 0.1)
    face = pen.at(rng.uniform(-0.15, 0.15), middle, rng.uniform(0.55, 0.7), rng.uniform(-0.12, 0.12))
    rng.choice((_cat, _dog, _frog))(face, rng)
    if above:
        lines = wrapped(f"{_sentence(rng)} {_sentence(rng)}", 0.12, 2 * wide - 0.2)
        pen.box(-FAR, -FAR, FAR, -0.93 + 0.165 * len(lines), _WHITE)
        _lines(pen, -wide + 0.1, -0.88, lines, 0.12, _BLACK)
        return
    height = rng.uniform(0.14, 0.18)
    for y, direction in ((-0.84, 1), (0.84, -1)):
        lines = wrapped(_sentence(rng).upper(), height, 2 * wide - 0.2)
        for place, line in enumerate(lines if direction == 1 else reversed(lines)):
            at = y + direction * 1.1 * height * place
            pen.text(0, at, line, height, _WHITE, anchor="mm", stroke_width=6, stroke_fill=_BLACK)


def _rays(pen: Pen, rng: random.Random) -> None:
    one, other = any_colour(rng, (0.4, 0.9)), any_colour(rng, (0.4, 0.9))
    pen.box(-FAR, -FAR, FAR, FAR, one)
    count = rng.randint(6, 11)
    for ray in range(count):
        angles = [2 * math.pi * (ray + edge) / count for edge in (0.0, 0.5)]
        pen.shape([(0, 0), *((FAR * math.cos(angle), FAR * math.sin(angle)) for angle in angles)], other)


def _fade(pen: Pen, rng: random.Random) -> None:
    colour = any_colour(rng, (0.2, 0.8))
    bands(pen, (-1.0, 1.0), colour, shade(any_colour(rng, (0.2, 0.8)), 0.7), 40)


def _eyes(pen: Pen, rng: random.Random, x: float, y: float, radius: float) -> None:
    lid, gaze = rng.uniform(0.0, 0.5), rng.uniform(-0.4, 0.4) * radius
    for side in (-1, 1):
        pen.oval(side * x, y, radius, radius * (1 - lid / 2), _WHITE)
        pen.oval(side * x + gaze, y, radius * 0.5, radius * 0.55 * (1 - lid / 2), _BLACK)


def _mouth(pen: Pen, rng: random.Random, y: float) -> None:
    if rng.random() < 0.4:
        pen.oval(0, y + 0.12, 0.14, 0.16, (120, 30, 40))
    else:
        bend = rng.uniform(-0.14, 0.14)
        pen.path([(-0.26, y + bend), (0, y), (0.26, y + bend)], 0.045, _BLACK)


def _cat(pen: Pen, rng: random.Random) -> None:
    fur = vary(rng, rng.choice(((230, 150, 70), (120, 120, 126), (60, 56, 58), (222, 200, 170))))
    for side in (-1, 1):
        pen.shape([(side * 0.85, -0.2), (side * 0.8, -1.1), (side * 0.2, -0.7)], fur)
        pen.shape([(side * 0.74, -0.4), (side * 0.72, -0.92), (side * 0.36, -0.66)], (236, 160, 166))
    pen.oval(0, 0, 0.95, 0.82, fur)
    for stripe in (-0.25, 0.0, 0.25):
        pen.path([(stripe, -0.78), (stripe * 0.8, -0.5)], 0.07, shade(fur, 0.7))
    _eyes(pen, rng, 0.4, -0.12, 0.21)
    pen.shape([(-0.1, 0.16), (0.1, 0.16), (0, 0.28)], (226, 120, 130))
    _mouth(pen, rng, 0.4)
    for side in (-1, 1):
        for lift in (-0.12, 0.02, 0.16):
            pen.path([(side * 0.35, 0.28 + lift / 2), (side * 1.15, 0.2 + 1.4 * lift)], 0.02, _WHITE)


def _dog(pen: Pen, rng: random.Random) -> None:
    fur = vary(rng, rng.choice(((206, 160, 100), (140, 96, 60), (236, 226, 206), (88, 80, 76))))
    pen.oval(0, 0, 0.8, 0.86, fur)
    for side in (-1, 1):
        pen.oval(side * 0.82, -0.05, 0.24, 0.6, shade(fur, 0.65))
    pen.oval(0, 0.38, 0.46, 0.42, shade(fur, 1.25))
    _eyes(pen, rng, 0.32, -0.22, 0.17)
    pen.oval(0, 0.18, 0.2, 0.14, _BLACK)
    _mouth(pen, rng, 0.5)
    if rng.random() < 0.5:
        pen.oval(0.08, 0.78, 0.13, 0.22, (232, 110, 130))


def _frog(pen: Pen, rng: random.Random) -> None:
    skin = vary(rng, rng.choice(((90, 160, 70), (120, 180, 90), (70, 140, 110))))
    for side in (-1, 1):
        pen.oval(side * 0.46, -0.6, 0.34, 0.34, skin)
    pen.oval(0, 0.05, 1.0, 0.74, skin)
    _eyes(pen, rng, 0.46, -0.62, 0.25)
    pen.path([(-0.75, 0.2), (-0.3, 0.36), (0.3, 0.36), (0.75, 0.2)], 0.06, shade(skin, 0.4))
    for side in (-1, 1):
        pen.oval(side * 0.1, 0.0, 0.03, 0.04, shade(skin, 0.5))
