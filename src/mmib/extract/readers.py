"""Run trained networks on prepared posts, and read entities, relations or labels of posts from their output."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from mmib.analysis.calibration import Temperature, tempered
from mmib.base.seeding import seeded
from mmib.datamodules.examples import collate_regions, collate_text, nested
from mmib.datamodules.markers import marker_places, opening
from mmib.datamodules.posts import LabelledPost, RelationPost, TaggedPost
from mmib.datamodules.words import Token
from mmib.extract.pictures import View, pixels_of
from mmib.extract.results import Entity, Evidence, PostLabel, Relation
from mmib.information import evidence
from mmib.labels import LabelSet
from mmib.nn.crf import LinearChainCRF
from mmib.nn.gaussian import Posterior
from mmib.schema import Box, DataError, Example, InputError, PostBatch, Prepared, Span, task_named
from mmib.schema import Post as AnnotatedPost
from mmib.tagging import OUTSIDE, entities

if TYPE_CHECKING:
    from mmib.backbone import Posteriors
    from mmib.export.model import TrainedModel

ROWS = 32  # per batch
PAIRS = 256  # per batch of posts with all pairs of entities in one row, padding included
MOST_PAIRS = 200  # per post
DIGITS = 6


@dataclass
class PreparedPost:
    """A validated post, ready to be read.

    Attributes:
        text: the text of the post.
        tokens: its words, at least one.
        given: entities given by the caller; None if they are to be found.
        views: the views of its image, by the maximum number of crops of a model; empty without an image.
        notes: remarks for the reader of the result.
    """

    text: str
    tokens: list[Token]
    given: list[Entity] | None
    views: dict[int, list[View]]
    notes: list[str] = field(default_factory=list)

    def words(self) -> list[str]:
        """The words as strings."""
        return [token.text for token in self.tokens]

    def span(self, entity: Entity) -> Span:
        """Word span [start, end) of an entity, whose boundaries are word boundaries."""
        inside = [place for place, token in enumerate(self.tokens) if entity.start <= token.start < entity.end]
        return inside[0], inside[-1] + 1


class Regions(NamedTuple):
    """Regions of a post's image: features (R, V), None without an image, and their boxes."""

    features: Tensor | None
    boxes: list[Box]


class ViewKey(NamedTuple):
    """What determines the regions a model sees: the image encoder (empty for none) and the maximum number of crops."""

    encoder: str
    crops: int


class Wanted(NamedTuple):
    """What to compute besides the result: evidence, and the number of samples of the latents."""

    evidence: bool = False
    samples: int = 0

    def checked(self) -> Self:
        """Return this.

        Raises:
            InputError: the number of samples gives no spread, or is no whole number.
        """
        if type(self.samples) is not int or self.samples < 0 or self.samples == 1:
            raise InputError(f"samples is {self.samples!r}: a spread takes two samples or more, and 0 asks for none")
        return self


class Scored(NamedTuple):
    """Output of a network for a batch.

    Attributes:
        decoded: decoded scores at the means of the latents, as returned by `ExtractionNetwork.decode`.
        scores: the scores at the means of the latents.
        sampled: the scores at samples of the latents.
        evidence: tensors (B, ...), if requested.
    """

    decoded: dict[str, Tensor]
    scores: Tensor
    sampled: list[Tensor]
    evidence: dict[str, Tensor]


