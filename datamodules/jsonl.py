"""Posts as JSON lines, with their images, ready for batching."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmib.datamodules.base import PostDataModule
from mmib.datamodules.jsonl_files import JSONLinesReader
from mmib.datamodules.labels import LabelSource, label_set
from mmib.datamodules.split_files import HoldOut


class JSONLinesDataModule(PostDataModule):
    """Posts as JSON lines, one post per line; the format is described in docs/reference/formats.md.

    Args:
        root: folder of the data, or the file of the training posts, with `val` and `test` beside it.
        task: `mner` or `mre`.
        labels: entity types or relations; see `PostDataModule`.
        image_folder: folder of the images; by default `images` below the root if it exists, or else the root.
        holdout: share of the training posts to validate on if there is no validation file.
        test_holdout: share of the training posts to test on if there is no test file.
        holdout_seed: seed of the choice of held-out posts.
        negatives: see `JSONLinesReader`.
        options: see `PostDataModule`.
    """

    def __init__(
        self,
        root: str,
        task: str,
        labels: LabelSource,
        image_folder: str | None = None,
        holdout: float = 0.1,
        test_holdout: float = 0.0,
        holdout_seed: int = 0,
        negatives: bool | None = None,
        **options: Any,
    ) -> None:
        images = None if image_folder is None else Path(image_folder)
        hold_out = HoldOut(holdout, test_holdout, holdout_seed)
        known = label_set(labels)
        reader = JSONLinesReader(Path(root), task, known, negatives, images, hold_out)
        super().__init__(reader, labels=known.to_dict(), task=task, **options)
