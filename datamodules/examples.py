"""Collation of the fields that batches of all tasks share; free of training code, for use by exported models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmib.schema import NO_WORD, Box, Example

if TYPE_CHECKING:
    from mmib.encoders.text import WordTokenizer


def fit_words(
    words: list[list[int]], tokenizer: WordTokenizer, max_length: int
) -> tuple[list[int], list[int], list[int]]:
    """Return ids of as many whole words as fit, the word of each id, and the position of each word's first piece."""
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
    """Convert a box relative to another box to a box of the whole image; an unknown box stays unknown."""
    width, height = outer[2] - outer[0], outer[3] - outer[1]
    x0, y0 = outer[0] + inner[0] * width, outer[1] + inner[1] * height
    return x0, y0, x0 + (inner[2] - inner[0]) * width, y0 + (inner[3] - inner[1]) * height


def collate_text(examples: Sequence[Example], pad_id: int) -> dict[str, Tensor]:
    """Return the fields of a `PostBatch` for rows and their words, padded to the longest row."""
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
    """Return the fields of a `PostBatch` for regions, padded to the row with the most regions and to at least one.

    Args:
        boxes: boxes of each row's regions.
        features: (regions, V) of each row, None for a row without any; None if the model encodes pixels.
        width: V.
    """
    most = max(1, *(len(regions) for regions in boxes))
    mask = torch.zeros(len(boxes), most, dtype=torch.bool)
    padded = torch.zeros(len(boxes), most, 4)
    # A batch without any image has nothing to encode: its features are masked zeros.
    filled = None if features is None and any(boxes) else torch.zeros(len(boxes), most, width)
    for number, regions in enumerate(boxes):
        if regions:
            mask[number, : len(regions)] = True
            padded[number, : len(regions)] = torch.tensor(regions)
    for number, known in enumerate(features or ()):
        if known is not None and filled is not None:
            filled[number, : len(known)] = known
    return {"region_mask": mask, "boxes": padded, "features": filled}
