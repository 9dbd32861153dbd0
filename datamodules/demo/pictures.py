"""Drawing of a post's image, and of the crops that a detector would cut from it."""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

from mmib.datamodules.demo import captioned, indoors, outdoors, views
from mmib.datamodules.demo.pen import Colour, Pen, vary
from mmib.datamodules.demo.people import draw_person, random_shirt
from mmib.datamodules.demo.posts import EASY, HARD, PEOPLE_LAW, Post, opaque_name
from mmib.datamodules.demo.props import draw_prop
from mmib.datamodules.demo.scenery import clutter, plain_background
from mmib.datamodules.demo.themes import COLOURS

SCENES = {
    "wedding": outdoors.wedding,
    "office": indoors.office,
    "stadium": outdoors.stadium,
    "skyline": outdoors.skyline,
    "stage": indoors.stage,
    "podium": outdoors.podium,
    "graduation": outdoors.graduation,
    "home": indoors.home,
}
UNRELATED = {
    "screenshot": captioned.screenshot,
    "meme": captioned.meme,
    "pattern": views.pattern,
    "landscape": views.landscape,
    "food": views.food,
}
_FINE = 2  # factor of supersampling, for smooth edges
_HEIGHT = 304
_WIDTHS: dict[str, tuple[int, ...]] = {EASY: (304, 352, 400), HARD: (400, 432)}

# Distribution of the number of crops, for images without one crop per person.
_CROPS = {EASY: {1: 0.4, 2: 0.45, 3: 0.15}, HARD: PEOPLE_LAW}

Box = tuple[float, float, float, float]
People = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Drawing:
    """An image, and its crops by name in the listed order; boxes are shares of width and height."""

    image: Image.Image
    crops: dict[str, Image.Image]
    boxes: dict[str, Box]


@dataclass(frozen=True)
class Figure:
    """Position and size of a person, in a pen's coordinates (image height is -1..1)."""

    x: float
    y: float
    size: float
    angle: float
    mirrored: bool


@dataclass(frozen=True)
class Layout:
    """The geometry of an image: places and order, independent of its contents.

    Attributes:
        width: image width in pixels.
        figures: places of the people, in the order of `Picture.people` if the image has them.
        regions: boxes of the crops, as shares of the image; one per person, in that order, if the image has people.
        order: the listed order of the regions.
    """

    width: int
    figures: tuple[Figure, ...]
    regions: tuple[Box, ...]
    order: tuple[int, ...]


def lay_out(post: Post, rng: random.Random) -> Layout:
    """Sample the geometry of a post's image."""
    width = rng.choice(_WIDTHS[post.level])
    wide = width / _HEIGHT
    if post.picture.people:
        figures = _line_up(rng, wide, len(post.picture.people))
        regions = [_region(rng, wide, figure.x, figure.y, figure.size) for figure in figures]
    else:
        figures = [] if post.picture.unrelated else _passers_by(rng, wide)
        law = _CROPS[post.level]
        count = rng.choices(list(law), list(law.values()))[0]
        regions = [_region(rng, wide, *_glance(rng, wide, figures), rng.uniform(0.4, 0.7)) for _ in range(count)]
    order = rng.sample(range(len(regions)), len(regions))
    return Layout(width, tuple(figures), tuple(regions), tuple(order))


def _line_up(rng: random.Random, wide: float, count: int) -> list[Figure]:
    """Place people side by side without overlap, in random order."""
    slot = 2 * wide / count
    figures = []
    for place in rng.sample(range(count), count):
        size = rng.uniform(0.88, 1.0) * min(0.72, slot / 1.45)
        slack = max(0.0, slot / 2 - 0.72 * size)
        x = -wide + slot * (place + 0.5) + rng.uniform(-slack, slack)
        y = rng.uniform(-0.15, 0.95 - size)
        figures.append(Figure(x, y, size, rng.uniform(-0.07, 0.07), rng.random() < 0.5))
    return figures


