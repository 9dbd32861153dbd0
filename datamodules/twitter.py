"""Twitter-2015 and Twitter-2017: posts with entity tags and their images, ready for batching."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from mmib.datamodules.base import PostDataModule
from mmib.datamodules.labels import LabelSource
from mmib.datamodules.twitter_files import TwitterReader


class TwitterDataModule(PostDataModule):
    """Twitter-2015 or Twitter-2017, or any corpus in their format.

    Words beyond `max_length` keep their gold tags and count as missed; their number is reported.

    Args:
        root: folder of the data set.
        year: 2015 or 2017; names the files.
        labels: its entity types; see `PostDataModule`.
        test_year: year of the data set to test on, for scores across domains; see `TwitterReader`.
        test_split: split of that data set to test on.
        options: see `PostDataModule`.

    Raises:
        ConfigError: an unknown year or split.
    """

    task_name = "mner"

    def __init__(
        self,
        root: str,
        year: int = 2017,
        labels: LabelSource = "twitter",
        test_year: int | None = None,
        test_split: Literal["train", "val", "test"] = "test",
        **options: Any,
    ) -> None:
        super().__init__(TwitterReader(Path(root), year, test_year, test_split), labels=labels, **options)
