"""Records of prediction files, and the types in which tasks pass them to analysis and report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Record = dict[str, Any]
Array = NDArray[np.float64]

# The merged classes of a confusion matrix.
OTHERS = "all others"
# A probability of exactly 0 or 1 has no finite log-odds.
LEAST = 1e-6


@dataclass(frozen=True)
class Entity:
    """A named entity of a post: its type and its words [start, end)."""

    type: str
    start: int
    end: int

    @property
    def span(self) -> tuple[int, int]:
        """Words [start, end)."""
        return self.start, self.end

    def overlaps(self, other: Entity) -> bool:
        """Whether the two entities share a word."""
        return self.start < other.end and other.start < self.end


class Item(NamedTuple):
    """An item that a task extracts from a post: an entity, a relation, or the class of the post.

    Attributes:
        label: name of its label.
        form: its surface form (`surface_form`); empty for the class of a whole post, and if unknown.
        span: words [start, end) of an entity; empty for items of the whole row.
    """

    label: str
    form: str
    span: tuple[int, ...] = ()

    def overlaps(self, other: Item) -> bool:
        """Whether the two items share a word, or are of the whole row."""
        return not self.span or (self.span[0] < other.span[1] and other.span[0] < self.span[1])


def surface_form(words: Sequence[str], spans: Iterable[Sequence[int]]) -> str:
    """Return the words of spans, case-folded, with a tab between the spans; empty without words or spans."""
    return "\t".join(" ".join(words[start:end]).casefold() for start, end in spans) if words else ""


@dataclass(frozen=True)
class TrainingItems:
    """Gold items of the rows that a model was trained on.

    Attributes:
        labels: number of items with each label.
        forms: their surface forms.
    """

    labels: dict[str, int]
    forms: frozenset[str]

    @classmethod
    def of(cls, items: Iterable[Item]) -> TrainingItems:
        """Count items."""
        labels, forms = Counter[str](), set[str]()
        for item in items:
            labels[item.label] += 1
            forms.add(item.form)
        return cls(dict(labels), frozenset(forms - {""}))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable dictionary."""
        return {"labels": self.labels, "forms": sorted(self.forms)}

    @classmethod
    def from_dict(cls, content: Any) -> TrainingItems:
        """Build the items from the result of `to_dict`.

        Raises:
            KeyError, TypeError, ValueError: If `content` has another form.
        """
        labels = {str(name): int(count) for name, count in content["labels"].items()}
        return cls(labels, frozenset(map(str, content["forms"])))


class Judgement(NamedTuple):
    """A decision of a model: its logits, the prediction, and the gold answer.

    Attributes:
        logits: logits of the alternatives, in nats, before a temperature.
        predicted: index of the predicted alternative.
        gold: index of the right alternative.
    """

    logits: Sequence[float]
    predicted: int
    gold: int

    @property
    def right(self) -> bool:
        """Whether the prediction is right."""
        return self.predicted == self.gold


@dataclass(frozen=True)
class Confusion:
    """Confusion matrix.

    Attributes:
        rows: gold classes.
        columns: predicted classes; those that are also gold come first, in the order of the rows.
        counts: (rows, columns) number of items.
    """

    rows: list[str]
    columns: list[str]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, pairs: Mapping[tuple[str, str], int], rows: list[str], columns: list[str]) -> Self:
        """Return the matrix with these numbers of (gold, predicted) pairs."""
        row_of, column_of = ({name: place for place, name in enumerate(names)} for names in (rows, columns))
        counts = np.zeros((len(rows), len(columns)), dtype=np.int64)
        for (gold, predicted), count in pairs.items():
            counts[row_of[gold], column_of[predicted]] = count
        return cls(rows, columns, counts)

    def of_most_frequent(self, size: int) -> Confusion:
        """Return the matrix of the classes with the most gold items, the others merged into one row and column.

        Rows and columns that are no class, such as missed items, are kept.
        """
        given = set(self.columns)
        items = {name: sum_ for name, sum_ in zip(self.rows, self.counts.sum(axis=1), strict=True) if name in given}
        if len(items) <= size:
            return self
        frequent = set(sorted(items, key=lambda name: -items[name])[:size])
        classes = [*(name for name in items if name in frequent), OTHERS]
        rows = [*classes, *(name for name in self.rows if name not in items)]
        columns = [*classes, *(name for name in self.columns if name not in items)]
        row_of, column_of = (
            np.array([shown.index(name if name in frequent or name not in items else OTHERS) for name in names])
            for names, shown in ((self.rows, rows), (self.columns, columns))
        )
        counts = np.zeros((len(rows), len(columns)), dtype=np.int64)
        np.add.at(counts, (row_of[:, None], column_of), self.counts)
        return Confusion(rows, columns, counts)


class Chip(NamedTuple):
    """An entity or class of a prediction, as the report lists it below the post.

    Attributes:
        text: text of the chip, such as the words of an entity or the name of a class.
        style: class of the style sheet: `right`, `wrong`, `head`, `tail`, or empty.
        span: the words that it refers to; None for a class of the whole post.
        tag: small print, such as a type and the model's confidence.
        positions: positions in the record's `attention` whose weights it shows.
    """

    text: str
    style: str = ""
    span: tuple[int, int] | None = None
    tag: str = ""
    positions: Sequence[int] = ()


@dataclass(frozen=True)
class Answer:
    """A prediction as the report shows it.

    Attributes:
        right: whether everything predicted is right and nothing is missing.
        confidence: from 0 to 1.
        classes: gold and predicted classes, by which posts are filtered.
        gold, predicted: each as one line of text, for tables.
        lines: chips listed below the post, by heading.
        word_styles: classes of the style sheet for words, by position.
        word_positions: positions in the record's `attention` shown when hovering over a word, by its position.
    """

    right: bool
    confidence: float
    classes: list[str]
    gold: str
    predicted: str
    lines: list[tuple[str, list[Chip]]]
    word_styles: dict[int, list[str]] = field(default_factory=dict)
    word_positions: dict[int, Sequence[int]] = field(default_factory=dict)


class Finding(NamedTuple):
    """A predicted entity or relation, for review.

    Attributes:
        label: its type or relation; empty for an entity whose type the task does not know.
        spans: word spans [start, end): one for an entity, head and tail for a relation.
        confidence: 0 to 1; None for entities that were given as input.
        positions: positions in the record's `attention` whose weights it shows.
    """

    label: str
    spans: tuple[tuple[int, int], ...]
    confidence: float | None = None
    positions: Sequence[int] = ()


class Proposal(NamedTuple):
    """A model's proposal for the review of a prediction.

    Attributes:
        certainty: 0 to 1, that of the model's least certain decision; None if it decides nothing.
        findings: entities, and relations between them; the negative relation included.
    """

    certainty: float | None
    findings: list[Finding]


def softmax(logits: Array) -> Array:
    """Return (..., C) probabilities."""
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: Array = shares / shares.sum(axis=-1, keepdims=True)
    return result


def log_odds(probability: Array) -> Array:
    """Return the log-odds, finite also at 0 and 1."""
    bounded = np.clip(probability, LEAST, 1 - LEAST)
    result: Array = np.log(bounded) - np.log1p(-bounded)
    return result
