"""Precision, recall and F1 as ratios of counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Scores:
    """Precision, recall and F1 as fractions; 0 where undefined."""

    precision: float
    recall: float
    f1: float

    @classmethod
    def from_counts(cls, correct: float, predicted: float, gold: float) -> Scores:
        """Compute the scores from the numbers of correct, predicted and gold items."""
        precision = correct / predicted if predicted else 0.0
        recall = correct / gold if gold else 0.0
        both = predicted + gold
        return cls(precision, recall, 2 * correct / both if both else 0.0)


class Counts(NamedTuple):
    """Numbers of correct, predicted and gold items; tensors or arrays of the same shape."""

    correct: Any
    predicted: Any
    gold: Any


# Numerator and denominator of each score; `Scores.from_counts` divides their sums.
RATIOS: dict[str, Callable[[Counts], tuple[Any, Any]]] = {
    "precision": lambda counts: (counts.correct, counts.predicted),
    "recall": lambda counts: (counts.correct, counts.gold),
    "f1": lambda counts: (2 * counts.correct, counts.predicted + counts.gold),
}