class ModelReader:
    """Runs a network on posts.

    The labels of these posts are unknown: they are encoded by the task as posts with placeholder labels.

    Args:
        model: the network and its settings.
        device: the device to compute on.
        bf16: whether matrix products use bf16; the text encoder's weights are converted to it permanently.

    Raises:
        EncoderError: the runtime of the image encoder cannot run it.
    """

    def __init__(self, model: TrainedModel, device: torch.device, bf16: bool = False) -> None:
        self.model = model
        self.task = task_named(model.task)
        self.labels: LabelSet = model.labels
        self.network = model.network.to(device)
        self.device = device
        self.bf16 = bf16
        if bf16:
            # Autocast would convert them again for every batch.
            for module in model.network.backbone.text_encoder.modules():
                if isinstance(module, nn.Linear):
                    module.to(torch.bfloat16)
        self.tokenizer = model.network.backbone.text_encoder.tokenizer
        self.image_encoder = model.image_encoder
        self.max_length = model.max_length
        self.max_crops = model.max_crops
        self.reads_images = model.reads_images
        self.temperature: Temperature = model.temperature
        if self.reads_images and device.type == "cpu":
            self.image_encoder.load_runtime()

    @cached_property
    def view_key(self) -> ViewKey:
        """Equal for readers that see the same regions of an image, so that the image is encoded once for both."""
        return ViewKey(self.image_encoder.fingerprint() if self.reads_images else "", self.max_crops)

    def look(self, posts: Sequence[PreparedPost]) -> list[Regions]:
        """Encode the regions of each post's image."""
        seen = [post.views.get(self.max_crops, []) if self.reads_images else [] for post in posts]
        pictures = [view.picture for views in seen for view in views]
        encoded: list[Tensor] = []
        for pixels in pixels_of(pictures, self.image_encoder.transform, ROWS):
            encoded += self.image_encoder.features(pixels).unbind()
        features, cells = iter(encoded), self.image_encoder.region_boxes()
        found = []
        for views in seen:
            parts = [next(features) for _ in views]
            boxes = [nested(view.box, cell) for view in views for cell in cells]
            found.append(Regions(torch.cat(parts) if parts else None, boxes))
        return found

    def encode(self, row: int, post: AnnotatedPost, pieces: list[list[int]]) -> Any:
        """Encode a post as an example, see `Task.encode`."""
        levitated = self.network.backbone.text_encoder.levitated
        return self.task.encode(row, post, pieces, Prepared(self.tokenizer, self.max_length, self.labels, levitated))

    def unannotated(
        self, posts: Sequence[PreparedPost], annotate: Callable[[list[str]], AnnotatedPost], what: str
    ) -> list[Any]:
        """Encode each post as an example; posts get a note if some of their words are not seen.

        Args:
            posts: the posts.
            annotate: turns words into a post as a reader of data yields it, with placeholder labels.
            what: the beginning of the note, such as `entities were looked for in`.
        """
        # A word has at least one piece: words past `max_length` are never seen, and each would cost a step of the CRF.
        readable = [post.words()[: self.max_length] for post in posts]
        pieces = self.tokenizer.pieces(readable)
        examples = []
        for row, (post, words) in enumerate(zip(posts, readable, strict=True)):
            example = self.encode(row, annotate(words), pieces[row])
            seen = _words_seen(example)
            if seen < len(post.tokens):
                post.notes.append(
                    f"{what} the first {seen} of {len(post.tokens)} words: the model reads {self.max_length} word "
                    "pieces"
                )
            examples.append(example)
        return examples

    def batches(
        self, examples: Sequence[Example], regions: Sequence[Regions], wanted: Wanted
    ) -> Iterator[tuple[list[int], PostBatch, Scored]]:
        """Batch examples of similar length: yield their indices, the batch, and the output of the network."""
        order = sorted(range(len(examples)), key=lambda number: len(examples[number].input_ids))
        for start in range(0, len(order), ROWS):
            numbers = order[start : start + ROWS]
            batch = self.collate([examples[number] for number in numbers], [regions[number] for number in numbers])
            yield numbers, batch, self.score(batch, wanted)

    def collate(self, examples: Sequence[Example], regions: Sequence[Regions]) -> PostBatch:
        """Collate examples and their regions into a batch on the device."""
        images = collate_regions(
            [image.boxes for image in regions], [image.features for image in regions], self.image_encoder.dim
        )
        fields = {**collate_text(examples, self.tokenizer.pad_id), **images, "pixels": None}
        return self.task.collate(examples, fields, self.labels).to(self.device)

    def score(self, batch: PostBatch, wanted: Wanted) -> Scored:
        """Run the network on a batch; a batch with several pairs of entities per row has an output per pair."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return self._scored(batch, wanted)

    def _scored(self, batch: PostBatch, wanted: Wanted) -> Scored:
        backbone = self.network.backbone
        found = backbone.posteriors(batch)
        means = found.latents(sampled=False)
        fused = backbone.fuse(batch, *means, need_weights=wanted.evidence)
        scores = self.network.scores(by_pair(batch, fused.states))
        sampled = []
        if wanted.samples:  # seeding takes as long as a small batch
            with seeded("extract"):
                for _ in range(wanted.samples):
                    states = backbone.fuse(batch, *found.latents(sampled=True)).states
                    sampled.append(self.network.scores(by_pair(batch, states)))
        reasons: dict[str, Tensor] = {}
        if wanted.evidence:
            similarity = backbone.alignment.similarity(*means[:2])
            reasons = self._evidence(batch, found, fused.weights, similarity)
        return Scored(self.network.decode(scores, batch), scores, sampled, reasons)

    def _evidence(
        self, batch: PostBatch, found: Posteriors, weights: Tensor | None, similarity: Tensor
    ) -> dict[str, Tensor]:
        """Evidence for the scores of a batch; see `mmib.information.evidence`."""
        if batch.markers is not None:  # scores have a row per pair
            row, _ = _pairs(batch.markers)
            weights = None if weights is None else by_pair(batch, weights)
            similarity, markers = similarity[row], found.markers
            text, image = (Posterior(*(part[row] for part in side)) for side in (found.text, found.image))
            found = found._replace(text=text, image=image)
            if markers is not None:
                found = found._replace(markers=Posterior(*(by_pair(batch, part) for part in markers)))
            batch = replace(
                batch,
                rows=batch.rows[row],
                word_ids=batch.word_ids[row],
                region_mask=batch.region_mask[row],
                positions=by_pair(batch, batch.positions),
                markers=None,
            )
        latents, *_ = found.latents(sampled=False)
        return evidence(weights, self.network.backbone.kl(batch, found, latents), similarity, batch)


def _pairs(markers: Tensor) -> tuple[Tensor, Tensor]:
    """Row and index within it of each pair of entities, from (B, P, 4) positions; padding is skipped."""
    row, number = (markers >= 0).all(dim=2).nonzero(as_tuple=True)
    return row, number


def by_pair(batch: PostBatch, values: Tensor) -> Tensor:
    """Reshape (B, 2P, ...) values of opening markers to (N, 2, ...), a row per pair; return others unchanged."""
    if batch.markers is None:
        return values
    pairs: Tensor = values.unflatten(1, (batch.markers.shape[1], -1))
    return pairs[_pairs(batch.markers)]


class EntityReader(ModelReader):
    """Finds entities from the BIO tags of words."""

    def read(
        self, posts: Sequence[PreparedPost], regions: Sequence[Regions], wanted: Wanted
    ) -> list[tuple[list[Entity], Evidence | None]]:
        """Entities of each post, and the evidence for them; posts get a note if some of their words are not seen."""
        examples = self._examples(posts)
        result: list[tuple[list[Entity], Evidence | None]] = [([], None)] * len(posts)
        for numbers, batch, scored in self.batches(examples, regions, wanted):
            tags = scored.decoded["predicted"].tolist()
            confidence = [scored.decoded["confidence"], *self._confidence(batch, scored)]
            rows = zip(numbers, tags, *(values.tolist() for values in confidence), strict=True)
            for row, (number, ids, *sure) in enumerate(rows):
                post, seen = posts[number], _words_seen(examples[number])
                names = [self.model.outputs[tag] for tag in ids[:seen]]
                found = None
                if wanted.evidence:
                    unread = len(post.tokens) - seen
                    found = _evidence(scored.evidence, row, post, regions[number], seen, unread)
                result[number] = self._entities(post, names, sure), found
        return result

    def _examples(self, posts: Sequence[PreparedPost]) -> list[Any]:
        def untagged(words: list[str]) -> TaggedPost:
            return TaggedPost(words=words, image="", place="", tags=[OUTSIDE] * len(words))

        return self.unannotated(posts, untagged, "entities were looked for in")

    def _confidence(self, batch: PostBatch, scored: Scored) -> list[Tensor]:
        """Probabilities (B, W) of each predicted tag, one tensor per sample of the latents."""
        tags = scored.decoded["predicted"].clamp(min=0)[:, :, None]
        return [self._probabilities(scores, batch).gather(2, tags).squeeze(2) for scores in scored.sampled]

    def _probabilities(self, scores: Tensor, batch: PostBatch) -> Tensor:
        """Probabilities (B, W, K) of the tags, from their scores."""
        crf = getattr(self.network, "crf", None)
        return crf.marginals(scores, batch.position_mask) if isinstance(crf, LinearChainCRF) else scores.softmax(dim=2)

    def _entities(self, post: PreparedPost, tags: Sequence[str], sure: Sequence[Sequence[float]]) -> list[Entity]:
        """Entities from tags; `sure` holds the probability of each tag, at the means and at each sample."""
        result = []
        for found in entities(tags):
            start, end = post.tokens[found.start].start, post.tokens[found.end - 1].end
            least = np.array([min(values[found.start : found.end]) for values in sure], dtype=np.float64)
            confidence, *samples = tempered(least, self.temperature.value).tolist()
            result.append(
                Entity(post.text[start:end], start, end, found.type, round(confidence, DIGITS), _spread(samples))
            )
        return result


class Choice(NamedTuple):
    """The predicted class of a row.

    Attributes:
        name: name of the class.
        confidence: its calibrated probability.
        spread: standard deviation of the confidence over samples of the latents.
        evidence: the evidence for the class.
    """

    name: str
    confidence: float
    spread: float | None
    evidence: Evidence | None


class ClassReader(ModelReader):
    """Predicts one class for each row."""

    def choices(
        self,
        posts: Sequence[PreparedPost],
        examples: Sequence[Example],
        regions: Sequence[Regions],
        wanted: Wanted,
        left_out: str | None = None,
    ) -> Iterator[tuple[int, Choice]]:
        """Yield the index of each example, and its class.

        Args:
            posts: the post of each example.
            examples: the rows.
            regions: the regions of each example.
            wanted: what to compute besides the class.
            left_out: a class whose examples are skipped.
        """
        for numbers, batch, scored in self.batches(examples, regions, wanted):
            reads = batch.positions.shape[1]
            classes = scored.decoded["predicted"].tolist()
            shares = [
                (scores.double() / self.temperature.value).softmax(dim=1).tolist()
                for scores in (scored.scores, *scored.sampled)
            ]
            for row, (number, chosen) in enumerate(zip(numbers, classes, strict=True)):
                name = self.labels.names[chosen]
                if name == left_out:
                    continue
                confidence, *samples = (rows[row][chosen] for rows in shares)
                found = (
                    _evidence(scored.evidence, row, posts[number], regions[number], reads) if wanted.evidence else None
                )
                yield number, Choice(name, round(confidence, DIGITS), _spread(samples), found)


class Pair(NamedTuple):
    """Two entities of a post, as head and tail of a candidate relation."""

    post: int
    head: int
    tail: int


class RelationReader(ClassReader):
    """Finds relations between entities.

    With levitated markers, all pairs of a post with the same text share one row; otherwise each pair has its own row.
    """

    def batches(
        self, examples: Sequence[Any], regions: Sequence[Regions], wanted: Wanted
    ) -> Iterator[tuple[list[int], PostBatch, Scored]]:
        """See `ModelReader.batches`; each example is one pair."""
        if not self.network.backbone.text_encoder.levitated:
            yield from super().batches(examples, regions, wanted)
            return
        for rows in _in_batches(_same_texts(examples), examples):
            first = [numbers[0] for numbers in rows]
            batch = self.collate([examples[number] for number in first], [regions[number] for number in first])
            markers = marker_places([[examples[number].places for number in numbers] for numbers in rows])
            batch = replace(batch, markers=markers, positions=opening(markers)).to(self.device)
            yield list(itertools.chain.from_iterable(rows)), batch, self.score(batch, wanted)

    def read(
        self, posts: Sequence[PreparedPost], found: Sequence[list[Entity]], regions: Sequence[Regions], wanted: Wanted
    ) -> list[list[Relation]]:
        """Relations between each post's entities; of the two orders of a pair, the better-ranked relation is kept."""
        pairs, examples = self._examples(posts, found)
        by_pair: dict[tuple[int, frozenset[int]], Relation] = {}
        rows = [posts[pair.post] for pair in pairs], examples, [regions[pair.post] for pair in pairs]
        for number, choice in self.choices(*rows, wanted, left_out=self.labels.negative):
            pair = pairs[number]
            head, tail = found[pair.post][pair.head], found[pair.post][pair.tail]
            relation = Relation(
                label=choice.name,
                head=pair.head,
                tail=pair.tail,
                confidence=choice.confidence,
                compatible=self.labels.fits(choice.name, head.type, tail.type),
                spread=choice.spread,
                evidence=choice.evidence,
            )
            key = pair.post, frozenset((pair.head, pair.tail))
            by_pair[key] = min(relation, by_pair.get(key, relation), key=_rank)
        result: list[list[Relation]] = [[] for _ in posts]
        for (number, _), relation in by_pair.items():
            result[number].append(relation)
        return [sorted(relations, key=_rank) for relations in result]

    def _examples(self, posts: Sequence[PreparedPost], found: Sequence[list[Entity]]) -> tuple[list[Pair], list[Any]]:
        pairs: list[Pair] = []
        examples: list[Any] = []
        pieces = self.tokenizer.pieces([post.words() for post in posts])
        for number, (post, spotted) in enumerate(zip(posts, found, strict=True)):
            words, spans = post.words(), [post.span(entity) for entity in spotted]
            asked, too_far = candidate_pairs(spotted, self.labels), 0
            if len(asked) > MOST_PAIRS:
                post.notes.append(f"relations were looked for in the first {MOST_PAIRS} of {len(asked)} pairs")
            for head, tail in asked[:MOST_PAIRS]:
                unrelated = RelationPost(
                    words=words,
                    image="",
                    place="",
                    head=spans[head],
                    tail=spans[tail],
                    relation=self.labels.names[0],
                )
                try:
                    examples.append(self.encode(number, unrelated, pieces[number]))
                except DataError:
                    too_far += 1
                    continue
                pairs.append(Pair(number, head, tail))
            if too_far:
                post.notes.append(
                    f"{too_far} pairs are too far apart: the model reads {self.max_length} word pieces at a time"
                )
        return pairs, examples


