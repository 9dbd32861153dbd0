"""What a line of a prediction file says, and the forms in which tasks hand it on to analysis and report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Record = dict[str, Any]
Array = NDArray[np.float64]

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

    def overlaps(self, other: Entity) -> bool:
        """Whether the two share a word."""
        return self.start < other.end and other.start < self.end


class Item(NamedTuple):
    """One of what a task extracts from a post: an entity, a relation, or the class of the post.

    Attributes:
        label: its name.
        form: its surface form (`surface_form`); empty for the class of a whole post, and where it is not known.
        span: words [start, end) of an entity; empty for what is of the whole row.
    """

    label: str
    form: str
    span: tuple[int, ...] = ()

    def overlaps(self, other: Item) -> bool:
        """Whether the two are of a common word, or of the whole row."""
        return not self.span or (self.span[0] < other.span[1] and other.span[0] < self.span[1])


def surface_form(words: Sequence[str], spans: Iterable[Sequence[int]]) -> str:
    """The words of spans, case-folded, with a tab between the spans; empty without words or spans."""
    return "\t".join(" ".join(words[start:end]).casefold() for start, end in spans) if words else ""


@dataclass(frozen=True)
class TrainingItems:
    """What the rows that a model was trained on are annotated with.

    Attributes:
        labels: how often each label occurs.
        forms: the surface forms.
    """

    labels: dict[str, int]
    forms: frozenset[str]

    @classmethod
    def of(cls, items: Iterable[Item]) -> TrainingItems:
        """Counts items."""
        labels, forms = Counter[str](), set[str]()
        for item in items:
            labels[item.label] += 1
            forms.add(item.form)
        return cls(dict(labels), frozenset(forms - {""}))

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"labels": self.labels, "forms": sorted(self.forms)}

    @classmethod
    def from_dict(cls, content: Any) -> TrainingItems:
        """What `to_dict` gave.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        labels = {str(name): int(count) for name, count in content["labels"].items()}
        return cls(labels, frozenset(map(str, content["forms"])))


class Judgement(NamedTuple):
    """How sure a model was of a prediction, and whether it was right.

    Attributes:
        logits: of the alternatives, in nats; what a temperature divides.
        predicted: which of them was predicted.
        gold: which of them is right.
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
    """How often each gold class got each predicted class.

    Attributes:
        rows: gold classes.
        columns: predicted classes; those that are also gold come first, in the order of the rows.
        counts: (rows, columns).
    """

    rows: list[str]
    columns: list[str]
    counts: NDArray[np.int64]


class Chip(NamedTuple):
    """Something that a prediction speaks of, as the report shows it in a line of its own.

    Attributes:
        text: what it says, such as the words of an entity or the name of a class.
        style: class of the style sheet: `right`, `wrong`, `head`, `tail`, or empty.
        span: the words that it stands for; None for a class of the whole post.
        tag: what is added in small print, such as a type and how sure the model is.
        positions: places in the record's `attention` whose weights it stands for.
    """

    text: str
    style: str = ""
    span: tuple[int, int] | None = None
    tag: str = ""
    positions: Sequence[int] = ()


@dataclass(frozen=True)
class Answer:
    """What the report shows of a prediction.

    Attributes:
        right: whether everything predicted is right and nothing is missing.
        confidence: from 0 to 1.
        classes: gold and predicted classes, by which posts are filtered.
        gold, predicted: each as one line of text, for tables.
        lines: what is listed below the post, by heading.
        word_styles: classes of the style sheet for words, by position.
        word_positions: places in the record's `attention` that pointing at a word shows, by its position.
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
    """An entity or a relation that a model predicts, as a person reviews it.

    Attributes:
        label: its type or relation; empty for an entity whose type the task does not know.
        spans: words [start, end): of an entity its own, of a relation those of head and tail.
        confidence: 0 to 1; None for what was given.
        positions: places in the record's `attention` whose weights it stands for.
    """

    label: str
    spans: tuple[tuple[int, int], ...]
    confidence: float | None = None
    positions: Sequence[int] = ()


class Proposal(NamedTuple):
    """What a model proposes to a person who reviews a prediction.

    Attributes:
        certainty: 0 to 1, of the decision that the model is least certain of; None where it decides nothing.
        findings: entities, and relations between them; the negative relation included.
    """

    certainty: float | None
    findings: list[Finding]


def softmax(logits: Array) -> Array:
    """(..., C) probabilities."""
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: Array = shares / shares.sum(axis=-1, keepdims=True)
    return result


def log_odds(probability: Array) -> Array:
    """Log-odds, finite also at 0 and 1."""
    bounded = np.clip(probability, LEAST, 1 - LEAST)
    result: Array = np.log(bounded) - np.log1p(-bounded)
    return result
