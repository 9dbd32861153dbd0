"""Confidence intervals and paired tests of scores, over seeds and test rows.

Shapes: S runs (seeds) of a configuration, N test rows, M resamples. A score is a ratio of sums over rows, such as
micro-F1 = sum of 2 correct / sum of (predicted + gold), and is given by each row's part of the numerator and of the
denominator in each run, (S, N) each. All randomness is seeded, so that results are reproducible. Scores, differences
and intervals are fractions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RESAMPLES = 10_000
LEVEL = 0.95
CHUNK = 2_000_000  # numbers sampled at a time
TIE = 1e-12  # differences that are equal in exact arithmetic


class Bootstrap(NamedTuple):
    """Scores of S runs, and the same scores on resampled rows.

    Attributes:
        scores: (S,) scores on the original rows.
        resampled: (M, S) scores on the rows of each resample, which are the same for all runs.
    """

    scores: Array
    resampled: Array

    def of(self, runs: Sequence[int]) -> Bootstrap:
        """Return the bootstrap of these runs, in this order."""
        return Bootstrap(self.scores[list(runs)], self.resampled[:, list(runs)])


class Interval(NamedTuple):
    """A mean over seeds and its 95 % interval."""

    mean: float
    low: float
    high: float


class PairedTest(NamedTuple):
    """The difference of two configurations, its 95 % interval, and the two-sided p-value of no difference."""

    difference: float
    low: float
    high: float
    p: float


def ratio(above: Array, below: Array) -> Array:
    """Divide numerators by denominators; 0 where a denominator is 0."""
    return np.divide(above, below, out=np.zeros(np.shape(below)), where=np.asarray(below) > 0)


def bootstrap(above: Array, below: Array, resamples: int = RESAMPLES) -> Bootstrap:
    """Score runs on M resamples of N rows with replacement (Efron & Tibshirani 1993, chapter 6).

    A resample has the same rows in every run, so that differences of runs are paired by row.

    Args:
        above: (S, N) parts of the numerator.
        below: (S, N) parts of the denominator.
        resamples: number M of resamples.
    """
    runs, rows = above.shape
    columns = np.concatenate([above, below]).T.astype(np.float64)
    random = np.random.default_rng(0)
    sums = np.concatenate([_row_counts(random, size, rows) @ columns for size in _chunks(resamples, rows)])
    return Bootstrap(ratio(above.sum(axis=1), below.sum(axis=1)), ratio(sums[:, :runs], sums[:, runs:]))


def _row_counts(random: np.random.Generator, size: int, rows: int) -> Array:
    """Return how often each of N rows is in each of a number of samples with replacement, (size, N)."""
    chosen = random.integers(rows, size=(size, rows)) + rows * np.arange(size)[:, None]
    return np.bincount(chosen.ravel(), minlength=size * rows).reshape(size, rows).astype(np.float64)


def standard_error(above: Array, below: Array, resamples: int = 1000) -> float:
    """Return the bootstrap standard error of a run's score, from the (N,) parts of its numerator and denominator."""
    return float(bootstrap(above[None], below[None], resamples).resampled.std(ddof=1))


def mean_interval(sample: Bootstrap) -> Interval:
    """Return the mean over seeds with a 95 % percentile interval over test rows and seeds; see `_means`.

    With one seed the interval covers only the sampling of test rows, not the variation between trainings. With two or
    three seeds that disagree it may exceed the range of a score, and is clipped to 0 and 1.
    """
    low, high = _percentiles(_means(sample))
    return Interval(float(sample.scores.mean()), max(0.0, low), min(1.0, high))


def paired_bootstrap(first: Bootstrap, second: Bootstrap) -> PairedTest:
    """Paired bootstrap of first minus second, with runs paired by seed, and resamples of the same rows.

    The p-value is the level at which the percentile interval just touches zero, at least 2 / (M + 1). Sources: Efron &
    Tibshirani 1993, chapters 15 and 16; Berg-Kirkpatrick, Burkett & Klein 2012 for test sets of language processing;
    Phipson & Smyth 2010 for the added one.
    """
    sample = Bootstrap(first.scores - second.scores, first.resampled - second.resampled)
    means = _means(sample)
    tail = min((means <= TIE).sum(), (means >= -TIE).sum())
    p = min(1.0, 2 * (1 + int(tail)) / (1 + len(means)))
    return PairedTest(float(sample.scores.mean()), *_percentiles(means), p)


def approximate_randomisation(
    above: tuple[Array, Array], below: tuple[Array, Array], resamples: int = RESAMPLES
) -> PairedTest:
    """Test two configurations by swapping their outputs on random rows, in all seeds at once.

    The null hypothesis is that the outputs on each row are exchangeable between the configurations. The seeds are
    fixed, so that the test covers these trained models, but not the variation between trainings. p = (1 + resamples
    whose difference is at least as large) / (1 + M). Sources: Noreen 1989; Yeh 2000 for F1; Phipson & Smyth 2010 for
    the added one. The interval contains the differences that would not be rejected at 5 % if the distribution of
    swapped differences around each of them were that around zero.

    Args:
        above: (S, N) parts of the numerator, of the first configuration and of the second, paired by seed.
        below: (S, N) parts of the denominator, likewise.
        resamples: number M of resamples.
    """
    runs, rows = above[0].shape
    columns = np.concatenate([above[1] - above[0], below[1] - below[0]]).T.astype(np.float64)
    random = np.random.default_rng(0)
    moved = np.concatenate(
        [random.integers(2, size=(size, rows)).astype(np.float64) @ columns for size in _chunks(resamples, rows)]
    )
    ours, theirs = (
        ratio(above[side].sum(axis=1) + sign * moved[:, :runs], below[side].sum(axis=1) + sign * moved[:, runs:])
        for side, sign in ((0, 1), (1, -1))
    )
    swapped = np.abs((ours - theirs).mean(axis=1))
    scores = [ratio(above[side].sum(axis=1), below[side].sum(axis=1)) for side in (0, 1)]
    difference = float((scores[0] - scores[1]).mean())
    p = (1 + int((swapped >= abs(difference) - TIE).sum())) / (1 + resamples)
    reach = float(np.quantile(swapped, LEVEL))
    return PairedTest(difference, difference - reach, difference + reach, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for multiple testing (Holm 1979); the order is kept."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _means(sample: Bootstrap) -> Array:
    """Return (M,) samples of the mean over seeds, with rows resampled and an error of the seeds added.

    Three seeds cannot be resampled: their resamples have ten different means, all within the range of the three, which
    contains the true mean of a score that varies by seed in only 75 % of cases. The seeds' level is therefore
    parametric (Efron & Tibshirani 1993, section 6.5): seeds are assumed to be normal, and the error of their mean is
    Student's t with S - 1 degrees of freedom times the standard deviation over seeds / sqrt(S). With one seed this
    error is unknown and left out.
    """
    means: Array = sample.resampled.mean(axis=1)
    seeds = len(sample.scores)
    if seeds == 1:
        return means
    error = np.random.default_rng(1).standard_t(seeds - 1, size=len(means))
    shifted: Array = means + error * sample.scores.std(ddof=1) / np.sqrt(seeds)
    return shifted


def _percentiles(means: Array) -> tuple[float, float]:
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _chunks(resamples: int, rows: int) -> Iterator[int]:
    """Yield the sizes of chunks of the resamples that fit into memory."""
    size = max(1, CHUNK // rows)
    yield from (min(size, resamples - start) for start in range(0, resamples, size))
