"""Intervals and paired tests, compared with SciPy, enumeration and simulation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats

from mmib.base import resampling as statistics
from mmib.base.resampling import (
    Array,
    Bootstrap,
    PairedTest,
    approximate_randomisation,
    bootstrap,
    holm,
    mean_interval,
    paired_bootstrap,
    ratio,
    standard_error,
)
from mmib.datamodules.released import MNRE
from mmib.metrics import ClassScores

Parts = tuple[Array, Array]


def f1_parts(seed: int, rows: int, runs: int = 1, skill: float = 0.7) -> Parts:
    """Counts for F1 of runs that find a share of 0 to 3 gold items per row, with some false positives."""
    random = np.random.default_rng(seed)
    gold = np.broadcast_to(np.random.default_rng(0).integers(1, 4, size=rows), (runs, rows))
    correct = random.binomial(gold, skill)
    predicted = correct + random.binomial(2, 0.2, size=(runs, rows))
    return 2.0 * correct, (predicted + gold).astype(float)


def mean_parts(values: Array) -> Parts:
    """Counts for a score that is the mean of (S, N) values over rows."""
    return values, np.ones_like(values)


def randomise(first: Parts, second: Parts, resamples: int = statistics.RESAMPLES) -> PairedTest:
    return approximate_randomisation((first[0], second[0]), (first[1], second[1]), resamples)


def resample(first: Parts, second: Parts, resamples: int = statistics.RESAMPLES) -> PairedTest:
    """The paired bootstrap of two configurations with equally many runs."""
    runs = len(first[0])
    sample = bootstrap(np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]]), resamples)
    return paired_bootstrap(sample.of(range(runs)), sample.of(range(runs, 2 * runs)))


TESTS = {"bootstrap": resample, "randomisation": randomise}
each_test = pytest.mark.parametrize("test", TESTS.values(), ids=TESTS)


def test_the_standard_error_with_one_relation_per_row_matches_its_analytic_value() -> None:
    """If every row has one relation, F1 is 2 p / (1 + p) for the fraction p found (delta method)."""
    size, share = 2000, 0.7
    truth = torch.full((size,), 5)
    found = torch.where(torch.arange(size) < share * size, 5, 0)
    analytic = 2 / (1 + share) ** 2 * math.sqrt(share * (1 - share) / size)
    error, none = (
        standard_error(*(part.numpy() for part in ClassScores(MNRE).row_parts(predicted, truth, "f1")))
        for predicted in (found, truth)
    )
    assert error == pytest.approx(analytic, rel=0.1)
    assert none == 0


def test_the_bootstrap_samples_whole_posts() -> None:
    """Posts with many entities weigh more, and all entities of a post are sampled together."""
    gold = np.full(100, 10)
    assert standard_error(2 * np.array([10, 0] * 50), 2 * gold) == pytest.approx(0.05, rel=0.1)
    assert standard_error(2 * np.full(100, 5), 2 * gold) == 0


def test_a_ratio_with_zero_denominator_is_zero() -> None:
    assert ratio(np.array([0.0, 1.0]), np.array([0.0, 4.0])).tolist() == [0.0, 0.25]


def near(interval: tuple[float, float], low: float, high: float) -> bool:
    """Whether two percentile intervals agree within the error of 10,000 resamples, about 3 % of a standard error."""
    tolerance = 0.05 * (high - low)
    return abs(interval[0] - low) < tolerance and abs(interval[1] - high) < tolerance


def test_the_interval_of_one_seed_matches_scipy() -> None:
    above, below = f1_parts(1, 300)
    result = stats.bootstrap(
        (above[0], below[0]),
        lambda a, b, axis=-1: np.sum(a, axis=axis) / np.sum(b, axis=axis),
        paired=True,
        method="percentile",
        n_resamples=9999,
        rng=np.random.default_rng(5),
    )
    interval = mean_interval(bootstrap(above, below))
    assert interval.mean == pytest.approx(above.sum() / below.sum())
    assert near(interval[1:], *result.confidence_interval)


def test_the_paired_interval_of_one_seed_matches_scipy() -> None:
    first, second = f1_parts(1, 300), f1_parts(2, 300, skill=0.75)

    def difference(a: Array, b: Array, c: Array, d: Array, axis: int = -1) -> Array:
        sums = [np.sum(part, axis=axis) for part in (a, b, c, d)]
        return np.asarray(sums[0] / sums[1] - sums[2] / sums[3])

    result = stats.bootstrap(
        (first[0][0], first[1][0], second[0][0], second[1][0]),
        difference,
        paired=True,
        method="percentile",
        n_resamples=9999,
        rng=np.random.default_rng(5),
    )
    ours = resample(first, second)
    assert near((ours.low, ours.high), *result.confidence_interval)
    # p is the level at which the interval touches zero: close to that of a normal distribution of the same width.
    assert ours.p == pytest.approx(2 * stats.norm.sf(abs(ours.difference) / result.standard_error), abs=0.03)


def test_randomisation_of_one_seed_matches_scipys_permutation_test() -> None:
    rows = 10
    first, second = f1_parts(1, rows), f1_parts(6, rows, skill=0.4)
    above, below = (np.concatenate([first[part][0], second[part][0]]) for part in (0, 1))

    def difference(ours: Array, theirs: Array, axis: int = -1) -> Array:
        codes = [side.astype(int) for side in (ours, theirs)]
        scores = [above[code].sum(axis=axis) / below[code].sum(axis=axis) for code in codes]
        return np.asarray(scores[0] - scores[1])

    exact = stats.permutation_test(
        (np.arange(rows), np.arange(rows) + rows), difference, permutation_type="samples", n_resamples=np.inf
    )
    found = randomise(first, second)
    assert found.difference == pytest.approx(exact.statistic)
    assert 0.02 < exact.pvalue < 0.5
    assert found.p == pytest.approx(exact.pvalue, abs=4 * math.sqrt(exact.pvalue / statistics.RESAMPLES))


def test_randomisation_swaps_a_row_in_all_seeds_together() -> None:
    """Compared with all 2^8 swaps of 8 rows, 3 seeds."""
    rows = 8
    first, second = f1_parts(1, rows, runs=3), f1_parts(2, rows, runs=3, skill=0.3)

    def difference(swaps: Array) -> float:
        found = [np.where(swaps, second[part], first[part]).sum(axis=1) for part in (0, 1)]
        other = [np.where(swaps, first[part], second[part]).sum(axis=1) for part in (0, 1)]
        return float((found[0] / found[1] - other[0] / other[1]).mean())

    observed = difference(np.zeros(rows, dtype=bool))
    all_swaps = [abs(difference(np.array(swaps))) for swaps in itertools.product([False, True], repeat=rows)]
    exact = np.mean(np.array(all_swaps) >= abs(observed) - 1e-12)
    found = randomise(first, second)
    assert found.difference == pytest.approx(observed)
    assert found.p == pytest.approx(exact, abs=4 * math.sqrt(exact / statistics.RESAMPLES))
    assert found.high - found.difference == pytest.approx(np.quantile(all_swaps, 0.95), rel=0.05)


@each_test
def test_a_configuration_against_itself_has_p_of_one(test: Callable[..., PairedTest]) -> None:
    parts = f1_parts(1, 50, runs=3)
    assert test(parts, parts) == PairedTest(0.0, 0.0, 0.0, 1.0)


@each_test
def test_p_is_never_zero(test: Callable[..., PairedTest]) -> None:
    right, wrong = mean_parts(np.ones((1, 200))), mean_parts(np.zeros((1, 200)))
    smallest = {resample: 2, randomise: 1}[test] / 1000
    assert test(right, wrong, 999).p == pytest.approx(smallest)
    assert test(right, wrong, 999).difference == 1


@each_test
def test_exchanging_two_configurations_mirrors_the_difference(test: Callable[..., PairedTest]) -> None:
    first, second = f1_parts(1, 200), f1_parts(2, 200)
    there, back = test(first, second), test(second, first)
    assert back.difference == -there.difference
    assert (back.low, back.high, back.p) == pytest.approx((-there.high, -there.low, there.p))


@each_test
def test_the_order_of_rows_only_has_the_effect_of_resampling(test: Callable[..., PairedTest]) -> None:
    first, second = f1_parts(1, 300, runs=3), f1_parts(2, 300, runs=3)
    order = np.random.default_rng(9).permutation(300)
    shuffled = [(above[:, order], below[:, order]) for above, below in (first, second)]
    straight, mixed = test(first, second), test(*shuffled)
    assert mixed.difference == pytest.approx(straight.difference, abs=1e-12)
    assert near((mixed.low, mixed.high), straight.low, straight.high)
    assert mixed.p == pytest.approx(straight.p, abs=0.03)


def test_without_variation_of_rows_the_interval_is_students_t() -> None:
    """All rows have the same score, so only seeds vary."""
    scores = np.array([0.80, 0.82, 0.87, 0.83])
    interval = mean_interval(bootstrap(*mean_parts(np.tile(scores[:, None], 30)), 100_000))
    low, high = stats.t.interval(0.95, 3, loc=scores.mean(), scale=stats.sem(scores))
    assert interval.mean == pytest.approx(scores.mean())
    assert near(interval[1:], low, high)


def test_the_standard_error_of_one_seed_is_that_of_the_rows() -> None:
    sample = bootstrap(*f1_parts(1, 200, runs=3))
    alone = mean_interval(sample.of([1]))
    assert [alone.low, alone.high] == np.quantile(sample.resampled[:, 1], [0.025, 0.975]).tolist()


def simulated(random: np.random.Generator, spread: tuple[float, float, float], seeds: int, rows: int = 100) -> Array:
    """(S, N) values with true mean zero: variation over rows (shared by all seeds), over seeds, and of each value."""
    of_rows, of_seeds = random.normal(0, spread[0], rows), random.normal(0, spread[1], (seeds, 1))
    return of_rows + of_seeds + random.normal(0, spread[2], (seeds, rows))


SPREADS = {"rows": (1.0, 0.0, 0.3), "both": (1.0, 0.1, 0.3), "seeds": (0.1, 0.2, 0.1)}
TRIALS = 200


@pytest.mark.parametrize("spread", SPREADS.values(), ids=SPREADS)
def test_the_interval_covers_the_true_mean(spread: tuple[float, float, float]) -> None:
    """With three seeds, in at least 95 % of trials; resampling the seeds would cover 75 % if they vary."""
    random = np.random.default_rng(1)
    hits = 0
    for _ in range(TRIALS):
        _, low, high = mean_interval(bootstrap(*mean_parts(simulated(random, spread, 3, rows=50)), 2000))
        hits += low <= 0 <= high
    assert hits / TRIALS > 0.95 - 2.5 * math.sqrt(0.95 * 0.05 / TRIALS)


def p_values(test: Callable[..., PairedTest], spread: tuple[float, float, float], seeds: int) -> Array:
    """p-values for pairs of configurations without a difference."""
    random = np.random.default_rng(2)
    pairs = ([mean_parts(simulated(random, spread, seeds)) for _ in range(2)] for _ in range(TRIALS))
    return np.array([test(*pair, 500).p for pair in pairs])


@each_test
def test_p_is_uniform_for_one_seed_without_a_difference(test: Callable[..., PairedTest]) -> None:
    assert stats.kstest(p_values(test, (1.0, 0.0, 1.0), 1), "uniform").pvalue > 0.05


def test_p_is_uniform_for_seeds_swapped_by_row_without_a_difference() -> None:
    assert stats.kstest(p_values(randomise, (1.0, 0.0, 1.0), 3), "uniform").pvalue > 0.05


def test_the_bootstrap_accounts_for_variation_of_seeds_and_randomisation_does_not() -> None:
    """No true difference, but seeds vary much more than rows, which only the bootstrap takes into account."""
    false_alarms = [(p_values(test, SPREADS["seeds"], 3) < 0.05).mean() for test in (resample, randomise)]
    assert false_alarms[0] < 0.08
    assert false_alarms[1] > 0.5


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.4, 0.9, 0.8]) == pytest.approx([1.0, 1.0, 1.0])
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@each_test
def test_resamples_do_not_depend_on_the_available_memory(
    test: Callable[..., PairedTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = f1_parts(1, 21, runs=2), f1_parts(2, 21, runs=2)
    whole = test(first, second, 150)
    monkeypatch.setattr(statistics, "CHUNK", 21 * 7)
    assert test(first, second, 150) == whole


def test_runs_are_selected_from_a_bootstrap_in_the_requested_order() -> None:
    sample = Bootstrap(np.array([1.0, 2.0, 3.0]), np.arange(6.0).reshape(2, 3))
    assert sample.of([2, 0]).scores.tolist() == [3.0, 1.0]
    assert sample.of([2, 0]).resampled.tolist() == [[2.0, 0.0], [5.0, 3.0]]
