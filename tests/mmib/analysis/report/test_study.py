"""The figure of a study."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mmib.analysis.report.study import Study, chart, numeric_factor
from mmib.charts import Chart


def study(factors: dict[str, list[Any]], ceilings: bool = True) -> dict[str, Any]:
    """A study of two seeds, all trials of which differ."""
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


def drawn(content: dict[str, Any]) -> Chart:
    figure = chart(Study(Path("study"), content))
    assert figure is not None
    return figure


def texts(figure: Chart) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", figure.drawing)


def test_a_study_of_categories_has_one_row_each_with_seeds_and_ceilings() -> None:
    figure = drawn(study({"variant": ["full", "without AR"]}))
    assert {"full", "without AR"} <= set(texts(figure))
    assert set(figure.key) == {"best with text", "best with text and image"}
    assert figure.drawing.count('class="value"') == 2 * 2, "two seeds of two variants"
    assert not drawn(study({"variant": ["full", "without AR"]}, ceilings=False)).key


def test_a_numeric_factor_is_the_axis_with_one_line_per_level_of_the_others() -> None:
    figure = drawn(study({"variant": ["full", "without AR"], "share of noise": [0.0, 0.5, 0.8]}))
    assert "share of noise" in texts(figure)
    assert set(figure.key) == {"full", "without AR", "best with text", "best with text and image"}
    assert figure.drawing.count("<polyline") == 4
    assert figure.drawing.count('class="error"') == 2 * 3


@pytest.mark.parametrize(
    ("factors", "axis"),
    [
        ({"variant": ["full"], "share": [0.1, 0.2]}, "share"),
        ({"share": [0.1, 0.2], "beta": [1, 2, 3]}, "beta"),
        ({"share": [0.1]}, None),
        ({"sampled": [True, False]}, None),
        ({"share": [0.1, "all"]}, None),
    ],
)
def test_the_axis_is_the_factor_with_the_most_numeric_levels(factors: dict[str, list[Any]], axis: str | None) -> None:
    assert numeric_factor(factors) == axis


def test_a_study_without_any_measured_trial_has_no_figure() -> None:
    content = study({"variant": ["full"]})
    content["rows"] = content["rows"][-1:]
    assert chart(Study(Path("study"), content)) is None
