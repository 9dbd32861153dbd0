"""The picture of a run's information plane."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmib.callbacks.information_plane import draw_information_plane

POINTS = [
    {"step": 10 * number, "rate_text": 40.0 - number, "rate_image": 9.0 + number, "distortion": 2.0 / (number + 1)}
    for number in range(8)
]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize("count", [1, 8])
def test_the_json_holds_the_points_and_the_picture_shows_them(tmp_path: Path, count: int) -> None:
    draw_information_plane(POINTS[:count], tmp_path / "run")
    assert json.loads((tmp_path / "run" / "information_plane.json").read_text(encoding="utf-8")) == POINTS[:count]
    picture = pixels(tmp_path / "run" / "information_plane.png")
    assert min(picture.shape[:2]) > 300
    # The dots of both panels, by the first colour of viridis, that of the first step: (68, 1, 84).
    purple = np.abs(picture.astype(int) - [68, 1, 84]).max(axis=2) < 12
    left, right = np.array_split(purple[:, : picture.shape[1] * 9 // 10], 2, axis=1)
    assert left.sum() > 20
    assert right.sum() > 20
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"information_plane.json", "information_plane.png"}


def test_other_points_are_another_picture(tmp_path: Path) -> None:
    for name, points in (("one", POINTS), ("two", [{**point, "rate_image": 30.0} for point in POINTS])):
        draw_information_plane(points, tmp_path / name)
    one, two = (pixels(tmp_path / name / "information_plane.png") for name in ("one", "two"))
    half = one.shape[1] // 3
    assert np.array_equal(one[:, :half], two[:, :half]), "the text's panel is the same"
    assert not np.array_equal(one, two)


def test_information_is_a_scale_of_its_own_where_it_is_known(tmp_path: Path) -> None:
    for name, entropy in (("unknown", None), ("two", 2.0), ("three", 3.0)):
        more = [{} if entropy is None else {"information": entropy - point["distortion"]} for point in POINTS]
        draw_information_plane([point | own for point, own in zip(POINTS, more, strict=True)], tmp_path / name)
    unknown, two, three = (pixels(tmp_path / name / "information_plane.png") for name in ("unknown", "two", "three"))
    assert not np.array_equal(unknown, two)
    assert not np.array_equal(two, three), "other numbers stand at the scale"


def test_drawing_again_replaces_the_picture(tmp_path: Path) -> None:
    draw_information_plane(POINTS[:2], tmp_path)
    before = pixels(tmp_path / "information_plane.png")
    draw_information_plane(POINTS, tmp_path)
    assert not np.array_equal(pixels(tmp_path / "information_plane.png"), before)
    assert len(json.loads((tmp_path / "information_plane.json").read_text(encoding="utf-8"))) == len(POINTS)
