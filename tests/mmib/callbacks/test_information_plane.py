"""The figure of a run's information plane."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from mmib.callbacks.information_plane import draw_information_plane

SVG = "{http://www.w3.org/2000/svg}"
POINTS = [
    {"step": 10 * number, "rate_text": 40.0 - number, "rate_image": 9.0 + number, "distortion": 2.0 / (number + 1)}
    for number in range(8)
]


def drawn(folder: Path) -> ET.Element:
    return ET.fromstring((folder / "information_plane.svg").read_text(encoding="utf-8"))


def texts(picture: ET.Element) -> str:
    return " ".join(node.text or "" for node in picture.iter(f"{SVG}text"))


@pytest.mark.parametrize("count", [1, 8])
def test_the_json_contains_the_points_and_the_figure_shows_them_for_both_modalities(tmp_path: Path, count: int) -> None:
    draw_information_plane(POINTS[:count], tmp_path / "run")
    assert json.loads((tmp_path / "run" / "information_plane.json").read_text(encoding="utf-8")) == POINTS[:count]
    assert len(list(drawn(tmp_path / "run").iter(f"{SVG}circle"))) == 2 * count
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"information_plane.json", "information_plane.svg"}


def test_information_is_recorded_if_known(tmp_path: Path) -> None:
    draw_information_plane(POINTS, tmp_path)
    assert "I(Z; Y)" not in texts(drawn(tmp_path))
    draw_information_plane([{**point, "information": 3.0 - point["distortion"]} for point in POINTS], tmp_path)
    assert "at most I(Z; Y): 1 to 2.75 nats" in texts(drawn(tmp_path))


def test_non_finite_points_are_omitted(tmp_path: Path) -> None:
    for value in (float("nan"), float("inf")):
        broken = {**POINTS[0], "rate_text": value}
        draw_information_plane([broken], tmp_path / "none")
        assert not (tmp_path / "none").exists()
        draw_information_plane([*POINTS, broken], tmp_path / "run")
        assert json.loads((tmp_path / "run" / "information_plane.json").read_text(encoding="utf-8")) == list(POINTS)


def test_plotting_again_replaces_the_figure(tmp_path: Path) -> None:
    for count in (2, len(POINTS)):
        draw_information_plane(POINTS[:count], tmp_path)
        assert f"step {POINTS[count - 1]['step']}" in texts(drawn(tmp_path))
    assert len(json.loads((tmp_path / "information_plane.json").read_text(encoding="utf-8"))) == len(POINTS)
