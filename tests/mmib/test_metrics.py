"""The metric, against scikit-learn and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from mmib.metrics import RelationScores, Scores, f1_standard_error
from mmib.schema import RELATIONS

SOME = list(range(1, len(RELATIONS)))
ids = st.one_of(st.integers(0, 3), st.integers(0, len(RELATIONS) - 1))
rows = st.lists(st.tuples(ids, ids), min_size=1, max_size=40)


def scores(*batches: list[tuple[int, int]]) -> RelationScores:
    """The metric after batches of (predicted, gold) ids."""
    metric = RelationScores()
    for batch in batches:
        predicted, gold = (torch.tensor(column, dtype=torch.long) for column in zip(*batch, strict=True))
        metric.update(predicted, gold)
    return metric


@settings(deadline=None, max_examples=60)
@given(rows=rows)
def test_scores_are_those_of_scikit_learn_without_none(rows: list[tuple[int, int]]) -> None:
    """Defect 29: a macro average, read from a printed report, passed as micro F1."""
    predicted, gold = zip(*rows, strict=True)
    precision, recall, f1, _ = precision_recall_fscore_support(
        gold, predicted, labels=SOME, average="micro", zero_division=0
    )
    expected = {"precision": precision, "recall": recall, "f1": f1, "accuracy": accuracy_score(gold, predicted)}
    assert scores(rows).compute() == pytest.approx(expected)


@settings(deadline=None, max_examples=60)
@given(rows=rows)
def test_per_relation_scores_are_those_of_scikit_learn(rows: list[tuple[int, int]]) -> None:
    predicted, gold = zip(*rows, strict=True)
    table = scores(rows).per_relation()
    present = sorted({*predicted, *gold})
    assert list(table) == [RELATIONS[number] for number in present]
    columns = precision_recall_fscore_support(gold, predicted, labels=present, average=None, zero_division=0)
    for name, *expected in zip(table, *columns, strict=True):
        assert list(table[name].values()) == pytest.approx(expected)


@settings(deadline=None, max_examples=60)
@given(batches=st.lists(rows, min_size=1, max_size=5))
def test_unequal_batches_merge_into_the_scores_of_all_rows(batches: list[list[tuple[int, int]]]) -> None:
    together = [row for batch in batches for row in batch]
    assert scores(*batches).compute() == scores(together).compute()


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_ranks_merge_by_summing_their_counts() -> None:
    """What DDP does: each state is reduced by its sum."""
    first, second = scores([(1, 1), (2, 0)]), scores([(0, 3), (3, 3), (1, 2)])
    merged = RelationScores()
    for name in ("correct", "predicted", "gold"):
        assert merged._reductions[name] is torch.sum or merged._reductions[name].__name__ == "dim_zero_sum"
        setattr(merged, name, getattr(first, name) + getattr(second, name))
    assert merged.compute() == scores([(1, 1), (2, 0), (0, 3), (3, 3), (1, 2)]).compute()


def test_scores_by_hand_where_none_is_predicted_and_gold() -> None:
    # Predicted relations: 3, of which 1 right; gold relations: 4.
    result = scores([(1, 1), (2, 0), (2, 3), (0, 4), (0, 5), (0, 0)]).compute()
    assert result == pytest.approx({"precision": 1 / 3, "recall": 1 / 4, "f1": 2 / 7, "accuracy": 2 / 6})


def test_right_none_counts_for_accuracy_only() -> None:
    assert scores([(0, 0), (0, 0)]).compute() == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "accuracy": 1.0}


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_nothing_seen_is_zero_and_reset_forgets() -> None:
    empty = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "accuracy": 0.0}
    assert RelationScores().compute() == empty
    metric = scores([(1, 1)])
    assert metric.compute()["f1"] == 1.0
    metric.reset()
    assert metric.compute() == empty


def test_scores_from_counts_are_zero_where_undefined() -> None:
    assert Scores.from_counts(0, 0, 5) == Scores(0.0, 0.0, 0.0)
    assert Scores.from_counts(0, 5, 0) == Scores(0.0, 0.0, 0.0)
    assert Scores.from_counts(2, 4, 8) == Scores(0.5, 0.25, pytest.approx(1 / 3))


def test_the_bootstrap_error_of_one_relation_is_near_its_analytic_value() -> None:
    """Where every row is of one relation, F1 is 2 p / (1 + p) of the share p found (delta method)."""
    size, share = 2000, 0.7
    gold = [5] * size
    predicted = [5] * int(share * size) + [0] * (size - int(share * size))
    analytic = 2 / (1 + share) ** 2 * math.sqrt(share * (1 - share) / size)
    assert f1_standard_error(predicted, gold) == pytest.approx(analytic, rel=0.1)
    assert f1_standard_error(gold, gold) == 0
