"""Base classes of tasks that classify rows, and of tasks that label whole posts."""

from __future__ import annotations

from abc import ABC
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmib.backbone import ExtractionNetwork, MultimodalIB
from mmib.base.wording import counted
from mmib.datamodules.examples import fit_words
from mmib.labels import LabelSet
from mmib.metrics import ClassScores
from mmib.nn.precision import autocast_off
from mmib.records import Answer, Chip, Confusion, Item, Judgement, Record, softmax, surface_form
from mmib.schema import Example, PostBatch, Prepared, Task, Wording


@dataclass(kw_only=True)
class ClassBatch(PostBatch):
    """A batch of rows with one class each.

    Attributes:
        label_ids: (B,) gold class ids.
    """

    label_ids: torch.Tensor


@dataclass(kw_only=True)
class ClassExample(Example):
    """A row with one class.

    Attributes:
        label: its class id.
    """

    label: int


class ClassificationNetwork(ExtractionNetwork, ABC):
    """Backbone and a head that scores the classes of a row, (B, Q, D) to logits (B, C)."""

    def loss(self, scores: Tensor, batch: ClassBatch) -> Tensor:
        """Return the cross-entropy of each row's class, (B,), in nats."""
        with autocast_off(scores):
            return F.cross_entropy(scores, batch.label_ids, reduction="none")

    def predict(self, logits: Tensor) -> Tensor:
        """Return (B,) class ids for (B, C) logits."""
        return logits.argmax(dim=-1)

    def decode(self, scores: Tensor, batch: ClassBatch) -> dict[str, Tensor]:
        """Return `predicted` (B,) class ids and `scores` (B, C) logits."""
        del batch
        return {"predicted": self.predict(scores), "scores": scores}

    def gold(self, batch: ClassBatch) -> Tensor:
        """Return the (B,) gold class ids."""
        return batch.label_ids

    def label_counts(self, batch: ClassBatch) -> Tensor:
        """(C,) number of valid rows of each class."""
        labels = F.one_hot(batch.label_ids, len(self.labels))
        return labels.masked_fill(~batch.valid[:, None], 0).sum(dim=0)

    def settings(self) -> dict[str, float | bool | None]:
        """See `ExtractionNetwork.settings`; empty, as by default the most probable class is predicted."""
        return {}


class PostNetwork(ClassificationNetwork):
    """Backbone and a linear classifier on the fused state of a post's first piece.

    Args:
        backbone: the shared network.
        labels: the classes.
        head_dropout: dropout on the state that the classifier reads.
    """

    def __init__(self, backbone: MultimodalIB, labels: LabelSet, head_dropout: float = 0.0) -> None:
        super().__init__(backbone, labels)
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(head_dropout), nn.Linear(backbone.dim, len(labels)))


class RowCensus:
    """Counts rows by their labels.

    Args:
        task: the task, which returns the labels of a post.
        rows: noun for the rows, in the plural.
    """

    def __init__(self, task: Task, rows: str) -> None:
        self.task = task
        self.rows = rows
        self.count = 0
        self.labels = Counter[str]()

    def add(self, post: Any, example: Any) -> None:
        """See `Census.add`."""
        del example
        self.count += 1
        self.labels.update(self.task.labels_of(post))

    def __str__(self) -> str:
        return f"{counted(self.count, self.rows)}, {counted(len(self.labels), 'labels')}"


