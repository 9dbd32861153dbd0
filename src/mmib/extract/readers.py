"""What each trained network reads in prepared posts: entities, or relations between entities."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from mmib.analysis.calibration import Temperature, entities, entity_confidence, tempered
from mmib.backbone import latents
from mmib.base.seeding import seeded
from mmib.datamodules.examples import (
    Box,
    EntityExample,
    Example,
    RelationExample,
    collate_entities,
    collate_regions,
    collate_relations,
    collate_text,
    fit_words,
    nested,
)
from mmib.datamodules.markers import Span, mark_entities
from mmib.datamodules.words import Token
from mmib.export.model import TrainedModel
from mmib.extract.pictures import View, in_threads
from mmib.extract.results import Entity, Evidence, Relation, fits, may_relate
from mmib.network import EntityNetwork, RelationNetwork, evidence
from mmib.schema import NO_IMAGE, NO_RELATION, RELATION_IDS, RELATIONS, TAG_IDS, TAGS, DataError, PostBatch

ROWS = 32  # of a batch
MOST_PAIRS = 200  # of one post
DIGITS = 6


@dataclass
class Prepared:
    """A post that has been looked over and can be read.

    Attributes:
        text: the post.
        tokens: its words, at least one.
        given: entities that the caller knows; None where they are to be found.
        views: by the most crops that a model takes, the pictures that it looks at; empty without an image.
        notes: what the reader of the result should know.
    """

    text: str
    tokens: list[Token]
    given: list[Entity] | None
    views: dict[int, list[View]]
    notes: list[str] = field(default_factory=list)

    def words(self) -> list[str]:
        """The words alone."""
        return [token.text for token in self.tokens]

    def span(self, entity: Entity) -> Span:
        """Words [start, end) of an entity, whose ends are ends of words."""
        inside = [place for place, token in enumerate(self.tokens) if entity.start <= token.start < entity.end]
        return inside[0], inside[-1] + 1


class Scene(NamedTuple):
    """The regions of a post's image: features (R, V), None without an image, and their boxes."""

    features: Tensor | None
    boxes: list[Box]


class Sight(NamedTuple):
    """What decides which regions a model sees: the image encoder, none where it is empty, and the most crops."""

    encoder: str
    crops: int


class Wanted(NamedTuple):
    """What is asked for beside the result: evidence, and how many samples of the latents."""

    evidence: bool = False
    samples: int = 0


class Scored(NamedTuple):
    """What a network says of a batch: scores at the mean of the latents and at samples of them, and evidence."""

    scores: Tensor
    drawn: list[Tensor]
    found: dict[str, Tensor]


NetworkT = TypeVar("NetworkT", EntityNetwork, RelationNetwork)
ExampleT = TypeVar("ExampleT", bound=Example)


class Reader(ABC, Generic[NetworkT, ExampleT]):
    """Puts posts before a network.

    Args:
        model: the network and how it reads.
        network: the same network, as what it is.
        device: where it computes.
    """

    def __init__(self, model: TrainedModel, network: NetworkT, device: torch.device) -> None:
        self.network: NetworkT = network.to(device)
        self.device = device
        self.tokenizer = network.backbone.text_encoder.tokenizer
        self.image_encoder = network.backbone.image_encoder
        self.max_length = model.max_length
        self.max_crops = model.max_crops
        self.reads_images = model.reads_images
        self.temperature: Temperature = model.temperature

    @cached_property
    def sight(self) -> Sight:
        """Equal for readers that see the same regions in an image, so that it is encoded once for both."""
        return Sight(self.image_encoder.fingerprint() if self.reads_images else "", self.max_crops)

    @abstractmethod
    def collate(self, examples: Sequence[ExampleT], posts: dict[str, Any]) -> PostBatch:
        """The batch of examples; `posts` are the fields that every task has."""

    def look(self, posts: Sequence[Prepared]) -> list[Scene]:
        """The regions of each post's image."""
        shown = [post.views.get(self.max_crops, []) if self.reads_images else [] for post in posts]
        pictures = [view.picture for own in shown for view in own]
        encoded: list[Tensor] = []
        for start in range(0, len(pictures), ROWS):
            pixels = torch.stack(in_threads(self.image_encoder.transform, pictures[start : start + ROWS]))
            encoded += self.image_encoder.features(pixels).unbind()
        features, cells = iter(encoded), self.image_encoder.region_boxes()
        scenes = []
        for own in shown:
            regions = [next(features) for _ in own]
            boxes = [nested(view.box, cell) for view in own for cell in cells]
            scenes.append(Scene(torch.cat(regions) if regions else None, boxes))
        return scenes

    def batches(
        self, examples: Sequence[ExampleT], scenes: Sequence[Scene], wanted: Wanted
    ) -> Iterator[tuple[list[int], PostBatch, Scored]]:
        """Examples of like length together: which they are, their batch, and what the network says."""
        order = sorted(range(len(examples)), key=lambda number: len(examples[number].input_ids))
        for start in range(0, len(order), ROWS):
            numbers = order[start : start + ROWS]
            own, seen = [examples[number] for number in numbers], [scenes[number] for number in numbers]
            regions = collate_regions(
                [scene.boxes for scene in seen], [scene.features for scene in seen], self.image_encoder.dim
            )
            text = collate_text(own, self.tokenizer.pad_id)
            batch = self.collate(own, {**text, **regions, "pixels": None}).to(self.device)
            yield numbers, batch, self._score(batch, wanted)

    def _score(self, batch: PostBatch, wanted: Wanted) -> Scored:
        backbone = self.network.backbone
        text, image = backbone.posteriors(batch)
        means = latents(text, drawn=False), latents(image, drawn=False)
        fused = backbone.fuse(batch, *means, need_weights=wanted.evidence)
        drawn = []
        if wanted.samples:  # seeding takes as long as a small batch
            with seeded("extract"):
                for _ in range(wanted.samples):
                    sample = latents(text, drawn=True), latents(image, drawn=True)
                    drawn.append(self.network.scores(backbone.fuse(batch, *sample).states))
        found: dict[str, Tensor] = {}
        if wanted.evidence:
            kl = {"text": text.kl(), "image": image.kl()}
            found = evidence(fused.weights, kl, batch) | {"agreement": backbone.alignment.agreement(*means)}
        return Scored(self.network.scores(fused.states), drawn, found)


