"""Scores of extracted triples. A triple is right only if its head, relation and tail are all right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from mmib.base.resampling import standard_error
from mmib.scores import Scores

# Identifies an entity of a post: by its span, or by its span and type. Equal mentions are the same mention.
Mention: TypeAlias = tuple[Any, ...]


class Triple(NamedTuple):
    """A relation between two mentions of a post."""

    head: Mention
    relation: str
    tail: Mention


@dataclass(frozen=True)
class PostTriples:
    """Gold and predicted mentions and triples of a post. Duplicates count once.

    Attributes:
        mentions: the gold entities, whether or not they are in a pair.
        annotated: the annotated pairs, each with its relation, including the negative one.
        found: the entities that were extracted, or given.
        predicted: the extracted triples, without the negative relation.
        negative: the relation that means "no relation"; None if the label set has none.
    """

    mentions: Sequence[Mention]
    annotated: Sequence[Triple]
    found: Sequence[Mention]
    predicted: Sequence[Triple]
    negative: str | None = None

    @property
    def gold(self) -> set[Triple]:
        """The annotated pairs that are related."""
        return {triple for triple in self.annotated if triple.relation != self.negative}

    def on_annotated_pairs(self) -> PostTriples:
        """Return a copy without predictions for pairs that are annotated in neither direction."""
        pairs = {frozenset((triple.head, triple.tail)) for triple in self.annotated}
        kept = [triple for triple in self.predicted if frozenset((triple.head, triple.tail)) in pairs]
        return replace(self, predicted=kept)


@dataclass(frozen=True)
class Counted:
    """Numbers of correct, predicted and gold items per post, and the scores over all posts."""

    correct: list[int]
    predicted: list[int]
    gold: list[int]

    @property
    def scores(self) -> Scores:
        """Micro precision, recall and F1."""
        return Scores.from_counts(sum(self.correct), sum(self.predicted), sum(self.gold))

    @property
    def f1_error(self) -> float:
        """Standard error of F1 over posts, by bootstrap."""
        above = 2.0 * np.array(self.correct)
        return standard_error(above, np.array(self.predicted, dtype=float) + np.array(self.gold))


def count_triples(posts: Iterable[PostTriples]) -> Counted:
    """Count triples; a triple is correct if both mentions, the relation and the direction are."""
    return _counted((post.gold, set(post.predicted)) for post in posts)


def count_mentions(posts: Iterable[PostTriples]) -> Counted:
    """Count entities."""
    return _counted((set(post.mentions), set(post.found)) for post in posts)


def _counted(pairs: Iterable[tuple[set[Any], set[Any]]]) -> Counted:
    counts = [(len(gold & predicted), len(predicted), len(gold)) for gold, predicted in pairs]
    return Counted(*(list(column) for column in zip(*counts, strict=True))) if counts else Counted([], [], [])


class Fault(StrEnum):
    """Kind of a false positive triple; the first that applies."""

    NO_ENTITY = "head or tail is no entity"
    NOTHING_TOLD = "the gold tells nothing of the pair"
    NOT_RELATED = "the pair is not related"
    WRONG_WAY = "head and tail are the wrong way round"
    WRONG_RELATION = "another relation"


class Lack(StrEnum):
    """Kind of a false negative triple; the first that applies."""

    NOT_FOUND = "head or tail was not found"
    NO_RELATION = "no relation was found between them"
    WRONG = "another relation or direction was found"


def count_faults(posts: Iterable[PostTriples]) -> Counter[Fault]:
    """Count false positive triples by kind."""
    return Counter(_fault(triple, post) for post in posts for triple in set(post.predicted) - post.gold)


def count_lacks(posts: Iterable[PostTriples]) -> Counter[Lack]:
    """Count false negative triples by kind."""
    return Counter(_lack(triple, post) for post in posts for triple in post.gold - set(post.predicted))


def _fault(triple: Triple, post: PostTriples) -> Fault:
    pair = {triple.head, triple.tail}
    if not pair <= set(post.mentions):
        return Fault.NO_ENTITY
    relations = {other.relation for other in post.annotated if {other.head, other.tail} == pair}
    if not relations:
        return Fault.NOTHING_TOLD
    if relations == {post.negative}:
        return Fault.NOT_RELATED
    return Fault.WRONG_WAY if triple.relation in relations else Fault.WRONG_RELATION


def _lack(triple: Triple, post: PostTriples) -> Lack:
    pair = {triple.head, triple.tail}
    if not pair <= set(post.found):
        return Lack.NOT_FOUND
    related = any({other.head, other.tail} == pair for other in post.predicted)
    return Lack.WRONG if related else Lack.NO_RELATION
