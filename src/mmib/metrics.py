"""Task metrics with summed counts, so that they stay right over unequal batches and over ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from mmib.schema import NO_RELATION, RELATION_IDS, RELATIONS


@dataclass(frozen=True)
class Scores:
    """Precision, recall and F1 as fractions; 0 where undefined."""

    precision: float
    recall: float
    f1: float

    @classmethod
    def from_counts(cls, correct: float, predicted: float, gold: float) -> Scores:
        """From the number of correct, predicted and gold items."""
        precision = correct / predicted if predicted else 0.0
        recall = correct / gold if gold else 0.0
        both = predicted + gold
        return cls(precision, recall, 2 * correct / both if both else 0.0)


class RelationScores(Metric):
    """Micro precision, recall and F1 over all relations but None, accuracy over all, and scores per relation.

    The convention of MNRE: a row whose gold is None counts against precision when a relation is predicted for it.
    """

    full_state_update = False
    correct: Tensor
    predicted: Tensor
    gold: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("correct", "predicted", "gold"):
            self.add_state(name, torch.zeros(len(RELATIONS), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, gold: Tensor) -> None:
        """Count (N,) predicted against (N,) gold class ids."""
        size = len(RELATIONS)
        self.predicted += torch.bincount(predictions, minlength=size)
        self.gold += torch.bincount(gold, minlength=size)
        self.correct += torch.bincount(gold[predictions == gold], minlength=size)

    def compute(self) -> dict[str, float]:
        """`precision`, `recall`, `f1`, `accuracy`, as fractions."""
        relations = torch.arange(len(RELATIONS)) != RELATION_IDS[NO_RELATION]
        counts = [float(count.cpu()[relations].sum()) for count in (self.correct, self.predicted, self.gold)]
        total = int(self.gold.sum())
        accuracy = float(self.correct.sum()) / total if total else 0.0
        return {**asdict(Scores.from_counts(*counts)), "accuracy": accuracy}

    def per_relation(self) -> dict[str, dict[str, float]]:
        """{relation: precision, recall, f1 and gold count} of the relations that occur or are predicted."""
        table = {}
        counts = zip(RELATIONS, self.correct.tolist(), self.predicted.tolist(), self.gold.tolist(), strict=True)
        for name, correct, predicted, gold in counts:
            if predicted or gold:
                table[name] = {**asdict(Scores.from_counts(correct, predicted, gold)), "gold": gold}
        return table


def f1_standard_error(predictions: Sequence[int], gold: Sequence[int], resamples: int = 1000) -> float:
    """Bootstrap standard error of the micro F1 over all relations but None, rows drawn with replacement.

    Args:
        predictions: class id of each row.
        gold: class id of each row.
        resamples: bootstrap samples; they are the same in every run.
    """
    predicted, truth = np.asarray(predictions), np.asarray(gold)
    none = RELATION_IDS[NO_RELATION]
    correct = (predicted == truth) & (truth != none)
    either = (predicted != none).astype(int) + (truth != none)
    rng = np.random.default_rng(0)
    draws = rng.multinomial(len(truth), np.full(len(truth), 1 / len(truth)), size=resamples)
    f1 = 2 * (draws @ correct) / np.maximum(draws @ either, 1)
    return float(f1.std(ddof=1))
