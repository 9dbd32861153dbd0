"""Posts as JSON lines, with their images, ready for batching."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmib.datamodules.base import PostDataModule
from mmib.datamodules.jsonl_files import JSONLinesReader
from mmib.datamodules.labels import LabelSource, label_set
from mmib.datamodules.split_files import HoldOut


class JSONLinesDataModule(PostDataModule):
    """Posts as JSON lines, one a line; docs/reference/formats.md shows them.

    Args:
        root: folder of the data, or the only file.
        task: `mner` or `mre`.
        labels: entity types or relations; see `PostDataModule`.
        image_folder: folder of the images; `images` below the root, or else the root, where it is not given.
        holdout: share of the training posts to validate with where there is no file for it.
        test_holdout: share of the training posts to test with where there is no file for it.
        holdout_seed: another one holds other posts out.
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