def _same_texts(examples: Sequence[Any]) -> list[list[int]]:
    """Group examples with the same words of one post; in a post that is too long, distant pairs see other words."""
    texts: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for number, example in enumerate(examples):
        texts.setdefault((example.row, tuple(example.word_ids)), []).append(number)
    return list(texts.values())


def _in_batches(rows: Sequence[list[int]], examples: Sequence[Any]) -> Iterator[list[list[int]]]:
    """Batch rows of several pairs with little padding: up to `ROWS` rows and `PAIRS` pairs, but at least one row."""
    batch: list[list[int]] = []
    for row in sorted(rows, key=lambda numbers: (len(numbers), len(examples[numbers[0]].input_ids))):
        if batch and (len(batch) == ROWS or (len(batch) + 1) * len(row) > PAIRS):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


class LabelReader(ClassReader):
    """Predicts labels of whole posts."""

    def read(self, posts: Sequence[PreparedPost], regions: Sequence[Regions], wanted: Wanted) -> list[PostLabel]:
        """Label of each post; posts get a note if some of their words are not seen."""

        def unlabelled(words: list[str]) -> LabelledPost:
            return LabelledPost(words=words, image="", place="", label=self.labels.names[0])

        examples = self.unannotated(posts, unlabelled, f"{self.task.title} was judged by")
        choices = dict(self.choices(posts, examples, regions, wanted))
        return [PostLabel(*choices[number]) for number in range(len(posts))]


