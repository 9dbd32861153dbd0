"""Subsets of the training rows: label counts, reproducibility, and refusals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmib.datamodules.subset import TrainingSubset
from mmib.schema import ConfigError

LABELS = [("a",)] * 60 + [("b",)] * 25 + [("c",)] * 10 + [()] * 5


def chosen(labels: Sequence[tuple[str, ...]], **options: Any) -> list[int]:
    return list(TrainingSubset(**options).choose(labels).tolist())


@given(
    st.lists(st.lists(st.sampled_from("abcde"), max_size=3, unique=True).map(tuple), min_size=1, max_size=80),
    st.data(),
)
def test_sizes_are_exact_and_strata_are_proportional_up_to_one_row(
    labels: list[tuple[str, ...]], data: st.DataObject
) -> None:
    size = data.draw(st.integers(1, len(labels)))
    rows = chosen(labels, rows=size)
    assert len(rows) == len(set(rows)) == size, "without replacement"
    assert rows == sorted(rows)
    frequency = Counter(label for row in labels for label in row)
    rarest = [min(row, key=lambda label: (frequency[label], label), default="") for row in labels]
    for name, count in Counter(rarest).items():
        assert abs(sum(rarest[row] == name for row in rows) - size * count / len(labels)) < 1


def test_leftover_rows_go_to_the_largest_remainders() -> None:
    """Of 100 rows 33: 19.8, 8.25, 3.3 and 1.65 become 20, 8, 3 and 2."""
    names = Counter("".join(LABELS[row]) for row in chosen(LABELS, rows=33))
    assert names == {"a": 20, "b": 8, "c": 3, "": 2}
    assert len(chosen(LABELS, share=0.125)) == 12
    assert len(chosen(LABELS, share=1e-9)) == 1


def test_posts_of_several_labels_count_for_the_rarest() -> None:
    labels = [("a",)] * 80 + [("a", "b")] * 20
    assert sum(row >= 80 for row in chosen(labels, rows=10)) == 2


def test_subsets_depend_only_on_seed_and_data() -> None:
    first = chosen(LABELS, share=0.2)
    np.random.seed(7)  # the global random state has no effect
    assert chosen(LABELS, share=0.2) == chosen(LABELS, rows=20) == first
    assert chosen(LABELS, share=0.2, seed=1) != first
    assert chosen(LABELS, rows=len(LABELS)) == list(range(len(LABELS)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0.0}, "train_share is 0.0: it is a share of the training rows, above 0 and at most 1"),
        ({"share": 1.5}, "train_share is 1.5: "),
        ({"share": -0.1}, "train_share is -0.1: "),
        ({"share": float("nan")}, "train_share is nan: "),
        ({"rows": 0}, "train_rows is 0: at least one row is needed"),
        ({"share": 0.5, "rows": 10}, "train_share is 0.5 and train_rows 10: give one of the two"),
        ({"rows": 101}, "train_rows is 101, and the training split has 100 rows: lower it"),
    ],
)
def test_impossible_subsets_are_refused_in_one_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        chosen(LABELS, **options)


@pytest.mark.parametrize(("options", "whole"), [({}, True), ({"share": 1.0}, True), ({"rows": 100}, False)])
def test_by_default_all_rows_are_trained_on(options: dict[str, Any], whole: bool) -> None:
    assert TrainingSubset(**options).is_whole is whole
