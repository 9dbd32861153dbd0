"""Task metrics from summed counts, so that they are exact over unequal batches and over ranks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchmetrics import Metric

from mmib.labels import LabelSet
from mmib.schema import NO_LABEL
from mmib.scores import RATIOS, Counts, Scores


class ExtractionScores(Metric, ABC):
    """Micro precision, recall and F1 of the extracted items, accuracy of all labels, and scores by class.

    Args:
        labels: label set whose N names are the classes of items; the micro scores leave out the negative class.
        options: see `torchmetrics.Metric`.

    Attributes:
        readings: score prefixes of the R ways to read items off the labels; `per_class` uses the first.
    """

    full_state_update = False
    readings: ClassVar[tuple[str, ...]] = ("",)
    correct: Tensor
    predicted: Tensor
    gold: Tensor
    right_labels: Tensor
    labelled: Tensor

    def __init__(self, labels: LabelSet, **options: Any) -> None:
        super().__init__(**options)
        self.classes = labels.names
        self.scored = [number for number, name in enumerate(labels.names) if name != labels.negative]
        shape = len(self.readings), len(self.classes)
        for name in Counts._fields:
            self.add_state(name, torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")
        for name in ("right_labels", "labelled"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    @abstractmethod
    def count(self, predictions: Tensor, gold: Tensor) -> Counts:
        """Return the counts of each row's items, (B, R, N)."""

    def update(self, predictions: Tensor, gold: Tensor) -> None:
        """Count (B, ...) predicted against gold label ids; gold is -1 for padding."""
        counts = self.count(predictions, gold)
        self.correct += counts.correct.sum(dim=0)
        self.predicted += counts.predicted.sum(dim=0)
        self.gold += counts.gold.sum(dim=0)
        labelled = gold != NO_LABEL
        self.right_labels += ((predictions == gold) & labelled).sum()
        self.labelled += labelled.sum()

    def compute(self) -> dict[str, float]:
        """Return `precision`, `recall` and `f1` of each reading, and `accuracy`, as fractions."""
        result: dict[str, float] = {}
        for reading, prefix in enumerate(self.readings):
            counts = [int(count[reading, self.scored].sum()) for count in (self.correct, self.predicted, self.gold)]
            result |= {prefix + name: score for name, score in asdict(Scores.from_counts(*counts)).items()}
        return {**result, "accuracy": int(self.right_labels) / max(1, int(self.labelled))}

    def per_class(self) -> dict[str, dict[str, float]]:
        """Return {class: precision, recall, f1 and gold count} for the classes that occur or are predicted."""
        columns = (count[0].tolist() for count in (self.correct, self.predicted, self.gold))
        return {
            name: {**asdict(Scores.from_counts(correct, predicted, gold)), "gold": gold}
            for name, correct, predicted, gold in zip(self.classes, *columns, strict=True)
            if predicted or gold
        }

    @classmethod
    def micro_scores(cls) -> tuple[str, ...]:
        """Return the names of the scores that are ratios of sums over rows."""
        return (*(prefix + name for prefix in cls.readings for name in RATIOS), "accuracy")

    def row_parts(self, predictions: Tensor, gold: Tensor, score: str) -> tuple[Tensor, Tensor]:
        """Return each row's part of the numerator and of the denominator of one of `micro_scores`, (B,) each."""
        if score == "accuracy":
            labelled = gold != NO_LABEL
            right = (predictions == gold) & labelled
            by_row = [count.unsqueeze(-1).flatten(1).sum(dim=1) for count in (right, labelled)]
            return by_row[0], by_row[1]
        reading, name = next(
            (number, score.removeprefix(prefix))
            for number, prefix in enumerate(self.readings)
            if score.removeprefix(prefix) in RATIOS
        )
        counts = Counts(*(count[:, reading, self.scored].sum(dim=1) for count in self.count(predictions, gold)))
        return RATIOS[name](counts)


class ClassScores(ExtractionScores):
    """Scores of all classes but the negative one, which only has a row in the table; labels are (B,) class ids.

    The convention is MNRE's: a row with a negative gold class lowers precision if another class is predicted.
    """

    def count(self, predictions: Tensor, gold: Tensor) -> Counts:
        """See `ExtractionScores.count`."""
        predicted, true = (F.one_hot(ids, len(self.classes))[:, None] for ids in (predictions, gold))
        return Counts(predicted * true, predicted, true)


def label_tensor(rows: Sequence[Any]) -> Tensor:
    """Return the label ids of B rows: (B,), or (B, W) padded with -1 if each row is a list of one id per word."""
    tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
    return pad_sequence(tensors, True, NO_LABEL) if tensors[0].ndim else torch.stack(tensors)
