"""Scores of classes, compared with scikit-learn and by hand; those of entities are in the tests of their task."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from mmib.datamodules.labels import label_set
from mmib.labels import LabelSet
from mmib.metrics import ClassScores, label_tensor

MNRE = label_set("mnre")
# The negative class at the start, in the middle, and absent.
LABELS = {
    "mnre": MNRE,
    "middle": LabelSet(("a", "b", "no_relation", "c", "d"), "no_relation"),
    "no negative": LabelSet(("a", "b", "c", "d", "e")),
}
# Few classes, so that some predictions are right; all sets have five.
ids = st.one_of(st.integers(0, 3), st.integers(0, 4))
rows = st.lists(st.tuples(ids, ids), min_size=1, max_size=40)
every_set = pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)


def scores(*batches: list[tuple[int, int]], labels: LabelSet = MNRE) -> ClassScores:
    """The metric after batches of (predicted, gold) ids."""
    metric = ClassScores(labels)
    for batch in batches:
        predicted, gold = (torch.tensor(column, dtype=torch.long) for column in zip(*batch, strict=True))
        metric.update(predicted, gold)
    return metric


@every_set
@settings(deadline=None, max_examples=40)
@given(rows=rows)
def test_scores_match_scikit_learn_without_the_negative_class(labels: LabelSet, rows: list[tuple[int, int]]) -> None:
    """Defect 29: a macro average, parsed from a printed report, was reported as micro F1."""
    predicted, gold = zip(*rows, strict=True)
    scored = [labels.id_of(name) for name in labels.scored]
    precision, recall, f1, _ = precision_recall_fscore_support(
        gold, predicted, labels=scored, average="micro", zero_division=0
    )
    expected = {"precision": precision, "recall": recall, "f1": f1, "accuracy": accuracy_score(gold, predicted)}
    assert scores(rows, labels=labels).compute() == pytest.approx(expected)


@every_set
@settings(deadline=None, max_examples=40)
@given(rows=rows)
def test_scores_of_each_class_match_scikit_learn(labels: LabelSet, rows: list[tuple[int, int]]) -> None:
    predicted, gold = zip(*rows, strict=True)
    table = scores(rows, labels=labels).per_class()
    present = sorted({*predicted, *gold})
    assert list(table) == [labels.names[number] for number in present]
    columns = precision_recall_fscore_support(gold, predicted, labels=present, average=None, zero_division=0)
    for name, *expected in zip(table, *columns, strict=True):
        assert list(table[name].values()) == pytest.approx(expected)


@settings(deadline=None, max_examples=60)
@given(batches=st.lists(rows, min_size=1, max_size=5))
def test_unequal_batches_give_the_scores_of_all_rows(batches: list[list[tuple[int, int]]]) -> None:
    together = [row for batch in batches for row in batch]
    assert scores(*batches).compute() == scores(together).compute()


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_ranks_merge_by_summing_their_counts() -> None:
    """As in DDP: each state is reduced by summation."""
    first, second = scores([(1, 1), (2, 0)]), scores([(0, 3), (3, 3), (1, 2)])
    merged = ClassScores(MNRE)
    for name in merged.metric_state:
        assert merged._reductions[name] is torch.sum or merged._reductions[name].__name__ == "dim_zero_sum"
        setattr(merged, name, getattr(first, name) + getattr(second, name))
    assert merged.compute() == scores([(1, 1), (2, 0), (0, 3), (3, 3), (1, 2)]).compute()


def test_scores_with_none_among_predictions_and_gold_by_hand() -> None:
    # Predicted relations: 3, of which 1 right; gold relations: 4.
    result = scores([(1, 1), (2, 0), (2, 3), (0, 4), (0, 5), (0, 0)]).compute()
    assert result == pytest.approx({"precision": 1 / 3, "recall": 1 / 4, "f1": 2 / 7, "accuracy": 2 / 6})


def test_a_correct_negative_row_only_counts_for_accuracy() -> None:
    nothing = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "accuracy": 1.0}
    assert scores([(0, 0), (0, 0)]).compute() == nothing
    assert scores([(2, 2), (2, 2)], labels=LABELS["middle"]).compute() == nothing
    assert scores([(0, 0), (0, 0)], labels=LABELS["no negative"]).compute()["f1"] == 1.0


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_without_rows_scores_are_zero_and_reset_clears_counts() -> None:
    empty = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "accuracy": 0.0}
    assert ClassScores(MNRE).compute() == empty
    metric = scores([(1, 1)])
    assert metric.compute()["f1"] == 1.0
    metric.reset()
    assert metric.compute() == empty


@every_set
@given(pairs=rows)
def test_counts_of_rows_add_up_to_the_micro_scores(labels: LabelSet, pairs: list[tuple[int, int]]) -> None:
    metric = scores(pairs, labels=labels)
    predicted, gold = (torch.tensor(column) for column in zip(*pairs, strict=True))
    for score in ClassScores.micro_scores():
        above, below = metric.row_parts(predicted, gold, score)
        assert above.shape == below.shape == (len(pairs),)
        assert float(above.sum() / max(1, below.sum())) == pytest.approx(metric.compute()[score])


def test_rows_with_many_labels_are_padded() -> None:
    assert label_tensor([3, 1, 2]).tolist() == [3, 1, 2]
    assert label_tensor([[3], [1, 2], []]).tolist() == [[3, -1], [1, 2], [-1, -1]]
