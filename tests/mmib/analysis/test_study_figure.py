"""The picture of a study."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mmib.analysis.study_figure import draw_study


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
