"""Twitter-2015 and Twitter-2017: posts with entity tags and their images, ready for batching."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmib.datamodules.base import PostDataModule
from mmib.datamodules.labels import LabelSource
from mmib.datamodules.twitter_files import YEARS, TwitterReader
from mmib.schema import ConfigError


class TwitterDataModule(PostDataModule):
    """Twitter-2015 or Twitter-2017, or any corpus in their format.

    Words beyond `max_length` keep their gold tags and count as missed; how many there are is reported.

    Args:
        root: folder of the data set.
        year: 2015 or 2017; names the files.
        labels: its entity types; see `PostDataModule`.
        options: see `PostDataModule`.

    Raises:
        ConfigError: another year.
    """

    task_name = "mner"

    def __init__(self, root: str, year: int = 2017, labels: LabelSource = "twitter", **options: Any) -> None:
        if year not in YEARS:
            raise ConfigError(f"there is no Twitter-{year}: the years are {YEARS[0]} and {YEARS[1]}")
        super().__init__(TwitterReader(Path(root), year), labels=labels, **options)
