"""Scores are ratios of counts, and zero if undefined."""

from __future__ import annotations

import pytest

from mmib.scores import RATIOS, Counts, Scores, few_items


def test_scores_are_zero_where_undefined() -> None:
    assert Scores.from_counts(0, 0, 5) == Scores(0.0, 0.0, 0.0)
    assert Scores.from_counts(0, 5, 0) == Scores(0.0, 0.0, 0.0)
    assert Scores.from_counts(2, 4, 8) == Scores(0.5, 0.25, pytest.approx(1 / 3))


@pytest.mark.parametrize("name", RATIOS)
def test_a_ratio_is_the_score_of_the_same_counts(name: str) -> None:
    above, below = RATIOS[name](Counts(2, 4, 8))
    assert above / below == getattr(Scores.from_counts(2, 4, 8), name)


@pytest.mark.parametrize(("negative", "caution"), [("None", "only 10 gold items, 10.0 points each"), (None, None)])
def test_gold_items_of_the_negative_class_are_not_counted(negative: str | None, caution: str | None) -> None:
    found = few_items({"peer": {"gold": 10}, "None": {"gold": 490}}, negative)
    assert found is None if caution is None else str(found).startswith(caution)
