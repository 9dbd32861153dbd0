"""Batches of rows of similar length, in an order determined by seed and epoch, and shared out among ranks."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmib.datamodules.batching import GlobalBatchSampler, RowSize, Share
from mmib.schema import Window


def sizes_of(lengths: Sequence[int]) -> list[RowSize]:
    """Sizes of rows with these lengths; some have no image."""
    return [RowSize(length, number * 7 % 4) for number, length in enumerate(lengths)]


def sampler(lengths: list[int], shuffle: bool = True, seed: int = 1, epoch: int = 0, size: int = 4) -> list[list[int]]:
    return [share.rows for share in GlobalBatchSampler(sizes_of(lengths), size, shuffle, seed, lambda: epoch)]


LENGTHS = random.Random(0).choices(range(5, 61), k=503)


@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=400),
    size=st.integers(1, 17),
    shuffle=st.booleans(),
    epoch=st.integers(0, 5),
)
def test_every_row_occurs_exactly_once_in_the_promised_number_of_batches(
    lengths: list[int], size: int, shuffle: bool, epoch: int
) -> None:
    batches = GlobalBatchSampler(sizes_of(lengths), size, shuffle, 3, lambda: epoch)
    listed = [share.rows for share in batches]
    assert sorted(row for batch in listed for row in batch) == list(range(len(lengths)))
    assert len(listed) == len(batches)
    assert max(map(len, listed)) <= size


def test_the_order_depends_on_seed_and_epoch() -> None:
    assert sampler(LENGTHS, seed=1, epoch=2) == sampler(LENGTHS, seed=1, epoch=2)
    assert sampler(LENGTHS, seed=1, epoch=2) != sampler(LENGTHS, seed=1, epoch=3)
    assert sampler(LENGTHS, seed=1, epoch=2) != sampler(LENGTHS, seed=2, epoch=2)


def test_the_order_is_independent_of_the_global_random_state() -> None:
    random.seed(0)
    first = sampler(LENGTHS)
    random.seed(1)
    assert sampler(LENGTHS) == first


def test_batches_differ_between_epochs() -> None:
    lengths = LENGTHS * 4  # more than one pool
    first, second = ({frozenset(batch) for batch in sampler(lengths, epoch=epoch)} for epoch in (0, 1))
    assert len(first & second) < 0.05 * len(first)


def test_short_batches_do_not_all_come_first() -> None:
    batches = sampler(LENGTHS, size=8)
    first_half = [row for batch in batches[: len(batches) // 2] for row in batch]
    mean = sum(LENGTHS[row] for row in first_half) / len(first_half)
    assert abs(mean - sum(LENGTHS) / len(LENGTHS)) < 6


def test_there_is_little_padding() -> None:
    padded = sum(max(LENGTHS[row] for row in batch) * len(batch) for batch in sampler(LENGTHS, size=16))
    assert padded < 1.08 * sum(LENGTHS)


def test_evaluation_is_ordered_by_length_in_every_epoch() -> None:
    rows = [row for batch in sampler(LENGTHS, shuffle=False, epoch=0) for row in batch]
    assert [LENGTHS[row] for row in rows] == sorted(LENGTHS)
    assert sampler(LENGTHS, shuffle=False, epoch=0) == sampler(LENGTHS, shuffle=False, epoch=1, seed=9)


def test_the_epoch_is_queried_when_iteration_begins() -> None:
    epoch = 0
    batches = GlobalBatchSampler(sizes_of(LENGTHS), 4, True, 1, lambda: epoch)
    first = list(batches)
    epoch = 1
    second = list(batches)
    assert [share.rows for share in second] != [share.rows for share in first]
    assert {share.epoch for share in first} == {0}
    assert {share.epoch for share in second} == {1}


# Shares of ranks

row_sizes = st.lists(st.builds(RowSize, st.integers(1, 60), st.integers(0, 5)), min_size=1, max_size=150)


def shares(sizes: list[RowSize], ranks: int, size: int = 8, accumulate: int = 1) -> list[tuple[Share, ...]]:
    """The shares of all ranks for each global batch."""
    sampled = [
        list(GlobalBatchSampler(sizes, size, True, 3, lambda: 2, ranks, rank, lambda: accumulate))
        for rank in range(ranks)
    ]
    assert len({len(listed) for listed in sampled}) == 1, "every rank has as many batches"
    return list(zip(*sampled, strict=True))


@given(sizes=row_sizes, ranks=st.integers(1, 4), size=st.integers(1, 12), accumulate=st.integers(1, 3))
def test_the_shares_of_all_ranks_equal_the_batch_of_one_process_in_order_plus_padding(
    sizes: list[RowSize], ranks: int, size: int, accumulate: int
) -> None:
    alone = shares(sizes, 1, size, accumulate)
    together = shares(sizes, ranks, size, accumulate)
    assert len(alone) == len(together) == math.ceil(len(sizes) / size)
    for (whole,), parts in zip(alone, together, strict=True):
        assert whole.padding == 0
        assert {len(part.rows) for part in parts} == {math.ceil(len(whole.rows) / ranks)}
        valid = [part.rows[: len(part.rows) - part.padding] for part in parts]
        assert list(itertools.chain(*valid)) == whole.rows
        filled = [part.padding > 0 for part in parts]
        assert filled == sorted(filled), "no valid row comes after a padding row"
        assert all(row in whole.rows for part in parts for row in part.rows), (
            "padding rows are no larger than the batch"
        )
        for part in parts:
            assert (part.size, part.window, part.epoch) == (whole.size, whole.window, 2)


def test_with_fewer_rows_than_ranks_some_ranks_get_only_padding() -> None:
    (parts,) = shares(sizes_of([5, 9]), ranks=4)
    assert [(len(part.rows), part.padding) for part in parts] == [(1, 0), (1, 0), (1, 1), (1, 1)]


@given(sizes=row_sizes, ranks=st.integers(1, 4))
def test_all_ranks_pad_to_the_largest_row_of_the_batch(sizes: list[RowSize], ranks: int) -> None:
    for parts in shares(sizes, ranks):
        rows = [sizes[row] for part in parts for row in part.rows]
        largest = RowSize(max(size.pieces for size in rows), max(size.regions for size in rows))
        assert {part.size for part in parts} == {largest}


# Accumulated gradients


def counts(sizes: list[RowSize], rows: Sequence[int]) -> Window:
    """Posts, tokens, regions and images of the given rows."""
    chosen = [sizes[row] for row in rows]
    images = sum(size.regions > 0 for size in chosen)
    return Window(len(chosen), sum(size.pieces for size in chosen), sum(size.regions for size in chosen), images)


@given(sizes=row_sizes, accumulate=st.integers(1, 5), data=st.data())
def test_the_average_of_weighted_means_over_a_step_is_the_mean_over_the_step(
    sizes: list[RowSize], accumulate: int, data: st.DataObject
) -> None:
    """The last step of an epoch may have fewer batches, but Lightning always divides by `accumulate`."""
    if accumulate == 1:
        assert {share.window for (share,) in shares(sizes, 1)} == {Window()}
        return
    values = data.draw(st.lists(st.integers(-9, 9), min_size=len(sizes), max_size=len(sizes)))
    batches = [share for (share,) in shares(sizes, 1, accumulate=accumulate)]
    for start in range(0, len(batches), accumulate):
        step = batches[start : start + accumulate]
        step_rows = [row for share in step for row in share.rows]
        for place, total in enumerate(counts(sizes, step_rows)):

            def mean(rows: Sequence[int], place: int = place) -> float:
                """The mean of a value that each post, token, region or image of a row has."""
                weights = [counts(sizes, [row])[place] for row in rows]
                return sum(w * values[row] for w, row in zip(weights, rows, strict=True)) / max(1, sum(weights))

            average = sum(share.window[place] * mean(share.rows) for share in step) / accumulate
            assert average == pytest.approx(mean(step_rows), rel=1e-9, abs=1e-9)
            if total == 0:
                assert {share.window[place] for share in step} == {0.0}


def test_windows_of_a_full_and_of_an_incomplete_step_by_hand() -> None:
    sizes = [RowSize(2, 0), RowSize(2, 3), RowSize(4, 0), RowSize(4, 1), RowSize(6, 2)]
    batches = list(GlobalBatchSampler(sizes, 2, False, 1, accumulate=lambda: 2))
    assert [share.rows for share in batches] == [[0, 1], [2, 3], [4]]
    assert [share.window for share in batches] == [
        Window(posts=1.0, tokens=4 / 6, regions=3 / 2, images=1.0),
        Window(posts=1.0, tokens=8 / 6, regions=1 / 2, images=1.0),
        Window(posts=2.0, tokens=2.0, regions=2.0, images=2.0),
    ]


def test_the_number_of_accumulated_batches_is_queried_when_an_epoch_begins() -> None:
    """Lightning's GradientAccumulationScheduler changes it by epoch."""
    steps = 1
    batches = GlobalBatchSampler(sizes_of(LENGTHS), 4, True, 1, accumulate=lambda: steps)
    assert {share.window for share in batches} == {Window()}
    steps = 2
    assert len({share.window for share in batches}) > 10


