"""Posts in columns, with their images, ready for batching."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmib.datamodules.base import PostDataModule
from mmib.datamodules.columns_files import ColumnsReader
from mmib.datamodules.labels import LabelSource
from mmib.datamodules.schemes import Scheme
from mmib.datamodules.split_files import HoldOut


class ColumnsDataModule(PostDataModule):
    """Posts in columns, a word with its tag in each line; docs/reference/formats.md shows them.

    Args:
        root: folder of the data, or the only file.
        labels: entity types; see `PostDataModule`.
        separator: of columns; None for a tab where the file has them, or else any number of blanks.
        word_column: column of the words, counted from 0; where it is negative, from the last one of most lines, -1.
        tag_column: column of the tags, counted alike.
        scheme: what the tags are; None to recognise it in each file.
        image_folder: folder of the images; `images` below the root, or else the root, where it is not given.
        holdout: share of the training posts to validate with where there is no file for it.
        test_holdout: share of the training posts to test with where there is no file for it.
        holdout_seed: another one holds other posts out.
        options: see `PostDataModule`.
    """

    task_name = "mner"

    def __init__(
        self,
        root: str,
        labels: LabelSource,
        separator: str | None = None,
        word_column: int = 0,
        tag_column: int = -1,
        scheme: Scheme | None = None,
        image_folder: str | None = None,
        holdout: float = 0.1,
        test_holdout: float = 0.0,
        holdout_seed: int = 0,
        **options: Any,
    ) -> None:
        images = None if image_folder is None else Path(image_folder)
        hold_out = HoldOut(holdout, test_holdout, holdout_seed)
        reader = ColumnsReader(Path(root), separator, word_column, tag_column, scheme, images, hold_out)
        super().__init__(reader, labels=labels, **options)