def candidate_pairs(found: Sequence[Entity], labels: LabelSet) -> list[tuple[int, int]]:
    """Candidate pairs (head, tail) for relations, first those whose types some relation allows as arguments.

    A pair that fits no relation in either order comes last, once, in text order. Entities of unknown type fit every
    relation; if relations have no argument types, every pair fits.
    """
    may_relate = functools.cache(labels.may_relate)
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


def _words_seen(example: Example) -> int:
    """Number of leading words that the encoder sees in full."""
    return max(example.word_ids) + 1


def _rank(relation: Relation) -> tuple[bool, float]:
    return not relation.compatible, -relation.confidence


def _spread(samples: Sequence[float]) -> float | None:
    return round(float(np.std(samples)), DIGITS) if len(samples) > 1 else None


def _evidence(
    found: dict[str, Tensor], row: int, post: PreparedPost, image: Regions, reads: int, unread: int = 0
) -> Evidence:
    """Evidence for a row, as lists without padding; the head reads `reads` positions, but not `unread` more."""
    words, regions = len(post.tokens), len(image.boxes)
    kl = [_number(value) for value in found["kl"][row].tolist()[:words]]
    weights = found["attention"][row].tolist() if regions and "attention" in found else []
    attention: list[list[float] | None] = [[round(share, DIGITS) for share in line[:regions]] for line in weights]
    attention = attention[:reads]
    return Evidence(
        tokens=[(token.start, token.end) for token in post.tokens],
        kl=kl + [None] * (words - len(kl)),
        regions=image.boxes,
        kl_image=[round(value, DIGITS) for value in found["kl_image"][row].tolist()[:regions]],
        attention=attention + [None] * unread if attention else [],
        similarity=_number(float(found["similarity"][row])),
    )


def _number(value: float) -> float | None:
    """Round a number for JSON; None for NaN."""
    return None if math.isnan(value) else round(value, DIGITS)
