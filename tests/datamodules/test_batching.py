"""Batches of rows of similar length, in an order that seed and epoch decide."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from datamodules.batching import LengthBucketSampler


def sampler(lengths: list[int], shuffle: bool = True, seed: int = 1, epoch: int = 0, size: int = 4) -> list[list[int]]:
    return list(LengthBucketSampler(lengths, size, shuffle, seed, lambda: epoch))


LENGTHS = random.Random(0).choices(range(5, 61), k=503)


@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=400),
    size=st.integers(1, 17),
    shuffle=st.booleans(),
    epoch=st.integers(0, 5),
)
def test_every_row_comes_exactly_once_in_as_many_batches_as_promised(
    lengths: list[int], size: int, shuffle: bool, epoch: int
) -> None:
    batches = LengthBucketSampler(lengths, size, shuffle, 3, lambda: epoch)
    listed = list(batches)
    assert sorted(row for batch in listed for row in batch) == list(range(len(lengths)))
    assert len(listed) == len(batches)
    assert max(map(len, listed)) <= size


def test_the_order_is_that_of_seed_and_epoch() -> None:
    assert sampler(LENGTHS, seed=1, epoch=2) == sampler(LENGTHS, seed=1, epoch=2)
    assert sampler(LENGTHS, seed=1, epoch=2) != sampler(LENGTHS, seed=1, epoch=3)
    assert sampler(LENGTHS, seed=1, epoch=2) != sampler(LENGTHS, seed=2, epoch=2)


def test_global_randomness_has_no_say() -> None:
    random.seed(0)
    first = sampler(LENGTHS)
    random.seed(1)
    assert sampler(LENGTHS) == first


def test_two_epochs_put_rows_into_other_company() -> None:
    lengths = LENGTHS * 4  # more than one pool
    first, second = ({frozenset(batch) for batch in sampler(lengths, epoch=epoch)} for epoch in (0, 1))
    assert len(first & second) < 0.05 * len(first)


def test_short_batches_do_not_all_come_first() -> None:
    batches = sampler(LENGTHS, size=8)
    first_half = [row for batch in batches[: len(batches) // 2] for row in batch]
    mean = sum(LENGTHS[row] for row in first_half) / len(first_half)
    assert abs(mean - sum(LENGTHS) / len(LENGTHS)) < 6


def test_padding_is_small() -> None:
    padded = sum(max(LENGTHS[row] for row in batch) * len(batch) for batch in sampler(LENGTHS, size=16))
    assert padded < 1.08 * sum(LENGTHS)


def test_evaluation_goes_by_length_in_every_epoch() -> None:
    rows = [row for batch in sampler(LENGTHS, shuffle=False, epoch=0) for row in batch]
    assert [LENGTHS[row] for row in rows] == sorted(LENGTHS)
    assert sampler(LENGTHS, shuffle=False, epoch=0) == sampler(LENGTHS, shuffle=False, epoch=1, seed=9)


def test_an_epoch_is_asked_for_when_it_begins() -> None:
    epoch = 0
    batches = LengthBucketSampler(LENGTHS, 4, True, 1, lambda: epoch)
    first = list(batches)
    epoch = 1
    assert list(batches) != first
