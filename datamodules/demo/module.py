"""The demo corpus as data modules: written where it is missing, then read like the real sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmib.base.timing import clock
from mmib.datamodules.base import PostDataModule
from mmib.datamodules.demo.corpus import is_built, write_demo_corpus
from mmib.datamodules.demo.reading import read_truth
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
        self._posts: dict[str, list[dict[str, Any]]] = {}

    @property
    def corpus(self) -> str:
        """See `PostDataModule.corpus`."""
        return f"demo-{self.demo.size}"

    def describe(self, split: str, row: int) -> dict[str, Any]:
        """See `PostDataModule.describe`.

        Where the model was shown the post's own image, also what is known of that: `noise`, its kind where it is
        irrelevant and None where it fits; and `relevance_posterior`, None where there is nothing that it could fit.
        """
        described = super().describe(split, row)
        post = self._post_of(split, row)
        if described["image"] is not None and Path(described["image"]).name == post["image"]:
            described |= {name: post[name] for name in ("noise", "relevance_posterior")}
        return described

    def _post_of(self, split: str, row: int) -> dict[str, Any]:
        """What is known of the post of a row."""
        if split not in self._posts:
            posts = read_truth(self.root, split)
            rows = [len(post["rows"]) if self.task.name == "mre" else 1 for post in posts]
            self._posts[split] = [post for post, count in zip(posts, rows, strict=True) for _ in range(count)]
        return self._posts[split][row]

    def check_files(self, stage: str) -> None:
        """See `PostDataModule.check_files`; a corpus that is not there yet will be written."""
        if is_built(self.root, self.demo):
            super().check_files(stage)

    def prepare_data(self) -> None:
        """Write the corpus; Lightning calls this on one process a node."""
        with clock.phase("demo corpus"):
            write_demo_corpus(self.root, self.demo)


class DemoMREDataModule(DemoDataModule, MNREDataModule):
    """Relation extraction on the demo corpus, which is written in MNRE's format."""


class DemoMNERDataModule(DemoDataModule, TwitterDataModule):
    """Entity recognition on the same posts, which are written in Twitter-2017's format too."""