# A budget of word pieces


def budgeted(sizes: list[RowSize], budget: int, epoch: int = 0, size: int = 9, **options: Any) -> list[Share]:
    return list(
        GlobalBatchSampler(
            sizes, size, **{"shuffle": True, "seed": 3, "epoch": lambda: epoch, **options}, max_tokens=budget
        )
    )


def padded(share: Share) -> int:
    return len(share.rows) * share.size.pieces


@given(sizes=row_sizes, budget=st.integers(1, 300), size=st.integers(1, 12), shuffle=st.booleans())
def test_batches_exceed_the_word_piece_budget_only_for_a_single_long_row(
    sizes: list[RowSize], budget: int, size: int, shuffle: bool
) -> None:
    batches = GlobalBatchSampler(sizes, size, shuffle, 3, max_tokens=budget)
    listed = list(batches)
    assert sorted(row for share in listed for row in share.rows) == list(range(len(sizes)))
    assert len(batches) == len(listed)
    for share in listed:
        assert len(share.rows) <= size
        assert padded(share) <= budget or len(share.rows) == 1


@given(sizes=row_sizes, budget=st.integers(20, 300), epoch=st.integers(1, 50))
def test_every_epoch_has_the_same_number_of_batches_within_a_budget(
    sizes: list[RowSize], budget: int, epoch: int
) -> None:
    """Lightning asks once, and plans steps and schedules accordingly."""
    assert len(budgeted(sizes, budget, epoch)) == len(budgeted(sizes, budget, 0))


