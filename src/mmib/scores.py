"""Precision, recall and F1 as ratios of counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

# With fewer gold items than this, one of them changes a score by more than a point.
FEW_ITEMS = 100


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


def few_items(classes: Mapping[str, Mapping[str, Any]], negative: str | None) -> str | None:
    """Return a caution if there are so few gold items that scores, and their standard errors, say little.

    Args:
        classes: scores by class, each with the number `gold` of its gold items.
        negative: the negative class, which no score counts; None if all classes are scored.
    """
    gold = sum(scores["gold"] for name, scores in classes.items() if name != negative)
    if not 0 < gold < FEW_ITEMS:
        return None
    return f"only {gold} gold items, {100 / gold:.1f} points each: too few to compare models"
