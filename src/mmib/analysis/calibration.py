"""How far the confidence of predictions can be trusted: expected calibration error and temperature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmib.records import Array, Judgement, log_odds, softmax

BINS = 10
# Digits of a confidence that decide its bin: what is computed from logits may miss the edge of a bin by less.
DIGITS = 9
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
    predicted = np.array([judgement.predicted for judgement in judgements])
    confidence = softmax(_logits(judgements) / temperature)[np.arange(len(judgements)), predicted]
    if not np.isfinite(confidence).all():
        return None
    right = np.array([judgement.right for judgement in judgements], dtype=np.float64)
    places = np.minimum((confidence.round(DIGITS) * BINS).astype(int), BINS - 1)
    bins = [
        (float(confidence[places == place].mean()), float(right[places == place].mean()), int((places == place).sum()))
        for place in range(BINS)
        if (places == place).any()
    ]
    error = sum(count * abs(share - mean) for mean, share, count in bins) / len(judgements)
    return Calibration(bins, error, len(judgements))


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


def _logits(judgements: Sequence[Judgement]) -> Array:
    """(N, C) logits."""
    return np.array([judgement.logits for judgement in judgements], dtype=np.float64)