class Classification(Task, ABC):
    """Base of tasks that choose one class for each row; it scores, judges and shows their predictions.

    Attributes:
        marked: names of the spans that are marked in the posts.
    """

    marked: ClassVar[tuple[str, ...]] = ()

    def example_labels(self, example: ClassExample, labels: LabelSet) -> list[str]:
        """See `Task.example_labels`: the class."""
        return [labels.names[example.label]]

    def example_items(self, example: ClassExample, labels: LabelSet) -> list[Item]:
        """See `Task.example_items`: the class, with the marked spans as surface form."""
        spans = example.spans()
        return [Item(labels.names[example.label], surface_form(example.words, [spans[name] for name in self.marked]))]

    def census(self) -> RowCensus:
        """See `Task.census`."""
        return RowCensus(self, self.rows)

    def metric(self, labels: LabelSet, **options: Any) -> ClassScores:
        """See `Task.metric`."""
        return ClassScores(labels, **options)

    def items(self, record: Record, labels: LabelSet) -> tuple[list[Item], list[Item]]:
        """See `Task.items`: the class, with the marked spans as surface form."""
        gold, predicted = (labels.names[_known_id(labels, record[name])] for name in ("gold", "predicted"))
        words = record.get("words", ())
        form = surface_form(words, [record[name] for name in self.marked] if words else ())
        return [Item(gold, form)], [Item(predicted, form)]

    def judge(self, records: Sequence[Record], labels: LabelSet) -> list[Judgement]:
        """See `Task.judge`: one judgement per row, with the logits of all classes."""
        judged = []
        for record in records:
            if len(record["scores"]) != len(labels):
                raise ValueError(f"'scores' has not one value for each of the {len(labels)} labels")
            ids = [_known_id(labels, record[name]) for name in ("predicted", "gold")]
            judged.append(Judgement(record["scores"], *ids))
        return judged

    def confusion(self, records: Sequence[Record], labels: LabelSet) -> Confusion:
        """See `Task.confusion`: over the classes that occur or are predicted."""
        pairs = Counter((record["gold"], record["predicted"]) for record in records)
        seen = {_known_id(labels, name) for pair in pairs for name in pair}
        names = [name for number, name in enumerate(labels.names) if number in seen]
        return Confusion.of(pairs, names, names)

    def answer(self, record: Record, labels: LabelSet) -> Answer:
        """See `Task.answer`: gold and predicted class."""
        judgement = self.judge([record], labels)[0]
        shares = softmax(np.asarray(judgement.logits, dtype=np.float64))
        verdict = "right" if judgement.right else "wrong"
        gold, predicted = str(record["gold"]), str(record["predicted"])
        return Answer(
            right=judgement.right,
            confidence=float(shares[judgement.predicted]),
            classes=[gold, predicted],
            gold=gold,
            predicted=predicted,
            lines=[("gold", [Chip(gold)]), ("predicted", [Chip(predicted, verdict)])],
        )


class PostClassification(Classification):
    """Base of tasks that label whole posts (`mmib.datamodules.posts.LabelledPost`), from their first piece's state."""

    rows: ClassVar[str] = "posts"
    example = ClassExample
    network: ClassVar[type[Any]] = PostNetwork
    wording: ClassVar[Wording] = Wording("post", "class", "the softmax probability of the predicted class")

    def labels_of(self, post: Any) -> list[str]:
        """See `Task.labels_of`."""
        return [post.label]

    def encode(self, row: int, post: Any, pieces: list[list[int]], prepared: Prepared) -> ClassExample:
        """See `Task.encode`; words beyond `max_length` are cut off."""
        input_ids, word_ids, _ = fit_words(pieces, prepared.tokenizer, prepared.max_length)
        return ClassExample(
            row=row,
            words=post.words,
            input_ids=input_ids,
            word_ids=word_ids,
            mentions=[0] * len(input_ids),
            label=prepared.labels.id_of(post.label),
        )

    def collate(self, examples: Sequence[ClassExample], fields: dict[str, Any], labels: LabelSet) -> ClassBatch:
        """See `Task.collate`."""
        del labels
        return ClassBatch(
            **fields,
            positions=torch.zeros(len(examples), 1, dtype=torch.long),
            label_ids=torch.tensor([example.label for example in examples]),
        )


def _known_id(labels: LabelSet, name: Any) -> int:
    """Return the id of a label in a prediction file.

    Raises:
        ValueError: If the label set does not contain it.
    """
    try:
        return labels.id_of(name)
    except KeyError as error:
        raise ValueError(f"{name!r} is not one of the labels {', '.join(labels.names)}") from error
