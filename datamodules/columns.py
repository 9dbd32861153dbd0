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
    """Posts in columns, with a word and its tag in each line; the format is described in docs/reference/formats.md.

    Args:
        root: folder of the data, or the file of the training posts, with `val` and `test` beside it.
        labels: entity types; see `PostDataModule`.
        separator: column separator; None for a tab if most lines have one, or else any number of blanks.
        word_column: column of the words, counted from 0; negative numbers count from the last column of most lines, -1.
        tag_column: column of the tags, counted in the same way.
        scheme: scheme of the tags; None recognises it in each file.
        image_folder: folder of the images; by default `images` below the root if it exists, or else the root.
        holdout: share of the training posts to validate on if there is no validation file.
        test_holdout: share of the training posts to test on if there is no test file.
        holdout_seed: seed of the choice of held-out posts.
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
