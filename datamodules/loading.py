"""Loading of batches: the code that runs in worker processes, without the rest of the data module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmib.base.seeding import seeded
from mmib.datamodules.batching import GlobalBatchSampler, Share
from mmib.datamodules.cache import MappedFeatures
from mmib.datamodules.examples import collate_regions, collate_text, nested
from mmib.datamodules.images import read_image
from mmib.datamodules.text_regions import TextCollator
from mmib.labels import LabelSet
from mmib.schema import (
    NO_IMAGE,
    NO_WORD,
    NOT_LOOKED_FOR,
    Box,
    DataError,
    Example,
    Picture,
    PostBatch,
    SideTextBatch,
    Task,
)


class SampledShare(NamedTuple):
    """The examples of a rank's share of a batch with the pixels of their images and crops, and the share itself."""

    items: list[tuple[Example, Tensor | None]]
    share: Share


class PostDataset(Dataset[tuple[Example, Tensor | None]]):
    """Examples, with the decoded pixels of their images and crops if a transform is given.

    Args:
        examples: one example per row.
        transform: transform from an image to its pixels; None if features are cached.
        seed: seed of the random parts of the transform, combined with epoch and row.
    """

    def __init__(self, examples: Sequence[Example], transform: Any | None, seed: int) -> None:
        self.examples = examples
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.examples)

    def __getitems__(self, share: Share) -> SampledShare:
        """The examples of a share; padding rows have the number -1 and no images."""
        valid = len(share.rows) - share.padding
        items = [self._item(self.examples[row], share.epoch) for row in share.rows[:valid]]
        padding = [replace(self.examples[row], row=-1, image_id=NO_IMAGE, pictures=()) for row in share.rows[valid:]]
        return SampledShare(items + [(example, None) for example in padding], share)

    def _item(self, example: Example, epoch: int) -> tuple[Example, Tensor | None]:
        if example.image_id == NOT_LOOKED_FOR:
            raise DataError(
                f"row {example.row} is beyond the batches that the trainer was limited to when the data was set up: "
                "set the data module up again, with the trainer that reads it or with none"
            )
        images, _ = by_source(example)
        if self.transform is None or not images:
            return example, None
        with seeded(self.seed, epoch, example.row):
            return example, torch.stack([self.transform(read_image(picture.file)) for picture in images])


def by_source(example: Example) -> tuple[list[Picture], list[Picture]]:
    """The images and crops of a row, and the regions of its side texts, which come after them."""
    images = [picture for picture in example.pictures if not picture.is_text]
    return images, list(example.pictures[len(images) :])


def region_boxes(example: Example, cells: Sequence[Box]) -> list[Box]:
    """The box of each region of a row; a region of a side text has the box of the whole image.

    Args:
        example: the row.
        cells: the box of each region relative to its image or crop.
    """
    images, texts = by_source(example)
    return [*(nested(picture.box, cell) for picture in images for cell in cells), *(text.box for text in texts)]


@dataclass(frozen=True)
class PostCollator:
    """Collates examples into batches. It can be sent to another process: it holds no trainer and no network.

    Attributes:
        task: task of the batches.
        labels: the label set.
        pad_id: id of the padding word piece.
        cells: the box of each region relative to its image or crop.
        width: feature width V of images; 0 if pixels are no image source.
        features: cached features; None if the model encodes pixels.
        texts: collator of side texts; None if they are no image source.
    """

    task: Task
    labels: LabelSet
    pad_id: int
    cells: Sequence[Box]
    width: int
    features: MappedFeatures | None
    texts: TextCollator | None = None

    def __call__(self, sampled: SampledShare) -> PostBatch:
        """Collate the batch of a share, padded to the longest row of all ranks."""
        batch = self.batch(sampled.items)
        pieces = sampled.share.size.pieces - batch.input_ids.shape[1]
        regions = max(1, sampled.share.size.regions) - batch.region_mask.shape[1]
        return replace(
            batch,
            input_ids=F.pad(batch.input_ids, (0, pieces), value=self.pad_id),
            text_mask=F.pad(batch.text_mask, (0, pieces)),
            word_ids=F.pad(batch.word_ids, (0, pieces), value=NO_WORD),
            mentions=F.pad(batch.mentions, (0, pieces)),
            region_mask=F.pad(batch.region_mask, (0, regions)),
            boxes=F.pad(batch.boxes, (0, 0, 0, regions)),
            features=None if batch.features is None else F.pad(batch.features, (0, 0, 0, regions)),
            side_texts=None if batch.side_texts is None else _padded(batch.side_texts, regions),
            window=sampled.share.window,
        )

    def batch(self, items: Sequence[tuple[Any, Tensor | None]]) -> PostBatch:
        """Collate examples, given with the pixels of their images and crops, padded to the longest row."""
        examples = [example for example, _ in items]
        pixels = [stack for _, stack in items if stack is not None]
        images, texts = zip(*map(by_source, examples), strict=True)
        boxes = [region_boxes(example, self.cells) for example in examples]
        # A batch without any pixels has nothing to encode: its features are masked zeros.
        cached = None if pixels else [None if self.features is None else self.features.of(found) for found in images]
        regions = collate_regions(boxes, cached, self.width)
        fields = {
            **collate_text(examples, self.pad_id),
            **regions,
            "pixels": torch.cat(pixels) if pixels else None,
            "side_texts": None if self.texts is None else self._side_texts(texts, boxes, self.texts),
        }
        return self.task.collate(examples, fields, self.labels)

    def _side_texts(
        self, texts: Sequence[Sequence[Picture]], boxes: Sequence[Sequence[Box]], collate: TextCollator
    ) -> SideTextBatch:
        """Collate the side texts, which are the last regions of each row."""
        mask = torch.zeros(len(boxes), max(1, *map(len, boxes)), dtype=torch.bool)
        for row, (regions, of_texts) in enumerate(zip(boxes, texts, strict=True)):
            mask[row, len(regions) - len(of_texts) : len(regions)] = True
        return collate([[text.cache_index for text in of_texts] for of_texts in texts], mask)


def _padded(texts: SideTextBatch, regions: int) -> SideTextBatch:
    """Pad the side texts of a batch by a number of regions per row."""
    features = None if texts.features is None else F.pad(texts.features, (0, 0, 0, regions))
    return replace(texts, mask=F.pad(texts.mask, (0, regions)), features=features)


class PostLoader(DataLoader[Any]):
    """A loader that resumes a run in the middle of an epoch, at the batch after the last one consumed.

    Args:
        consumed: returns the number of batches of the current epoch that have been trained on. Lightning keeps it in
            its checkpoints; workers may have sampled more.
        options: see `DataLoader`; the batch sampler has to be a `GlobalBatchSampler`.
    """

    def __init__(self, *args: Any, consumed: Callable[[], int], **options: Any) -> None:
        super().__init__(*args, **options)
        self.consumed = consumed

    def __iter__(self) -> Any:
        # A generator runs only when the first batch is requested, after a checkpoint has been restored. Lightning
        # creates the iterator before that.
        cast(GlobalBatchSampler, self.batch_sampler).start = self.consumed()
        yield from super().__iter__()

    def state_dict(self) -> dict[str, int]:
        """Tells Lightning that resuming within an epoch is safe."""
        return {"consumed": self.consumed()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Do nothing: `consumed` returns the restored number."""
