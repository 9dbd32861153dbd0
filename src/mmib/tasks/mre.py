"""Relation extraction: the relation between two marked entities of a post."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mmib.backbone import MultimodalIB
from mmib.datamodules.markers import levitate_markers, mark_entities, marker_places
from mmib.datamodules.posts import RelationPost
from mmib.labels import LabelSet
from mmib.nn.relation import RelationHead, likeliest_relation
from mmib.records import Answer, Chip, Finding, Proposal, Record, softmax
from mmib.schema import ConfigError, Prepared, Span, Wording, register_task
from mmib.tasks.base import ClassBatch, ClassExample, Classification, ClassificationNetwork

HEAD_AND_TAIL = ("head", "tail")


@dataclass(kw_only=True)
class MREBatch(ClassBatch):
    """Posts with two marked entities; `positions` are their opening markers, head first.

    With levitated markers a row may have several entity pairs in extraction; rows of a data set have one each.
    """


@dataclass(kw_only=True)
class RelationExample(ClassExample):
    """A row of relation extraction; its label is the id of a relation.

    Attributes:
        head: words [start, end) of the head entity.
        tail: words [start, end) of the tail entity.
        head_index: position of the head's opening marker.
        tail_index: position of the tail's opening marker.
        places: positions of all four markers if they levitate over the text; see `MarkedPost`.
    """

    head: Span
    tail: Span
    head_index: int
    tail_index: int
    places: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Convert spans to tuples, as JSON has lists."""
        self.head, self.tail = (self.head[0], self.head[1]), (self.tail[0], self.tail[1])

    def spans(self) -> dict[str, Span]:
        """See `Example.spans`."""
        return {"head": self.head, "tail": self.tail}


class RelationNetwork(ClassificationNetwork):
    """Backbone and a classifier on the fused states of both opening markers.

    Args:
        backbone: the shared network.
        labels: the relations.
        threshold: see `mmib.modules.MREModule`.
        head_dropout: dropout on the states that the classifier reads.

    Raises:
        ConfigError: If the threshold is outside (0, 1), or set for relations without a negative class.
    """

    task = "mre"

    def __init__(
        self, backbone: MultimodalIB, labels: LabelSet, threshold: float | None = None, head_dropout: float = 0.0
    ) -> None:
        super().__init__(backbone, labels)
        if threshold is not None and not 0 < threshold < 1:
            raise ConfigError(f"threshold is {threshold}: it is a probability between 0 and 1")
        if threshold is not None and labels.negative is None:
            raise ConfigError(
                f"threshold is {threshold}, and the label set has no negative class to predict below it: leave the "
                "threshold out, or name the class with 'negative' in data.labels"
            )
        self.threshold = threshold
        self.head = RelationHead(backbone.dim, len(labels), head_dropout)

    def predict(self, logits: Tensor) -> Tensor:
        """Return (B,) class ids for (B, C) logits."""
        negative = 0 if self.labels.negative is None else self.labels.id_of(self.labels.negative)
        return likeliest_relation(logits, negative, self.threshold)

    def settings(self) -> dict[str, float | bool | None]:
        """See `ExtractionNetwork.settings`."""
        return {"threshold": self.threshold}


class RelationExtraction(Classification):
    """The task `mre`: predicts the relation between the two entities of a `RelationPost`."""

    name = "mre"
    title = "relation extraction"
    example = RelationExample
    network: ClassVar[type[Any]] = RelationNetwork
    finds = "relations"
    marked = HEAD_AND_TAIL
    wording: ClassVar[Wording] = Wording(
        unit="row",
        label="relation",
        confidence="the softmax probability of the predicted relation",
        legend="Underlined: head with one line, tail with two.",
    )

    def labels_of(self, post: RelationPost) -> list[str]:
        """See `Task.labels_of`."""
        return [post.relation]

    def encode(self, row: int, post: RelationPost, pieces: list[list[int]], prepared: Prepared) -> RelationExample:
        """See `Task.encode`: adds the markers, and cuts the post to a window of words around both entities."""
        mark = levitate_markers if prepared.levitated else mark_entities
        marked = mark(pieces, post.head, post.tail, prepared.tokenizer, prepared.max_length)
        return RelationExample(
            row=row,
            words=post.words,
            input_ids=marked.input_ids,
            word_ids=marked.word_ids,
            mentions=marked.mentions,
            head=post.head,
            tail=post.tail,
            head_index=marked.head_index,
            tail_index=marked.tail_index,
            places=marked.places,
            label=prepared.labels.id_of(post.relation),
        )

    def collate(self, examples: Sequence[RelationExample], fields: dict[str, Any], labels: LabelSet) -> MREBatch:
        """See `Task.collate`."""
        del labels
        levitated = all(example.places for example in examples)
        return MREBatch(
            **fields,
            positions=torch.tensor([[example.head_index, example.tail_index] for example in examples]),
            markers=marker_places([[example.places] for example in examples]) if levitated else None,
            label_ids=torch.tensor([example.label for example in examples]),
        )

    def attention_rows(self, words: int) -> int:
        """See `Task.attention_rows`: head and tail."""
        del words
        return len(HEAD_AND_TAIL)

    def answer(self, record: Record, labels: LabelSet) -> Answer:
        """See `Task.answer`: the relations, and head and tail as marked in the post."""
        spans = _marked_spans(record)
        chips = [
            (name, [Chip(" ".join(map(str, record["words"][slice(*span)])), name, span, positions=[place])])
            for place, (name, span) in enumerate(zip(HEAD_AND_TAIL, spans, strict=True))
        ]
        words = {word for span in spans for word in range(*span)}
        inside = {word: [place for place in (0, 1) if word in range(*spans[place])] for word in words}
        answer = super().answer(record, labels)
        return replace(
            answer,
            lines=[*chips, *answer.lines],
            word_styles={word: [HEAD_AND_TAIL[place] for place in places] for word, places in inside.items()},
            # If a word belongs to both, the shorter of the two.
            word_positions={
                word: [min(places, key=lambda place: spans[place][1] - spans[place][0])]
                for word, places in inside.items()
            },
        )

    def proposal(self, record: Record, labels: LabelSet) -> Proposal:
        """See `Task.proposal`: head and tail, which are inputs, and the relation between them."""
        head, tail = _marked_spans(record)
        shares = softmax(np.asarray(record["scores"], dtype=np.float64))
        confidence = float(shares[labels.id_of(record["predicted"])])
        relation = Finding(record["predicted"], (head, tail), confidence, range(len(HEAD_AND_TAIL)))
        return Proposal(confidence, [Finding("", (head,)), Finding("", (tail,)), relation])


def _marked_spans(record: Record) -> list[Span]:
    """Return the word spans [start, end) of head and tail."""
    return [(int(record[name][0]), int(record[name][1])) for name in HEAD_AND_TAIL]


register_task(RelationExtraction())
