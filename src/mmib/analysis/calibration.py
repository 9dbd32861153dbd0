"""How sure predictions are, and how far that can be trusted: expected calibration error and temperature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmib.schema import RELATION_IDS, RELATIONS, TAGS, Task

Array = NDArray[np.float64]
Record = dict[str, Any]

BINS = 10
# Within which a temperature is looked for, and how many predictions it takes to fit one.
COLDEST, HOTTEST = 0.05, 20.0
FEWEST = 20
# A probability of exactly 0 or 1 has no finite log-odds.
LEAST = 1e-6


@dataclass(frozen=True)
class Entity:
    """A named entity of a post: its type, first word, and the word behind its last."""

    type: str
    start: int
    end: int

    @property
    def span(self) -> tuple[int, int]:
        """First word, and the word behind the last."""
        return self.start, self.end


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of a post as seqeval reads them by default: a stray I- opens one.

    Raises:
        ValueError: a tag is none of the task's.
    """
    from seqeval.metrics.sequence_labeling import get_entities  # noqa: PLC0415 - a second that only mner should spend

    if not set(tags) <= set(TAGS):
        raise ValueError(f"{(set(tags) - set(TAGS)).pop()!r} is no tag")
    return [Entity(name, start, last + 1) for name, start, last in get_entities(list(tags))]


def relation_confidence(record: Record) -> float:
    """Softmax probability of the predicted relation (mre)."""
    scores = np.asarray(record["scores"], dtype=np.float64)
    if scores.shape != (len(RELATIONS),):
        raise ValueError("'scores' has not one value for each relation")
    shares = np.exp(scores - scores.max())
    return float(shares[RELATION_IDS[record["predicted"]]] / shares.sum())


def entity_confidence(entity: Entity, confidence: Sequence[float | None]) -> float:
    """The least probability of the tags of an entity's words; 0 where a word has none."""
    return min(confidence[word] or 0.0 for word in range(*entity.span))


def judged(task: Task, records: Sequence[Record]) -> list[tuple[float, bool]]:
    """Confidence of each prediction and whether it is right: a row each (mre), a predicted entity each (mner)."""
    if task == "mre":
        return [(relation_confidence(record), record["gold"] == record["predicted"]) for record in records]
    return [
        (entity_confidence(entity, record["confidence"]), entity in gold)
        for record in records
        for gold in [set(entities(record["gold"]))]
        for entity in entities(record["predicted"])
    ]


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


def calibration(predictions: Sequence[tuple[float, bool]]) -> Calibration | None:
    """Expected calibration error over equally wide bins (Guo et al. 2017, equation 3); None without predictions."""
    if not predictions:
        return None
    confidence, right = (np.asarray(column, dtype=np.float64) for column in zip(*predictions, strict=True))
    places = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = [
        (float(confidence[places == place].mean()), float(right[places == place].mean()), int((places == place).sum()))
        for place in range(BINS)
        if (places == place).any()
    ]
    error = sum(count * abs(share - mean) for mean, share, count in bins) / len(predictions)
    return Calibration(bins, error, len(predictions))


@dataclass(frozen=True)
class Temperature:
    """What confidence is cooled or heated by, so that it means what it says (Guo et al. 2017, section 4.2).

    Attributes:
        value: divides the logits of a relation, or the log-odds of an entity; above 1 the model was too sure.
        count: predictions that it was fitted on; 0 where there were too few, and `value` is 1.
        error_before, error_after: expected calibration error on these predictions.
    """

    value: float = 1.0
    count: int = 0
    error_before: float | None = None
    error_after: float | None = None


def fitted_temperature(task: Task, records: Sequence[Record]) -> Temperature:
    """The temperature under which the records of a prediction file are likeliest.

    Args:
        task: of relations every row counts, of entities every predicted one, as right or wrong.
        records: best those of validation, which training has not seen.
    """
    before = calibration(judged(task, records))
    if before is None or before.count < FEWEST:
        return Temperature()
    logits, right = _logits(task, records)
    value = likeliest_temperature(logits, right)
    cooled = softmax(logits / value)
    if task == "mre":
        confidence = cooled[np.arange(len(cooled)), [RELATION_IDS[record["predicted"]] for record in records]]
    else:
        confidence = cooled[:, 1]
    correct = [is_right for _, is_right in judged(task, records)]
    after = calibration(list(zip(confidence.tolist(), correct, strict=True)))
    return Temperature(value, before.count, before.error, None if after is None else after.error)


def _logits(task: Task, records: Sequence[Record]) -> tuple[Array, NDArray[np.int64]]:
    """Logits (N, C) of what was predicted, and the class that was right: relations, or (wrong, right) an entity."""
    if task == "mre":
        scores = np.array([record["scores"] for record in records], dtype=np.float64)
        return scores, np.array([RELATION_IDS[record["gold"]] for record in records])
    confidence, right = (np.array(column) for column in zip(*judged(task, records), strict=True))
    odds = log_odds(confidence)
    return np.stack([np.zeros_like(odds), odds], axis=1), right.astype(np.int64)


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


def softmax(logits: Array) -> Array:
    """(..., C) probabilities."""
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def log_odds(probability: Array) -> Array:
    """Log-odds, finite also at 0 and 1."""
    bounded = np.clip(probability, LEAST, 1 - LEAST)
    return np.log(bounded) - np.log1p(-bounded)


def tempered(probability: Array, temperature: float) -> Array:
    """Probabilities whose log-odds are divided by a temperature; 1 leaves them as they are."""
    if temperature == 1:
        return probability
    return 1 / (1 + np.exp(-log_odds(probability) / temperature))
