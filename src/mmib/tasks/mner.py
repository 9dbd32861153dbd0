"""Named entity recognition: a tag for each word of a post, with a conditional random field."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB2, Entities
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mmib.backbone import ExtractionNetwork, MultimodalIB
from mmib.base.wording import counted
from mmib.datamodules.examples import fit_words
from mmib.datamodules.posts import TaggedPost
from mmib.labels import LabelSet
from mmib.metrics import ExtractionScores
from mmib.nn.crf import LinearChainCRF, bio_constraints
from mmib.records import (
    Answer,
    Chip,
    Confusion,
    Entity,
    Finding,
    Item,
    Judgement,
    Proposal,
    Record,
    log_odds,
    surface_form,
)
from mmib.schema import NO_LABEL, NO_WORD, Example, PostBatch, Prepared, Task, Wording, register_task
from mmib.scores import Counts
from mmib.tagging import BEGIN, bio_tags, count_mentions, entities, repair, split_tag

OUTSIDE_ID = 0
OTHER_SPAN, MISSED, NOTHING = "other span", "missed", "no entity"


@dataclass(kw_only=True)
class MNERBatch(PostBatch):
    """Posts of entity recognition, padded to W words; `positions` (B, W) are the words' first pieces, 0 if unseen.

    Attributes:
        word_mask: (B, W) True on words that the encoder sees; False on padding and on words beyond `max_length`.
        tags: (B, W) gold tag ids for training, with stray I- tags repaired; O where padded.
        gold: (B, W) original tag ids of the file, for scoring; -1 where padded.
    """

    word_mask: torch.Tensor
    tags: torch.Tensor
    gold: torch.Tensor

    @property
    def position_mask(self) -> torch.Tensor:
        """See `PostBatch.position_mask`."""
        return self.word_mask


@dataclass(kw_only=True)
class EntityExample(Example):
    """A post of entity recognition.

    Attributes:
        word_positions: position of the first piece of each word that fits; later words are cut off.
        gold: original tag ids of the file, one for every word of the post.
        tags: the same with stray I- tags repaired.
    """

    word_positions: list[int]
    gold: list[int]
    tags: list[int]


class EntityNetwork(ExtractionNetwork):
    """Backbone, linear emissions, and a CRF.

    Args:
        backbone: the shared network.
        labels: the entity types.
        constrained: rule out tag sequences that are invalid in BIO.
        head_dropout: dropout on the states that the emissions are computed from.
    """

    task = "mner"

    def __init__(
        self, backbone: MultimodalIB, labels: LabelSet, constrained: bool = True, head_dropout: float = 0.0
    ) -> None:
        super().__init__(backbone, labels)
        tags = bio_tags(labels.names)
        self.constrained = constrained
        self.head = nn.Sequential(nn.Dropout(head_dropout), nn.Linear(backbone.dim, len(tags)))
        self.crf = LinearChainCRF(len(tags), *(bio_constraints(tags) if constrained else ()))

    def loss(self, scores: Tensor, batch: MNERBatch) -> Tensor:
        """Return the negative log-likelihood of the repaired tags, (B,), summed over words, for emissions (B, W, K)."""
        loss: Tensor = self.crf(scores, batch.tags, batch.word_mask)
        return loss

    def decode(self, scores: Tensor, batch: MNERBatch) -> dict[str, Tensor]:
        """Return `predicted` (B, W) tag ids and `confidence` (B, W).

        Predictions are O for words that the encoder does not see, and -1 where padded. The confidence of a word is the
        marginal probability of its predicted tag, or 0 for words that the encoder does not see.
        """
        best = self.crf.viterbi(scores, batch.word_mask)
        marginals = self.crf.marginals(scores, batch.word_mask)
        confidence = marginals.gather(2, best[:, :, None]).squeeze(2)
        return {"predicted": best.masked_fill(batch.gold == NO_LABEL, NO_LABEL), "confidence": confidence}

    def gold(self, batch: MNERBatch) -> Tensor:
        """Return the (B, W) original tag ids of the file, -1 where padded."""
        return batch.gold

    def settings(self) -> dict[str, float | bool | None]:
        """See `ExtractionNetwork.settings`."""
        return {"constrained": self.constrained}


Triple = tuple[str, int, int]


def default_entities(posts: list[list[str]]) -> list[list[Triple]]:
    """Return type, first and last word of each entity in seqeval's default mode: a stray I- opens an entity."""
    return [get_entities(tags) for tags in posts]


