"""The pictures of a run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmib.callbacks.information_plane import draw_information_plane, draw_study

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


def study(factors: dict[str, list[Any]], ceilings: bool = True) -> dict[str, Any]:
    """A study of two seeds, all points of which differ."""
    first, *rest = factors.items()
    points = [{first[0]: level} for level in first[1]]
    for name, levels in rest:
        points = [{**point, name: level} for point in points for level in levels]
    rows = []
    for number, point in enumerate(points):
        mean = 0.5 + 0.05 * number
        best = {"text": 0.6, "multimodal": 0.9} if ceilings else None
        scores = {"values": [mean - 0.02, mean + 0.02], "mean": mean, "low": mean - 0.04, "high": mean + 0.04}
        rows.append({"point": point, **scores, "ceilings": best})
    rows.append({"point": points[0], "mean": None, "reason": "not trained yet"})
    return {"name": "toy", "split": "test", "metric": "f1", "factors": factors, "rows": rows}


def texts(path: Path) -> list[str]:
    return [text.strip() for text in re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text(encoding="utf-8"))]


def test_a_study_of_names_has_a_row_for_each_and_the_ceilings(tmp_path: Path) -> None:
    draw_study(study({"variant": ["full", "without AR"]}), tmp_path / "figure.svg")
    assert {"full", "without AR", "best with text", "best with text and image"} <= set(texts(tmp_path / "figure.svg"))
    draw_study(study({"variant": ["full", "without AR"]}, ceilings=False), tmp_path / "bare.svg")
    assert "best with text" not in texts(tmp_path / "bare.svg")


def test_levels_that_are_numbers_are_the_axis_with_a_line_for_each_of_the_others(tmp_path: Path) -> None:
    draw_study(study({"variant": ["full", "without AR"], "share of noise": [0.0, 0.5, 0.8]}), tmp_path / "figure.svg")
    found = texts(tmp_path / "figure.svg")
    assert {"share of noise", "full", "without AR", "best with text"} <= set(found)
    assert found.count("full") == 1


def test_equal_studies_are_equal_figures_and_others_are_not(tmp_path: Path) -> None:
    content = study({"variant": ["full", "without AR"]})
    for name in ("one", "again"):
        draw_study(content, tmp_path / name)
    content["rows"][0]["values"] = [0.1, 0.9]
    draw_study(content, tmp_path / "another seed")
    one, again, other = ((tmp_path / name).read_bytes() for name in ("one", "again", "another seed"))
    assert one == again != other
