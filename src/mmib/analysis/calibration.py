"""How far the confidence of predictions can be trusted: calibration error, risk against coverage, temperature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmib.records import Array, Judgement, log_odds, softmax

BINS = 10
# Digits of a confidence that decide its bin: what is computed from logits may miss the edge of a bin by less.
DIGITS = 9
# Coverages at which the risk is kept, evenly spaced up to 1.
COVERAGES = 20
# Within which a temperature is looked for, and how many predictions it takes to fit one.
COLDEST, HOTTEST = 0.05, 20.0
FEWEST = 20


@dataclass(frozen=True)
class Calibration:
    """How far confidence can be trusted.

    Attributes:
        bins: (mean confidence, share that is right, number) of each of ten equally wide bins that is not empty.
        error: expected calibration error, the gaps of the bins weighted by their numbers.
        count: number of predictions.
    """

    bins: list[tuple[float, float, int]]
    error: float
    count: int


def calibration(judgements: Sequence[Judgement], temperature: float = 1.0) -> Calibration | None:
    """Expected calibration error over equally wide bins (Guo et al. 2017, equation 3).

    None without predictions, and where a score is not finite.

    Args:
        judgements: the predictions, all among equally many alternatives.
        temperature: what their logits are divided by.
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
    """What share of the predictions is wrong, where only the most confident ones count (Geifman & El-Yaniv 2017).

    Attributes:
        curve: (coverage, risk) at up to `COVERAGES` evenly spaced coverages, the last of them 1.
        area: mean risk over the coverages of the most confident one, two, ... predictions; lower is better.
    """

    curve: list[tuple[float, float]]
    area: float


def risk_coverage(judgements: Sequence[Judgement]) -> RiskCoverage | None:
    """Risk against coverage; None without predictions, and where a score is not finite.

    Of predictions with equal confidence each counts as wrong as they are on average, so that their order is of no
    matter.

    Args:
        judgements: the predictions, all among equally many alternatives.
    """
    if not judgements:
        return None
    confidence, right = _confidence(judgements)
    if not np.isfinite(confidence).all():
        return None
    _, places, counts = np.unique(-confidence.round(DIGITS), return_inverse=True, return_counts=True)
    wrong = np.repeat(np.bincount(places, 1 - right) / counts, counts)  # the surest first
    covered = np.arange(1, len(wrong) + 1)
    risk = np.cumsum(wrong) / covered
    kept = np.unique(np.ceil(np.linspace(0, len(wrong), COVERAGES + 1)[1:]).astype(int))
    curve = [(float(number / len(wrong)), float(risk[number - 1])) for number in kept]
    return RiskCoverage(curve, float(risk.mean()))


@dataclass(frozen=True)
class Temperature:
    """What confidence is cooled or heated by, so that it means what it says (Guo et al. 2017, section 4.2).

    Attributes:
        value: divides the logits of a prediction; above 1 the model was too sure.
        count: predictions that it was fitted on; 0 where there were too few, and `value` is 1.
        error_before, error_after: expected calibration error on these predictions.
    """

    value: float = 1.0
    count: int = 0
    error_before: float | None = None
    error_after: float | None = None


def fitted_temperature(judgements: Sequence[Judgement]) -> Temperature:
    """The temperature under which what is right is likeliest.

    Args:
        judgements: of predictions, all among equally many alternatives; best those of validation, which training has
            not seen.
    """
    before = calibration(judgements)
    if before is None or before.count < FEWEST:
        return Temperature()
    value = likeliest_temperature(_logits(judgements), np.array([judgement.gold for judgement in judgements]))
    after = calibration(judgements, value)
    return Temperature(value, before.count, before.error, None if after is None else after.error)


def likeliest_temperature(logits: Array, gold: NDArray[np.int64]) -> float:
    """The T that makes softmax(logits / T) likeliest.

    The likelihood is concave in 1 / T, so that the root of its derivative is found by halving.

    Args:
        logits: (N, C).
        gold: (N,) class ids.
    """
    chosen = logits[np.arange(len(gold)), gold]
    coldest, hottest = 1 / COLDEST, 1 / HOTTEST
    for _ in range(60):
        inverse = (coldest + hottest) / 2
        slope = (chosen - (softmax(logits * inverse) * logits).sum(axis=1)).mean()
        if slope > 0:
            hottest = inverse
        else:
            coldest = inverse
    return float(2 / (coldest + hottest))


def tempered(probability: Array, temperature: float) -> Array:
    """Probabilities whose log-odds are divided by a temperature; 1 leaves them as they are."""
    if temperature == 1:
        return probability
    result: Array = 1 / (1 + np.exp(-log_odds(probability) / temperature))
    return result


def _confidence(judgements: Sequence[Judgement], temperature: float = 1.0) -> tuple[Array, Array]:
    """(N,) probability of what was predicted, and 1 where it is right."""
    predicted = np.array([judgement.predicted for judgement in judgements])
    confidence = softmax(_logits(judgements) / temperature)[np.arange(len(judgements)), predicted]
    return confidence, np.array([judgement.right for judgement in judgements], dtype=np.float64)


def _logits(judgements: Sequence[Judgement]) -> Array:
    """(N, C) logits."""
    return np.array([judgement.logits for judgement in judgements], dtype=np.float64)