def strict_entities(posts: list[list[str]]) -> list[list[Triple]]:
    """Return type and words [start, end) of each entity in strict IOB2: a stray I- is ignored."""
    return [[(entity.tag, entity.start, entity.end) for entity in post] for post in Entities(posts, IOB2).entities]


READINGS: dict[str, Callable[[list[list[str]]], list[list[Triple]]]] = {
    "": default_entities,
    "strict_": strict_entities,
}


class EntityScores(ExtractionScores):
    """Scores of entities, which are correct if type and both ends are; labels are (B, W) tag ids, gold -1 where padded.

    Scores without a prefix use seqeval's default mode, which papers report; scores with the prefix `strict_` use strict
    IOB2. They differ if tags, gold or predicted, contain a stray I-.
    """

    readings = tuple(READINGS)

    def count(self, predictions: Tensor, gold: Tensor) -> Counts:
        """See `ExtractionScores.count`."""
        # Types are replaced by numbers, as seqeval would strip hyphens from the ends of their names.
        names = bio_tags(str(number) for number in range(len(self.classes)))
        words = gold != NO_LABEL
        posts = [
            [[names[tag] for tag in post[mask].tolist()] for post, mask in zip(tags.cpu(), words.cpu(), strict=True)]
            for tags in (predictions, gold)
        ]
        by_reading = []
        for read in READINGS.values():
            predicted, true = (list(map(set, read(tags))) for tags in posts)
            correct = [ours & theirs for ours, theirs in zip(predicted, true, strict=True)]
            by_reading.append([self._by_type(entities) for entities in (correct, predicted, true)])
        return Counts(*(torch.stack(counts, dim=1).to(gold.device) for counts in zip(*by_reading, strict=True)))

    def compute(self) -> dict[str, float]:
        """Return `ExtractionScores.compute` and `f1_macro`, the mean over the types that occur or are predicted."""
        table = self.per_class().values()
        return {**super().compute(), "f1_macro": sum(scores["f1"] for scores in table) / max(1, len(table))}

    def _by_type(self, posts: Iterable[set[Triple]]) -> Tensor:
        """(B, types) number of entities of each type."""
        counters = [Counter(number for number, _, _ in found) for found in posts]
        types = [str(number) for number in range(len(self.classes))]
        counts = [[counter[number] for number in types] for counter in counters]
        return torch.tensor(counts, dtype=torch.long).reshape(len(counts), len(types))


class EntityCensus:
    """Counts posts, entities in seqeval's default and strict modes, stray tags, repeated images and unseen words."""

    def __init__(self) -> None:
        self.posts = 0
        self.strict = 0
        self.strays = 0
        self.posts_with_strays = 0
        self.images = Counter[str]()
        self.unseen = 0
        self.posts_with_unseen = 0

    def add(self, post: TaggedPost, example: EntityExample) -> None:
        """See `Census.add`."""
        self.add_tags(post.tags)
        self.images[post.image] += bool(post.image)
        unseen = len(post.words) - len(example.word_positions)
        self.unseen += unseen
        self.posts_with_unseen += unseen > 0

    def add_tags(self, tags: Sequence[str]) -> None:
        """Count a post by its tags alone."""
        strays = sum(tag != mended for tag, mended in zip(tags, repair(tags), strict=True))
        self.posts += 1
        self.strict += sum(split_tag(tag)[0] == BEGIN for tag in tags)
        self.strays += strays
        self.posts_with_strays += strays > 0

    def __str__(self) -> str:
        text = f"{counted(self.posts, 'posts')}, {counted(self.strict + self.strays, 'entities')}"
        if self.strays:
            tags = "tag" if self.strays == 1 else "tags"
            posts = counted(self.posts_with_strays, "posts")
            text += f" ({self.strict:,} in strict IOB2: {self.strays:,} stray I- {tags} in {posts})"
        repeated = self.images.total() - len(+self.images)
        if repeated:
            text += f", {repeated:,} repeated {'image' if repeated == 1 else 'images'}"
        if self.unseen:
            text += (
                f", {counted(self.unseen, 'words')} of {counted(self.posts_with_unseen, 'posts')} beyond max_length, "
                "counted as missed"
            )
        return text


def entity_confidence(entity: Entity, confidence: Sequence[float | None]) -> float:
    """Return the lowest probability among the tags of an entity's words; 0 if a word has none."""
    return min(confidence[word] or 0.0 for word in range(*entity.span))