class EntityReader(Reader[EntityNetwork, EntityExample]):
    """Finds entities."""

    def collate(self, examples: Sequence[EntityExample], posts: dict[str, Any]) -> PostBatch:
        """See `Reader.collate`."""
        return collate_entities(examples, posts)

    def read(
        self, posts: Sequence[Prepared], scenes: Sequence[Scene], wanted: Wanted
    ) -> list[tuple[list[Entity], Evidence | None]]:
        """The entities of each post, and what they rest on; posts get a note where words are not seen."""
        examples = self._examples(posts)
        result: list[tuple[list[Entity], Evidence | None]] = [([], None)] * len(posts)
        for numbers, batch, scored in self.batches(examples, scenes, wanted):
            word_mask = batch.position_mask
            best = self.network.crf.viterbi(scored.scores, word_mask)
            sure, *drawn = (
                self.network.crf.marginals(scores, word_mask).gather(2, best[:, :, None]).squeeze(2).tolist()
                for scores in (scored.scores, *scored.drawn)
            )
            for row, number in enumerate(numbers):
                seen = len(examples[number].word_positions)
                tags = [TAGS[tag] for tag in best[row, :seen].tolist()]
                found = self._entities(posts[number], tags, sure[row], [own[row] for own in drawn])
                rests_on = None
                if wanted.evidence:
                    unread = len(posts[number].tokens) - seen
                    rests_on = _evidence(scored.found, row, posts[number], scenes[number], seen, unread)
                result[number] = found, rests_on
        return result

    def _examples(self, posts: Sequence[Prepared]) -> list[EntityExample]:
        pieces = self.tokenizer.pieces([post.words() for post in posts])
        examples: list[EntityExample] = []
        for post, words in zip(posts, pieces, strict=True):
            ids, word_ids, positions = fit_words(words, self.tokenizer, self.max_length)
            if len(positions) < len(words):
                post.notes.append(
                    f"entities were looked for in the first {len(positions)} of {len(words)} words: the model reads "
                    f"{self.max_length} word pieces"
                )
            # Labels are not known: the collate function asks for some.
            nothing = [TAG_IDS["O"]] * len(words)
            example = EntityExample(
                row=len(examples),
                words=post.words(),
                input_ids=ids,
                word_ids=word_ids,
                mentions=[0] * len(ids),
                image_id=NO_IMAGE,
                pictures=(),
                word_positions=positions,
                gold=nothing,
                tags=nothing,
            )
            examples.append(example)
        return examples

    def _entities(
        self, post: Prepared, tags: Sequence[str], sure: Sequence[float], drawn: Sequence[Sequence[float]]
    ) -> list[Entity]:
        result = []
        for found in entities(tags):
            start, end = post.tokens[found.start].start, post.tokens[found.end - 1].end
            confidence, *samples = tempered(
                torch.tensor([entity_confidence(found, own) for own in (sure, *drawn)]).double().numpy(),
                self.temperature.value,
            ).tolist()
            result.append(
                Entity(post.text[start:end], start, end, found.type, round(confidence, DIGITS), _spread(samples))
            )
        return result


class Pair(NamedTuple):
    """Two entities of a post, head first, that a relation is looked for between."""

    post: int
    head: int
    tail: int