def _passers_by(rng: random.Random, wide: float) -> list[Figure]:
    return [
        Figure(rng.uniform(-wide, wide), rng.uniform(0.3, 0.6), rng.uniform(0.28, 0.4), 0.0, rng.random() < 0.5)
        for _ in range(rng.randint(1, 4))
    ]


def _glance(rng: random.Random, wide: float, figures: list[Figure]) -> tuple[float, float]:
    """Sample what a detector finds in an image without props: a person, or something near the middle."""
    if figures and rng.random() < 0.4:
        figure = rng.choice(figures)
        return figure.x, figure.y
    return rng.uniform(-0.5, 0.5) * wide, rng.uniform(-0.4, 0.4)


def _region(rng: random.Random, wide: float, x: float, y: float, size: float) -> Box:
    """A jittered box around something of half height `size`, moved into the image."""
    half_width = 0.72 * size * rng.uniform(0.95, 1.1)
    half_height = 1.02 * size * rng.uniform(0.97, 1.08)
    x0 = _inside(0.5 + (x - half_width + rng.uniform(-0.05, 0.05) * size) / (2 * wide), half_width / wide)
    y0 = _inside(0.5 + (y - half_height + rng.uniform(-0.05, 0.05) * size) / 2, half_height)
    return x0, y0, min(1.0, x0 + half_width / wide), min(1.0, y0 + half_height)


def _inside(start: float, length: float) -> float:
    return max(0.0, min(start, 1.0 - length))


def draw_picture(post: Post, seed: int) -> Drawing:
    """Draw a post's image and its crops; posts that share a drawing get the same pixels and names of crops."""
    layout = lay_out(post, random.Random(f"{seed}/{post.drawing}/layout"))
    rng = random.Random(f"{seed}/{post.drawing}/paint")
    canvas = Image.new("RGB", (layout.width * _FINE, _HEIGHT * _FINE))
    scale = _HEIGHT * _FINE / 2
    pen = Pen(ImageDraw.Draw(canvas), layout.width * _FINE / 2, scale, scale)
    wide = layout.width / _HEIGHT
    if post.picture.unrelated is not None:
        UNRELATED[post.picture.unrelated](pen, rng, wide)
    elif post.picture.scene is not None:
        _paint_scene(pen, rng, post.picture.scene, layout, wide)
    else:
        _paint_people(pen, rng, post.picture.people, layout, wide)
    image = canvas.reduce(_FINE)
    boxes = {opaque_name(seed, post.drawing, place) + ".jpg": layout.regions[place] for place in layout.order}
    return Drawing(image, {name: image.crop(_pixels(box, image.size)) for name, box in boxes.items()}, boxes)


def _pixels(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = (round(share * side) for share, side in zip(box, size * 2, strict=True))
    return x0, y0, x1, y1


def _paint_scene(pen: Pen, rng: random.Random, theme: str, layout: Layout, wide: float) -> None:
    camera = pen.at(rng.uniform(-0.15, 0.15), rng.uniform(-0.08, 0.08), rng.uniform(0.9, 1.2))
    SCENES[theme](camera, rng)
    clutter(pen, rng, wide, rng.randint(2, 5))
    for figure in layout.figures:
        draw_person(_stand(pen, figure), rng, random_shirt(rng))


def _paint_people(pen: Pen, rng: random.Random, people: People, layout: Layout, wide: float) -> None:
    plain_background(pen, rng)
    clutter(pen, rng, wide, rng.randint(2, 6))
    for figure, (colour, theme) in zip(layout.figures, people, strict=True):
        body = _stand(pen, figure)
        draw_person(body, rng, _shirt(rng, colour))
        hand = (rng.uniform(-0.16, 0.16), rng.uniform(0.47, 0.54))
        draw_prop(body.at(*hand, rng.uniform(0.4, 0.46), rng.uniform(-0.12, 0.12)), rng, theme)


def _stand(pen: Pen, figure: Figure) -> Pen:
    return pen.at(figure.x, figure.y, figure.size, figure.angle, figure.mirrored)


def _shirt(rng: random.Random, colour: str) -> Colour:
    return vary(rng, COLOURS[colour], 14)
