"""Reliability of the confidence of predictions: calibration error, risk-coverage curve, temperature scaling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmib.records import Array, Judgement, log_odds, softmax

BINS = 10
# Decimals to which a confidence is rounded before binning. Rounding errors at the edge of a bin are smaller.
DIGITS = 9
# Number of coverages at which the risk is kept, evenly spaced up to 1.
COVERAGES = 20
# Search interval of the temperature, and the minimum number of predictions to fit one.
COLDEST, HOTTEST = 0.05, 20.0
FEWEST = 20


@dataclass(frozen=True)
class Calibration:
    """Reliability diagram and expected calibration error.

    Attributes:
        bins: (mean confidence, accuracy, number of predictions) of each non-empty bin, out of ten of equal width.
        error: expected calibration error: the gaps of the bins, weighted by their numbers of predictions.
        count: number of predictions.
    """

    bins: list[tuple[float, float, int]]
    error: float
    count: int


def calibration(judgements: Sequence[Judgement], temperature: float = 1.0) -> Calibration | None:
    """Compute the expected calibration error over bins of equal width (Guo et al. 2017, equation 3).

    Return None without predictions, or if a score is not finite.

    Args:
        judgements: the predictions, all with the same number of classes.
        temperature: divisor of the logits.
    """
    if not judgements:
        return None
    confidence, right = _confidence(judgements, temperature)
    if not np.isfinite(confidence).all():
        return None
    places = np.minimum((confidence.round(DIGITS) * BINS).astype(int), BINS - 1)
    bins = [
        (float(confidence[places == place].mean()), float(right[places == place].mean()), int((places == place).sum()))
        for place in range(BINS)
        if (places == place).any()
    ]
    error = sum(count * abs(share - mean) for mean, share, count in bins) / len(judgements)
    return Calibration(bins, error, len(judgements))


@dataclass(frozen=True)
class RiskCoverage:
    """Error rate among the most confident predictions, by coverage (Geifman & El-Yaniv 2017).

    Attributes:
        curve: (coverage, risk) at up to `COVERAGES` evenly spaced coverages, of which the last is 1.
        area: mean risk over the coverages of the most confident one, two, ... predictions; lower is better.
    """

    curve: list[tuple[float, float]]
    area: float


def risk_coverage(judgements: Sequence[Judgement]) -> RiskCoverage | None:
    """Compute the risk-coverage curve; None without predictions, or if a score is not finite.

    Predictions with equal confidence all count with their mean error, so that their order does not matter.

    Args:
        judgements: the predictions, all with the same number of classes.
    """
    if not judgements:
        return None
    confidence, right = _confidence(judgements)
    if not np.isfinite(confidence).all():
        return None
    _, places, counts = np.unique(-confidence.round(DIGITS), return_inverse=True, return_counts=True)
    wrong = np.repeat(np.bincount(places, 1 - right) / counts, counts)  # the most confident first
    covered = np.arange(1, len(wrong) + 1)
    risk = np.cumsum(wrong) / covered
    kept = np.unique(np.ceil(np.linspace(0, len(wrong), COVERAGES + 1)[1:]).astype(int))
    curve = [(float(number / len(wrong)), float(risk[number - 1])) for number in kept]
    return RiskCoverage(curve, float(risk.mean()))


@dataclass(frozen=True)
class Temperature:
    """A temperature that calibrates confidence (Guo et al. 2017, section 4.2).

    Attributes:
        value: divisor of the logits; above 1, the model was overconfident.
        count: number of predictions that it was fitted on; 0 if they do not determine it, and `value` is then 1.
        error_before, error_after: expected calibration error on these predictions.
    """

    value: float = 1.0
    count: int = 0
    error_before: float | None = None
    error_after: float | None = None


def fitted_temperature(judgements: Sequence[Judgement]) -> Temperature:
    """Fit the temperature that maximises the likelihood of the gold classes.

    It stays 1 with too few predictions, and if the likelihood has no maximum: where all of them are right, it rises
    with every lower temperature, to confidences of 100 %.

    Args:
        judgements: the predictions, all with the same number of classes; preferably of the validation split, which
            was not trained on.
    """
    before = calibration(judgements)
    if before is None or before.count < FEWEST:
        return Temperature()
    value = likeliest_temperature(_logits(judgements), np.array([judgement.gold for judgement in judgements]))
    if value is None:
        return Temperature()
    after = calibration(judgements, value)
    return Temperature(value, before.count, before.error, None if after is None else after.error)


def likeliest_temperature(logits: Array, gold: NDArray[np.int64]) -> float | None:
    """Return the T that maximises the likelihood of softmax(logits / T); None if none from COLDEST to HOTTEST does.

    The log-likelihood is concave in 1 / T, so bisection finds the root of its derivative.

    Args:
        logits: (N, C).
        gold: (N,) class ids.
    """
    # Relative to the gold class, so that no term is negative where all predictions are right, even after rounding.
    margins = logits[np.arange(len(gold)), gold][:, None] - logits

    def slope(inverse: float) -> float:
        return float((softmax(logits * inverse) * margins).sum())

    coldest, hottest = 1 / COLDEST, 1 / HOTTEST
    if slope(coldest) >= 0 or slope(hottest) <= 0:
        return None
    for _ in range(60):
        inverse = (coldest + hottest) / 2
        if slope(inverse) > 0:
            hottest = inverse
        else:
            coldest = inverse
    return float(2 / (coldest + hottest))


def tempered(probability: Array, temperature: float) -> Array:
    """Divide the log-odds of probabilities by a temperature; 1 leaves them unchanged."""
    if temperature == 1:
        return probability
    result: Array = 1 / (1 + np.exp(-log_odds(probability) / temperature))
    return result


def _confidence(judgements: Sequence[Judgement], temperature: float = 1.0) -> tuple[Array, Array]:
    """Return the (N,) probabilities of the predicted classes, and (N,) 1 for right and 0 for wrong predictions."""
    predicted = np.array([judgement.predicted for judgement in judgements])
    confidence = softmax(_logits(judgements) / temperature)[np.arange(len(judgements)), predicted]
    return confidence, np.array([judgement.right for judgement in judgements], dtype=np.float64)


def _logits(judgements: Sequence[Judgement]) -> Array:
    """Return the (N, C) logits."""
    return np.array([judgement.logits for judgement in judgements], dtype=np.float64)
