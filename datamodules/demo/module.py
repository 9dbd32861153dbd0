"""The demo corpus as a data module: written where it is missing, then read like MNRE."""

from __future__ import annotations

from typing import Any

from datamodules.demo.corpus import write_demo_corpus
from datamodules.demo.settings import DemoSettings
from datamodules.mnre import MNREDataModule


class DemoMREDataModule(MNREDataModule):
    """Relation extraction on the demo corpus.

    Args:
        root: folder of the corpus; written there if it is not there yet.
        demo: what to write.
        kwargs: see `PostDataModule`.
    """

    def __init__(self, root: str = "data/demo", demo: DemoSettings | None = None, **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        self.demo = demo or DemoSettings()

    @property
    def corpus(self) -> str:
        """See `PostDataModule.corpus`."""
        return f"demo-{self.demo.size}"

    def prepare_data(self) -> None:
        """Write the corpus; Lightning calls this on one process a node."""
        write_demo_corpus(self.root, self.demo)