class EntityRecognition(Task):
    """The task `mner`: predicts a BIO tag for each word of a `TaggedPost`."""

    name = "mner"
    title = "named entity recognition"
    rows = "posts"
    example = EntityExample
    network: ClassVar[type[Any]] = EntityNetwork
    finds = "entities"
    columns: ClassVar[dict[str, str]] = {
        "precision": "precision",
        "recall": "recall",
        "f1": "F1",
        "f1_se": "± (s.e.)",
        "f1_macro": "macro\nF1",
        "strict_f1": "strict\nF1",
    }
    wording: ClassVar[Wording] = Wording(
        unit="predicted entity",
        label="type",
        confidence="the least probability among the tags of the entity's words",
        legend="Underlined: predicted entities with a solid line, gold ones not predicted with a dashed one.",
    )

    def outputs(self, labels: LabelSet) -> tuple[str, ...]:
        """See `Task.outputs`: the tags."""
        return bio_tags(labels.names)

    def labels_of(self, post: TaggedPost) -> list[str]:
        """See `Task.labels_of`: the type of each entity."""
        return [entity.type for entity in entities(post.tags)]

    def encode(self, row: int, post: TaggedPost, pieces: list[list[int]], prepared: Prepared) -> EntityExample:
        """See `Task.encode`: as many whole words as fit; later words keep their gold tags and count as missed."""
        repaired = repair(post.tags)
        mentions = count_mentions(repaired)
        input_ids, word_ids, positions = fit_words(pieces, prepared.tokenizer, prepared.max_length)
        tag_ids = {tag: number for number, tag in enumerate(self.outputs(prepared.labels))}
        return EntityExample(
            row=row,
            words=post.words,
            input_ids=input_ids,
            word_ids=word_ids,
            mentions=[0 if word == NO_WORD else mentions[word] for word in word_ids],
            word_positions=positions,
            gold=[tag_ids[tag] for tag in post.tags],
            tags=[tag_ids[tag] for tag in repaired],
        )

    def collate(self, examples: Sequence[EntityExample], fields: dict[str, Any], labels: LabelSet) -> MNERBatch:
        """See `Task.collate`."""
        del labels
        gold = _pad([example.gold for example in examples], NO_LABEL)
        seen = torch.tensor([len(example.word_positions) for example in examples])
        positions = torch.zeros_like(gold)
        for row, example in enumerate(examples):
            positions[row, : len(example.word_positions)] = torch.tensor(example.word_positions)
        return MNERBatch(
            **fields,
            positions=positions,
            word_mask=torch.arange(gold.shape[1])[None, :] < seen[:, None],
            tags=_pad([example.tags for example in examples], OUTSIDE_ID),
            gold=gold,
        )

    def census(self) -> EntityCensus:
        """See `Task.census`."""
        return EntityCensus()

    def example_labels(self, example: EntityExample, labels: LabelSet) -> list[str]:
        """See `Task.example_labels`: the types of its entities."""
        tags = self.outputs(labels)
        return sorted({split_tag(tags[tag])[1] for tag in example.tags if tag != OUTSIDE_ID})

    def example_items(self, example: EntityExample, labels: LabelSet) -> list[Item]:
        """See `Task.example_items`: its entities."""
        tags = self.outputs(labels)
        return _items(example.words, entities([tags[tag] for tag in example.tags]))

    def counts(self, examples: Iterable[EntityExample], labels: LabelSet) -> dict[str, int]:
        """Count entities in both modes; with stray tags repaired, every entity of the default mode opens with a B-."""
        opening = {number for number, tag in enumerate(self.outputs(labels)) if split_tag(tag)[0] == BEGIN}
        totals = Counter[str]()
        for example in examples:
            totals["entities"] += sum(tag in opening for tag in example.tags)
            totals["entities_strict"] += sum(tag in opening for tag in example.gold)
        return dict(totals)

    def metric(self, labels: LabelSet, **options: Any) -> EntityScores:
        """See `Task.metric`."""
        return EntityScores(labels, **options)

    def attention_rows(self, words: int) -> int:
        """See `Task.attention_rows`: every word."""
        return words

    def items(self, record: Record, labels: LabelSet) -> tuple[list[Item], list[Item]]:
        """See `Task.items`: entities in seqeval's default mode."""
        gold, predicted = (_items(record.get("words", ()), found) for found in self._both(record, labels))
        return gold, predicted

    def judge(self, records: Sequence[Record], labels: LabelSet) -> list[Judgement]:
        """See `Task.judge`: one judgement per predicted entity, with the log-odds of its confidence."""
        judged = []
        for record in records:
            gold, predicted = self._both(record, labels)
            confidence = [entity_confidence(entity, record["confidence"]) for entity in predicted]
            odds = log_odds(np.array(confidence, dtype=np.float64)).tolist()
            judged += [
                Judgement((0.0, value), 1, int(entity in gold)) for entity, value in zip(predicted, odds, strict=True)
            ]
        return judged

    def confusion(self, records: Sequence[Record], labels: LabelSet) -> Confusion:
        """See `Task.confusion`: over types, with missed and spurious entities."""
        pairs: Counter[tuple[str, str]] = Counter()
        for record in records:
            gold, predicted = self._both(record, labels)
            types = {entity.span: entity.type for entity in predicted}
            for entity in gold:
                missed = OTHER_SPAN if any(entity.overlaps(other) for other in predicted) else MISSED
                pairs[entity.type, types.get(entity.span, missed)] += 1
            for entity in predicted:
                if not any(entity.overlaps(other) for other in gold):
                    pairs[NOTHING, entity.type] += 1
        seen = {name for pair in pairs for name in pair}
        names = [name for name in labels.names if name in seen]
        return Confusion.of(pairs, [*names, NOTHING], [*names, OTHER_SPAN, MISSED])

    def answer(self, record: Record, labels: LabelSet) -> Answer:
        """See `Task.answer`: gold and predicted entities."""
        gold, predicted = self._both(record, labels)
        sure = [entity_confidence(entity, record["confidence"]) for entity in predicted]
        words = [value for value in record["confidence"] if value is not None]
        shown = {
            "gold": [_chip(record, entity, entity in predicted) for entity in gold],
            "predicted": [
                _chip(record, entity, entity in gold, f" {100 * share:.0f} %")
                for entity, share in zip(predicted, sure, strict=True)
            ],
        }
        styles: dict[int, list[str]] = {}
        for style, found in (("entity", predicted), ("gold", gold)):
            for word in (word for entity in found for word in range(*entity.span)):
                styles[word] = [*styles.get(word, []), style]
        return Answer(
            right=set(gold) == set(predicted),
            confidence=min(sure or words or [0.0]),
            classes=sorted({entity.type for entity in (*gold, *predicted)}),
            gold=_line(record, gold),
            predicted=_line(record, predicted),
            lines=list(shown.items()),
            word_styles=styles,
            word_positions={word: [word] for word in range(len(record["words"]))},
        )

    def proposal(self, record: Record, labels: LabelSet) -> Proposal:
        """See `Task.proposal`: the predicted entities; the certainty is over all words, as others may be missed."""
        confidence = record["confidence"]
        findings = [
            Finding(entity.type, (entity.span,), entity_confidence(entity, confidence), range(*entity.span))
            for entity in self._entities(record["predicted"], labels)
        ]
        # 0 marks a word that the encoder does not see.
        return Proposal(min(filter(None, confidence), default=None), findings)

    def _both(self, record: Record, labels: LabelSet) -> tuple[list[Entity], list[Entity]]:
        """Return the gold and the predicted entities of a record.

        Raises:
            ValueError: If a tag is not of the label set.
        """
        return self._entities(record["gold"], labels), self._entities(record["predicted"], labels)

    def _entities(self, tags: Sequence[str], labels: LabelSet) -> list[Entity]:
        """Return the entities of tags.

        Raises:
            ValueError: If a tag is not of the label set.
        """
        unknown = set(tags) - set(self.outputs(labels))
        if unknown:
            raise ValueError(f"{min(unknown)!r} is not one of the tags of {labels}")
        return entities(tags)


def _items(words: Sequence[str], found: Iterable[Entity]) -> list[Item]:
    return [Item(entity.type, surface_form(words, [entity.span]), entity.span) for entity in found]


def _text(record: Record, entity: Entity) -> str:
    return " ".join(map(str, record["words"][slice(*entity.span)]))


def _line(record: Record, found: Iterable[Entity]) -> str:
    return ", ".join(f"{_text(record, entity)} {entity.type}" for entity in found) or "none"


def _chip(record: Record, entity: Entity, right: bool, sure: str = "") -> Chip:
    style = "right" if right else "wrong"
    return Chip(_text(record, entity), style, entity.span, f"{entity.type}{sure}", range(*entity.span))


def _pad(rows: list[list[int]], value: int) -> Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


register_task(EntityRecognition())
