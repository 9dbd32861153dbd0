"""Rows ready for batching, and batches of them; needs no training code, so that exported models read posts by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmib.datamodules.markers import Span
from mmib.encoders.text import WordTokenizer
from mmib.schema import NO_TAG, NO_WORD, TAG_IDS, MNERBatch, MREBatch

Box = tuple[float, float, float, float]

WHOLE_IMAGE: Box = (0.0, 0.0, 1.0, 1.0)
UNKNOWN_BOX: Box = (0.0, 0.0, 0.0, 0.0)
NO_PLACE = -1


@dataclass(frozen=True)
class Picture:
    """A file that becomes regions: the whole image of a post or an object crop of it, with its box.

    Attributes:
        file: the file.
        box: where in the whole image it lies.
        place: number of its features in the feature cache, once the file has been located there.
    """

    file: Path
    box: Box
    place: int = field(default=NO_PLACE, compare=False)


@dataclass
class Example:
    """A row ready for batching.

    Attributes:
        row: position in the split.
        words: the post's words, seen by the encoder or not.
        input_ids: word pieces, special tokens included.
        word_ids: for each of them the word that it belongs to, counted from 0, or -1.
        mentions: for each of them the gold mention it belongs to, counted from 1, or 0.
        image_id: id of what the image shows, -1 where no picture of the row can be read.
        pictures: the readable pictures.
    """

    row: int
    words: list[str]
    input_ids: list[int]
    word_ids: list[int]
    mentions: list[int]
    image_id: int
    pictures: tuple[Picture, ...]

    def spans(self) -> dict[str, Span]:
        """Words [start, end) of what is marked in the post for the model to see, by name."""
        return {}


@dataclass
class RelationExample(Example):
    """A row of relation extraction.

    Attributes:
        head: words [start, end) of the head entity.
        tail: words [start, end) of the tail entity.
        head_index: position of the head's opening marker.
        tail_index: position of the tail's opening marker.
        relation: class id.
    """

    head: Span
    tail: Span
    head_index: int
    tail_index: int
    relation: int

    def __post_init__(self) -> None:
        """Spans are tuples, also where they come from JSON."""
        self.head, self.tail = (self.head[0], self.head[1]), (self.tail[0], self.tail[1])

    def spans(self) -> dict[str, Span]:
        """See `Example.spans`."""
        return {"head": self.head, "tail": self.tail}


@dataclass
class EntityExample(Example):
    """A post of entity recognition.

    Attributes:
        word_positions: place of the first piece of each word that fits; the words behind them are not seen.
        gold: the file's own tag ids, one for every word of the post.
        tags: the same with stray I- tags repaired.
    """

    word_positions: list[int]
    gold: list[int]
    tags: list[int]


def fit_words(
    words: list[list[int]], tokenizer: WordTokenizer, max_length: int
) -> tuple[list[int], list[int], list[int]]:
    """Input ids of as many whole words as fit, the word of each id, and the position of each word's first piece."""
    ids = list(tokenizer.prefix)
    word_ids = [NO_WORD] * len(ids)
    end = max_length - len(tokenizer.suffix)
    positions = []
    for number, pieces in enumerate(words):
        if len(ids) + len(pieces) > end:
            break
        positions.append(len(ids))
        ids.extend(pieces)
        word_ids.extend([number] * len(pieces))
    return ids + tokenizer.suffix, word_ids + [NO_WORD] * len(tokenizer.suffix), positions


def nested(outer: Box, inner: Box) -> Box:
    """A box inside a picture as a box of the whole image; unknown stays unknown."""
    width, height = outer[2] - outer[0], outer[3] - outer[1]
    x0, y0 = outer[0] + inner[0] * width, outer[1] + inner[1] * height
    return x0, y0, x0 + (inner[2] - inner[0]) * width, y0 + (inner[3] - inner[1]) * height


def collate_text(examples: Sequence[Example], pad_id: int) -> dict[str, Tensor]:
    """What a `PostBatch` holds of rows and their words, padded to the longest row."""
    length = max(len(example.input_ids) for example in examples)
    input_ids = torch.full((len(examples), length), pad_id)
    text_mask = torch.zeros(len(examples), length, dtype=torch.bool)
    word_ids = torch.full((len(examples), length), NO_WORD)
    mentions = torch.zeros(len(examples), length, dtype=torch.long)
    for number, example in enumerate(examples):
        input_ids[number, : len(example.input_ids)] = torch.tensor(example.input_ids)
        text_mask[number, : len(example.input_ids)] = True
        word_ids[number, : len(example.word_ids)] = torch.tensor(example.word_ids)
        mentions[number, : len(example.mentions)] = torch.tensor(example.mentions)
    return {
        "rows": torch.tensor([example.row for example in examples]),
        "input_ids": input_ids,
        "text_mask": text_mask,
        "word_ids": word_ids,
        "mentions": mentions,
        "image_ids": torch.tensor([example.image_id for example in examples]),
    }


def collate_regions(
    boxes: Sequence[Sequence[Box]], features: Sequence[Tensor | None] | None, width: int
) -> dict[str, Tensor | None]:
    """What a `PostBatch` holds of regions, padded to the most of a row and to at least one.

    Args:
        boxes: of each row's regions.
        features: (regions, V) of each row that has any; None where the model encodes pixels.
        width: V.
    """
    most = max(1, *(len(own) for own in boxes))
    mask = torch.zeros(len(boxes), most, dtype=torch.bool)
    padded = torch.zeros(len(boxes), most, 4)
    # A batch without any picture has nothing to encode: its features are the (masked) zeros.
    filled = None if features is None and any(boxes) else torch.zeros(len(boxes), most, width)
    for number, own in enumerate(boxes):
        if own:
            mask[number, : len(own)] = True
            padded[number, : len(own)] = torch.tensor(own)
    for number, known in enumerate(features or ()):
        if known is not None and filled is not None:
            filled[number, : len(known)] = known
    return {"region_mask": mask, "boxes": padded, "features": filled}


def collate_relations(examples: Sequence[RelationExample], posts: dict[str, Any]) -> MREBatch:
    """The batch of rows of relation extraction; `posts` are the fields of `PostBatch` but `positions`."""
    return MREBatch(
        **posts,
        positions=torch.tensor([[example.head_index, example.tail_index] for example in examples]),
        relations=torch.tensor([example.relation for example in examples]),
    )


def collate_entities(examples: Sequence[EntityExample], posts: dict[str, Any]) -> MNERBatch:
    """The batch of posts of entity recognition; `posts` are the fields of `PostBatch` but `positions`."""
    gold = _pad([example.gold for example in examples], NO_TAG)
    seen = torch.tensor([len(example.word_positions) for example in examples])
    positions = torch.zeros_like(gold)
    for row, example in enumerate(examples):
        positions[row, : len(example.word_positions)] = torch.tensor(example.word_positions)
    return MNERBatch(
        **posts,
        positions=positions,
        word_mask=torch.arange(gold.shape[1])[None, :] < seen[:, None],
        tags=_pad([example.tags for example in examples], TAG_IDS["O"]),
        gold=gold,
    )


def _pad(rows: list[list[int]], value: int) -> Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)
