"""The demo corpus as data modules: written where it is missing, then read like the real sets."""

from __future__ import annotations

from typing import Any

from mmib.datamodules.base import PostDataModule
from mmib.datamodules.demo.corpus import is_built, write_demo_corpus
from mmib.datamodules.demo.settings import DemoSettings
from mmib.datamodules.mnre import MNREDataModule
from mmib.datamodules.twitter import TwitterDataModule


class DemoDataModule(PostDataModule):
    """What both tasks on the demo corpus share: a mixin, set before the data module that reads it.

    Args:
        root: folder of the corpus; written there if it is not there yet.
        demo: what to write.
        options: see `PostDataModule`.
    """

    def __init__(self, root: str = "data/demo", demo: DemoSettings | None = None, **options: Any) -> None:
        # Next is not PostDataModule but the data module of a data set, in whose format the corpus is.
        super().__init__(root, **options)  # type: ignore[arg-type]
        self.demo = demo or DemoSettings()

    @property
    def corpus(self) -> str:
        """See `PostDataModule.corpus`."""
        return f"demo-{self.demo.size}"

    def check_files(self, stage: str) -> None:
        """See `PostDataModule.check_files`; a corpus that is not there yet will be written."""
        if is_built(self.root, self.demo):
            super().check_files(stage)

    def prepare_data(self) -> None:
        """Write the corpus; Lightning calls this on one process a node."""
        write_demo_corpus(self.root, self.demo)


class DemoMREDataModule(DemoDataModule, MNREDataModule):
    """Relation extraction on the demo corpus, which is written in MNRE's format."""


class DemoMNERDataModule(DemoDataModule, TwitterDataModule):
    """Entity recognition on the same posts, which are written in Twitter-2017's format too."""
