"""Parts of prediction records: overlapping entities, and finite numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logit
from scipy.special import softmax as scipy_softmax

from mmib.records import OTHERS, Confusion, Entity, Item, Judgement, TrainingItems, log_odds, softmax, surface_form

spans = st.tuples(st.integers(0, 6), st.integers(1, 4)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(spans, spans)
def test_entities_overlap_if_they_share_a_word(one: tuple[int, int], other: tuple[int, int]) -> None:
    shared = set(range(*one)) & set(range(*other))
    first, second = Entity("PER", *one), Entity("LOC", *other)
    assert first.overlaps(second) == second.overlaps(first) == bool(shared)
    assert first.span == one
    items = Item("PER", "", one), Item("LOC", "", other)
    assert items[0].overlaps(items[1]) == items[1].overlaps(items[0]) == bool(shared)


def test_a_surface_form_ignores_case_and_separates_spans() -> None:
    words = ["ANNA", "met", "Straße", "7"]
    assert surface_form(words, [(0, 1)]) == "anna"
    assert surface_form(words, [(0, 2), (2, 4)]) == "anna met\tstrasse 7"
    assert surface_form(words, []) == surface_form([], [(0, 1)]) == ""


def test_training_items_are_counted_and_round_trip() -> None:
    items = [Item("PER", "anna", (0, 1)), Item("PER", "bob", (2, 3)), Item("None", "")]
    found = TrainingItems.of(items)
    assert found == TrainingItems({"PER": 2, "None": 1}, frozenset({"anna", "bob"}))
    assert TrainingItems.from_dict(found.to_dict()) == found


@pytest.mark.parametrize(("predicted", "gold", "right"), [(1, 1, True), (0, 1, False)])
def test_a_judgement_is_right_if_gold_was_predicted(predicted: int, gold: int, right: bool) -> None:
    assert Judgement([0.1, 0.2], predicted, gold).right is right


@given(st.lists(st.lists(st.floats(-1e4, 1e4), min_size=3, max_size=3), min_size=1, max_size=4))
def test_probabilities_match_scipy(logits: list[list[float]]) -> None:
    values = np.array(logits)
    np.testing.assert_allclose(softmax(values), scipy_softmax(values, axis=-1), atol=1e-12)


def test_log_odds_match_scipy_and_are_finite_at_the_ends() -> None:
    inside = np.linspace(0.01, 0.99, 50)
    np.testing.assert_allclose(log_odds(inside), logit(inside))
    ends = log_odds(np.array([0.0, 1.0]))
    assert np.isfinite(ends).all()
    assert ends[0] == pytest.approx(-ends[1])
    assert ends[1] > 13


def test_a_confusion_matrix_of_the_most_frequent_classes_keeps_all_items_and_the_missing_class() -> None:
    pairs = {("a", "a"): 1, ("b", "b"): 5, ("b", "c"): 2, ("c", "a"): 3, ("c", "missed"): 1, ("d", "b"): 1}
    pairs["no", "d"] = 4
    whole = Confusion.of(pairs, ["a", "b", "c", "d", "no"], ["a", "b", "c", "d", "missed"])
    assert whole.of_most_frequent(4) is whole
    found = whole.of_most_frequent(2)
    assert found.rows == ["b", "c", OTHERS, "no"]
    assert found.columns == ["b", "c", OTHERS, "missed"]
    assert found.counts.tolist() == [[5, 2, 0, 0], [0, 0, 3, 1], [1, 0, 1, 0], [0, 0, 4, 0]]
