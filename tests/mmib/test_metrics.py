"""The metrics, against scikit-learn and seqeval, and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import classification_report, f1_score
from seqeval.scheme import IOB2
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from mmib.metrics import EntityScores, RelationScores, Scores
from mmib.schema import ENTITY_TYPES, NO_TAG, RELATIONS, TAG_IDS, TAGS

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
def test_scores_of_each_relation_are_those_of_scikit_learn(rows: list[tuple[int, int]]) -> None:
    predicted, gold = zip(*rows, strict=True)
    table = scores(rows).per_class()
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
    for name in merged.metric_state:
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


@given(pairs=rows)
def test_parts_of_rows_add_up_to_the_micro_scores(pairs: list[tuple[int, int]]) -> None:
    metric = scores(pairs)
    predicted, gold = (torch.tensor(column) for column in zip(*pairs, strict=True))
    for score in RelationScores.micro_scores():
        above, below = metric.row_parts(predicted, gold, score)
        assert float(above.sum() / max(1, below.sum())) == pytest.approx(metric.compute()[score])


def test_scores_from_counts_are_zero_where_undefined() -> None:
    assert Scores.from_counts(0, 0, 5) == Scores(0.0, 0.0, 0.0)
    assert Scores.from_counts(0, 5, 0) == Scores(0.0, 0.0, 0.0)
    assert Scores.from_counts(2, 4, 8) == Scores(0.5, 0.25, pytest.approx(1 / 3))


# Posts of (predicted, gold) tags of each word; few tags, so that entities are found and stray I- are common.
few_tags = st.one_of(st.sampled_from(TAGS[:4]), st.sampled_from(TAGS))
tagged_posts = st.lists(st.lists(st.tuples(few_tags, few_tags), max_size=8), min_size=1, max_size=8)
TaggedPost = list[tuple[str, str]]


def entity_scores(*batches: list[TaggedPost], padding: int = 0, garbage: int = 0) -> EntityScores:
    """The metric after batches of posts, each padded to its longest and some more words."""
    metric = EntityScores()
    for batch in batches:
        shape = len(batch), max(map(len, batch), default=0) + padding
        predicted, gold = torch.full(shape, garbage), torch.full(shape, NO_TAG)
        for row, post in enumerate(batch):
            for word, (own, true) in enumerate(post):
                predicted[row, word], gold[row, word] = TAG_IDS[own], TAG_IDS[true]
        metric.update(predicted, gold)
    return metric


def columns(posts: list[TaggedPost]) -> tuple[list[list[str]], list[list[str]]]:
    """Gold and predicted tags in seqeval's form."""
    return [[gold for _, gold in post] for post in posts], [[predicted for predicted, _ in post] for post in posts]


def report(posts: list[TaggedPost], **options: Any) -> dict[str, dict[str, float]]:
    """seqeval's own report."""
    gold, predicted = columns(posts)
    return classification_report(gold, predicted, output_dict=True, zero_division=0, **options)


# seqeval takes the macro average of nothing, NaN, where there is no entity; ours is 0.
@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value encountered")
@settings(deadline=None, max_examples=300)
@given(posts=tagged_posts)
def test_entity_scores_are_those_of_seqeval(posts: list[TaggedPost]) -> None:
    """Defect 29: the macro average of a printed report passed as micro F1."""
    metric = entity_scores(posts)
    default, strict = report(posts), report(posts, mode="strict", scheme=IOB2)
    words = [pair for post in posts for pair in post]
    expected = {"f1_macro": float(np.nan_to_num(default["macro avg"]["f1-score"]))}
    for prefix, found in (("", default), ("strict_", strict)):
        for name in ("precision", "recall", "f1"):
            expected[prefix + name] = found["micro avg"]["f1-score" if name == "f1" else name]
    expected["accuracy"] = sum(own == true for own, true in words) / max(1, len(words))
    assert metric.compute() == pytest.approx(expected)
    assert metric.compute()["f1"] == pytest.approx(f1_score(*columns(posts), zero_division=0))
    table = {
        name: {"precision": row["precision"], "recall": row["recall"], "f1": row["f1-score"], "gold": row["support"]}
        for name, row in default.items()
        if name in ENTITY_TYPES
    }
    assert set(metric.per_class()) == set(table)
    for name, row in metric.per_class().items():
        assert row == pytest.approx(table[name])


@settings(deadline=None, max_examples=60)
@given(
    batches=st.lists(tagged_posts, min_size=1, max_size=4),
    padding=st.integers(0, 3),
    garbage=st.sampled_from([NO_TAG, 0, 8]),
)
def test_entity_counts_add_up_over_unequal_batches_whatever_the_padding(
    batches: list[list[TaggedPost]], padding: int, garbage: int
) -> None:
    parts = entity_scores(*batches, padding=padding, garbage=garbage)
    together = entity_scores([post for batch in batches for post in batch])
    assert parts.compute() == together.compute()
    assert parts.per_class() == together.per_class()


@settings(deadline=None, max_examples=60)
@given(posts=tagged_posts)
def test_parts_of_posts_add_up_to_the_micro_scores(posts: list[TaggedPost]) -> None:
    metric = entity_scores(posts)
    batches = [[torch.tensor([[TAG_IDS[pair[side]] for pair in post]]).long() for side in (0, 1)] for post in posts]
    for score in EntityScores.micro_scores():
        above, below = (
            sum(values) for values in zip(*(metric.row_parts(*batch, score) for batch in batches), strict=True)
        )
        assert float(above / max(1, below)) == pytest.approx(metric.compute()[score])


def test_entities_by_hand_with_stray_inside_tags() -> None:
    # Gold by default PER (0-1), LOC (2); strict PER only. Predicted PER (0-1), LOC (2) in both readings.
    stray = [("B-PER", "B-PER"), ("I-PER", "I-PER"), ("B-LOC", "I-LOC")]
    # An entity ends with its post: the next one starts with an entity of its own, by default.
    following = [("O", "I-LOC"), ("O", "O")]
    scores_by_hand = {
        **{"precision": 1.0, "recall": 2 / 3, "f1": 4 / 5, "f1_macro": (1 + 2 / 3) / 2},
        **{"strict_precision": 1 / 2, "strict_recall": 1.0, "strict_f1": 2 / 3, "accuracy": 3 / 5},
    }
    assert entity_scores([stray, following]).compute() == pytest.approx(scores_by_hand)


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_no_entity_no_word_and_no_post_give_zero() -> None:
    for metric in (EntityScores(), entity_scores([]), entity_scores([[], []]), entity_scores([[("O", "O")]])):
        result = metric.compute()
        assert result.pop("accuracy") == float(metric.labels > 0)
        assert set(result.values()) == {0.0}
        assert metric.per_class() == {}


def test_predictions_where_gold_has_no_entity_cost_precision() -> None:
    metric = entity_scores([[("B-PER", "O")], [("B-LOC", "B-LOC")]])
    assert metric.compute()["precision"] == 0.5
    assert metric.per_class()["PER"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "gold": 0}
