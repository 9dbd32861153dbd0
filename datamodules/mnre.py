"""MNRE: relation extraction rows with their images, ready for batching."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmib.datamodules.base import PostDataModule
from mmib.datamodules.labels import LabelSource
from mmib.datamodules.mnre_files import MNREReader, check_relation_ids


class MNREDataModule(PostDataModule):
    """The MNRE data set, or any corpus in its format.

    Args:
        root: folder of the data set.
        labels: its relations; see `PostDataModule`.
        options: see `PostDataModule`.
    """

    task_name = "mre"

    def __init__(self, root: str, labels: LabelSource = "mnre", **options: Any) -> None:
        super().__init__(MNREReader(Path(root)), labels=labels, **options)

    def setup(self, stage: str) -> None:
        """See `PostDataModule.setup`.

        Raises:
            DataError: `ours_rel2id.json` exists and names other relations than the configuration.
        """
        if self.reader.label_file is not None:
            check_relation_ids(self.reader.label_file, self.labels)
        super().setup(stage)