@given(sizes=row_sizes, ranks=st.integers(2, 4), budget=st.integers(60, 300), accumulate=st.integers(1, 3))
def test_batches_within_a_budget_do_not_depend_on_the_number_of_ranks(
    sizes: list[RowSize], ranks: int, budget: int, accumulate: int
) -> None:
    alone = budgeted(sizes, budget, accumulate=lambda: accumulate)
    shared = [budgeted(sizes, budget, ranks=ranks, rank=rank, accumulate=lambda: accumulate) for rank in range(ranks)]
    for whole, *parts in zip(alone, *shared, strict=True):
        assert [row for part in parts for row in part.rows[: len(part.rows) - part.padding]] == whole.rows
        assert {len(part.rows) for part in parts} == {math.ceil(len(whole.rows) / ranks)}
        assert {(part.size, part.window) for part in parts} == {(whole.size, whole.window)}


def test_batches_within_a_budget_can_resume_mid_epoch() -> None:
    batches = GlobalBatchSampler(sizes_of(LENGTHS), 64, True, 1, lambda: 3, max_tokens=512)
    whole = list(batches)
    batches.start = 7
    assert list(batches) == whole[7:]


def test_the_budget_is_used_with_little_padding() -> None:
    shares_of_budget = budgeted(sizes_of(LENGTHS * 4), budget=600, size=100)
    pieces = sum(LENGTHS) * 4
    assert sum(map(padded, shares_of_budget)) < 1.1 * pieces
    assert len(shares_of_budget) < 1.25 * pieces / 600


def test_batches_within_a_budget_differ_between_epochs() -> None:
    first, second = (
        {frozenset(share.rows) for share in budgeted(sizes_of(LENGTHS * 4), 400, epoch)} for epoch in (0, 1)
    )
    assert len(first & second) < 0.05 * len(first)


def test_evaluation_within_a_budget_is_ordered_by_length() -> None:
    rows = [row for share in budgeted(sizes_of(LENGTHS), 400, shuffle=False) for row in share.rows]
    assert [LENGTHS[row] for row in rows] == sorted(LENGTHS)


# Resuming


@given(sizes=row_sizes, ranks=st.integers(1, 3), accumulate=st.integers(1, 3), data=st.data())
def test_start_skips_the_first_batches_of_one_epoch_only(
    sizes: list[RowSize], ranks: int, accumulate: int, data: st.DataObject
) -> None:
    batches = GlobalBatchSampler(sizes, 8, True, 3, lambda: 2, ranks, ranks - 1, lambda: accumulate)
    whole = list(batches)
    batches.start = data.draw(st.integers(0, len(whole)))
    expected = whole[batches.start :]
    assert len(batches) == len(whole), "an epoch is as long as ever"
    assert list(batches) == expected
    assert list(batches) == whole
