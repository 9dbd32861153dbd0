"""Crops show their object and leak nothing else."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import numpy as np
import pytest
import torch

from mmib.datamodules.demo.pictures import Layout, draw_picture, lay_out
from mmib.datamodules.demo.posts import EASY, HARD, LEVELS, Post, draw_post
from mmib.datamodules.demo.settings import UNRELATED, DemoSettings
from mmib.datamodules.demo.themes import THEMES
from mmib.encoders.image import ImageEncoder
from mmib.encoders.pretrained import PACKAGED

SETTINGS = DemoSettings(noise=0.0)


@pytest.fixture(scope="module")
def hard() -> list[tuple[Post, Layout, int]]:
    """Hard posts with their layouts and the index of the person the post refers to."""
    drawn = []
    for number in range(3000):
        post = draw_post(SETTINGS, "train", number, HARD)
        clause = next(clause for clause in post.clauses if clause.ambiguous)
        target = post.picture.people.index((str(clause.colour), str(clause.theme)))
        drawn.append((post, lay_out(post, random.Random(f"layout {number}")), target))
    return drawn


def uniform_enough(counts: Counter[int], bins: int) -> bool:
    expected = counts.total() / bins
    statistic = sum((counts[place] - expected) ** 2 / expected for place in range(bins))
    return bool(statistic < (bins - 1) + 5 * (2 * (bins - 1)) ** 0.5)


@pytest.mark.parametrize("people", [2, 3, 4])
def test_list_position_does_not_reveal_the_relevant_prop(hard: list[tuple[Post, Layout, int]], people: int) -> None:
    places = Counter(layout.order.index(target) for _, layout, target in hard if len(layout.order) == people)
    assert uniform_enough(places, people)


@pytest.mark.parametrize("people", [2, 3, 4])
def test_position_in_the_scene_does_not_reveal_the_relevant_prop(
    hard: list[tuple[Post, Layout, int]], people: int
) -> None:
    ranks = Counter[int]()
    for _, layout, target in hard:
        if len(layout.figures) == people:
            ranks[sum(figure.x < layout.figures[target].x for figure in layout.figures)] += 1
    assert uniform_enough(ranks, people)


@pytest.mark.parametrize("people", [2, 3, 4])
def test_size_does_not_reveal_the_relevant_prop(hard: list[tuple[Post, Layout, int]], people: int) -> None:
    ranks = Counter[int]()
    for _, layout, target in hard:
        if len(layout.regions) == people:
            areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in layout.regions]
            ranks[sum(area < areas[target] for area in areas)] += 1
    assert uniform_enough(ranks, people)


def test_number_and_size_of_easy_crops_do_not_reveal_the_theme() -> None:
    numbers: dict[str, list[int]] = {theme: [] for theme in THEMES}
    heights: dict[str, list[float]] = {theme: [] for theme in THEMES}
    for number in range(3000):
        post = draw_post(SETTINGS, "train", number, EASY)
        layout = lay_out(post, random.Random(f"layout {number}"))
        numbers[str(post.picture.scene)].append(len(layout.regions))
        heights[str(post.picture.scene)] += [y1 - y0 for _, y0, _, y1 in layout.regions]
    for values, tolerance in ((numbers, 0.25), (heights, 0.05)):
        means = [sum(one) / len(one) for one in values.values()]
        assert max(means) - min(means) < tolerance


def test_names_are_independent_of_the_order_of_people() -> None:
    """Sorting crops by name puts each person in every position equally often."""
    places = Counter[int]()
    for number in range(150):
        post = draw_post(SETTINGS, "train", number, HARD)
        drawing = draw_picture(post, seed=0)
        if len(drawing.boxes) == 3:
            places[sorted(drawing.boxes).index(next(iter(drawing.boxes)))] += 1
    assert uniform_enough(places, 3)


def unrelated(name: str, numbers: range, level: str = EASY) -> list[Post]:
    settings = DemoSettings(noise=1.0, noise_kinds={name: 1.0})
    return [draw_post(settings, "val", number, level) for number in numbers]


@pytest.mark.parametrize("level", LEVELS)
def test_boxes_are_inside_the_image_and_match_their_crops(level: str) -> None:
    posts = [draw_post(SETTINGS, "val", number, level) for number in range(15)]
    for post in posts + [post for name in UNRELATED for post in unrelated(name, range(3), level)]:
        drawing = draw_picture(post, seed=0)
        assert len(drawing.boxes) in ((1, 2, 3) if level == EASY else (2, 3, 4))
        width, height = drawing.image.size
        assert list(drawing.crops) == list(drawing.boxes)
        for name, (x0, y0, x1, y1) in drawing.boxes.items():
            assert 0 <= x0 < x1 <= 1
            assert 0 <= y0 < y1 <= 1
            crop = drawing.crops[name]
            assert crop.width == pytest.approx((x1 - x0) * width, abs=1.01)
            assert crop.height == pytest.approx((y1 - y0) * height, abs=1.01)


def test_people_do_not_occlude_each_other(hard: list[tuple[Post, Layout, int]]) -> None:
    for _, layout, _ in hard[:300]:
        figures = sorted(layout.figures, key=lambda figure: figure.x)
        for left, right in itertools.pairwise(figures):
            assert right.x - left.x > 0.6 * (left.size + right.size)


def test_all_scenes_vary() -> None:
    images: dict[str, set[bytes]] = {theme: set() for theme in THEMES}
    posts = [draw_post(SETTINGS, "val", number, EASY) for number in range(60)]
    for post in posts:
        images[str(post.picture.scene)].add(draw_picture(post, seed=0).image.tobytes())
    assert sum(len(variants) for variants in images.values()) == len(posts)


def test_a_frozen_encoder_recognises_unrelated_images() -> None:
    """By the nearest class mean of other images' features; relevant images of either level are two further classes."""
    pytest.importorskip(PACKAGED["pip:efficientnet-lite0"].package, reason="the encoders extra is not installed")
    encoder = ImageEncoder("pip:efficientnet-lite0", frozen=True)
    groups = {name: unrelated(name, range(12)) for name in UNRELATED}
    groups |= {level: [draw_post(SETTINGS, "val", number, level) for number in range(12)] for level in LEVELS}
    means, held_out = {}, {}
    for name, posts in groups.items():
        pixels = torch.stack([encoder.transform(draw_picture(post, seed=0).image) for post in posts])
        with torch.inference_mode():
            features = torch.nn.functional.normalize(encoder(pixels).flatten(1), dim=1)
        means[name], held_out[name] = features[:8].mean(dim=0), features[8:]
    nearest = {
        name: [list(means)[place] for place in (features @ torch.stack([*means.values()]).T).argmax(dim=1).tolist()]
        for name, features in held_out.items()
    }
    for name in UNRELATED:
        assert nearest[name] == [name] * 4
    assert {name for level in LEVELS for name in nearest[level]} <= set(LEVELS)


@pytest.mark.parametrize("name", UNRELATED)
def test_unrelated_images_of_a_kind_differ(name: str) -> None:
    """At a resolution of 8 x 8 in grey, no two are close."""
    thumbnails = []
    for post in unrelated(name, range(12)):
        image = draw_picture(post, seed=0).image.convert("L").resize((8, 8))
        thumbnails.append(np.asarray(image, dtype=np.float64))
    distances = [np.abs(one - other).mean() for one, other in itertools.combinations(thumbnails, 2)]
    assert min(distances) > 1.0
    assert np.median(distances) > 15.0