class RelationReader(Reader[RelationNetwork, RelationExample]):
    """Finds relations between entities."""

    def collate(self, examples: Sequence[RelationExample], posts: dict[str, Any]) -> PostBatch:
        """See `Reader.collate`."""
        return collate_relations(examples, posts)

    def read(
        self, posts: Sequence[Prepared], found: Sequence[list[Entity]], scenes: Sequence[Scene], wanted: Wanted
    ) -> list[list[Relation]]:
        """The relations between each post's entities; of two orders of a pair the one that says more is kept."""
        pairs, examples = self._examples(posts, found)
        by_pair: dict[tuple[int, frozenset[int]], Relation] = {}
        for numbers, _, scored in self.batches(examples, [scenes[pair.post] for pair in pairs], wanted):
            labels = self.network.predict(scored.scores).tolist()
            sure, *drawn = (
                (scores.double() / self.temperature.value).softmax(dim=1).tolist()
                for scores in (scored.scores, *scored.drawn)
            )
            for row, number in enumerate(numbers):
                label, pair = labels[row], pairs[number]
                if RELATIONS[label] == NO_RELATION:
                    continue
                own = found[pair.post]
                rests_on = (
                    _evidence(scored.found, row, posts[pair.post], scenes[pair.post], 2) if wanted.evidence else None
                )
                relation = Relation(
                    label=RELATIONS[label],
                    head=pair.head,
                    tail=pair.tail,
                    confidence=round(sure[row][label], DIGITS),
                    compatible=fits(RELATIONS[label], own[pair.head].type, own[pair.tail].type),
                    spread=_spread([shares[row][label] for shares in drawn]),
                    evidence=rests_on,
                )
                key = pair.post, frozenset((pair.head, pair.tail))
                by_pair[key] = min(relation, by_pair.get(key, relation), key=_rank)
        result: list[list[Relation]] = [[] for _ in posts]
        for (number, _), relation in by_pair.items():
            result[number].append(relation)
        return [sorted(own, key=_rank) for own in result]

    def _examples(
        self, posts: Sequence[Prepared], found: Sequence[list[Entity]]
    ) -> tuple[list[Pair], list[RelationExample]]:
        pairs: list[Pair] = []
        examples: list[RelationExample] = []
        pieces = self.tokenizer.pieces([post.words() for post in posts])
        for number, (post, own, words) in enumerate(zip(posts, found, pieces, strict=True)):
            asked, too_far = candidate_pairs(own), 0
            if len(asked) > MOST_PAIRS:
                post.notes.append(f"relations were looked for in the first {MOST_PAIRS} of {len(asked)} pairs")
            for first, second in asked[:MOST_PAIRS]:
                head, tail = post.span(own[first]), post.span(own[second])
                try:
                    marked = mark_entities(words, head, tail, self.tokenizer, self.max_length)
                except DataError:
                    too_far += 1
                    continue
                pairs.append(Pair(number, first, second))
                example = RelationExample(
                    row=len(examples),
                    words=post.words(),
                    input_ids=marked.input_ids,
                    word_ids=marked.word_ids,
                    mentions=marked.mentions,
                    image_id=NO_IMAGE,
                    pictures=(),
                    head=head,
                    tail=tail,
                    head_index=marked.head_index,
                    tail_index=marked.tail_index,
                    # Labels are not known: the collate function asks for some.
                    relation=RELATION_IDS[NO_RELATION],
                )
                examples.append(example)
            if too_far:
                post.notes.append(
                    f"{too_far} pairs stand too far apart: the model reads {self.max_length} word pieces at a time"
                )
        return pairs, examples


def candidate_pairs(found: Sequence[Entity]) -> list[tuple[int, int]]:
    """Heads and tails to look for relations between: first the orders that some relation's argument types allow.

    A pair that no relation fits in either order comes last, in the order of the text. Entities of unknown type fit all.
    """
    fitting, others = [], []
    for first, second in itertools.combinations(range(len(found)), 2):
        orders = [
            (head, tail)
            for head, tail in ((first, second), (second, first))
            if may_relate(found[head].type, found[tail].type)
        ]
        fitting += orders
        others += [] if orders else [(first, second)]
    return fitting + others


def _rank(relation: Relation) -> tuple[bool, float]:
    return not relation.compatible, -relation.confidence


def _spread(samples: Sequence[float]) -> float | None:
    return round(float(torch.tensor(samples).std(correction=0)), DIGITS) if len(samples) > 1 else None


def _evidence(
    found: dict[str, Tensor], row: int, post: Prepared, scene: Scene, reads: int, unread: int = 0
) -> Evidence:
    """Evidence of a row, as lists without padding; the head reads `reads` positions, and not `unread` more."""
    words, regions = len(post.tokens), len(scene.boxes)
    kl = [_number(value) for value in found["kl"][row].tolist()[:words]]
    weights = found["attention"][row].tolist() if regions and "attention" in found else []
    attention: list[list[float] | None] = [[round(own, DIGITS) for own in line[:regions]] for line in weights[:reads]]
    return Evidence(
        tokens=[(token.start, token.end) for token in post.tokens],
        kl=kl + [None] * (words - len(kl)),
        regions=scene.boxes,
        kl_image=[round(value, DIGITS) for value in found["kl_image"][row].tolist()[:regions]],
        attention=attention + [None] * unread if attention else [],
        agreement=_number(float(found["agreement"][row])),
    )


def _number(value: float) -> float | None:
    """A number as JSON can hold it; None for NaN."""
    return None if math.isnan(value) else round(value, DIGITS)
