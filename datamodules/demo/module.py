"""Data modules of the demo corpus, which is written if it is missing, and then read like the real data sets."""

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
    """Base class of both tasks on the demo corpus: a mixin that precedes the data module of the format.

    Args:
        root: folder of the corpus, which is written if it does not exist.
        demo: settings of the corpus.
        options: see `PostDataModule`.
    """

    def __init__(self, root: str = "data/demo", demo: DemoSettings | None = None, **options: Any) -> None:
        # The next class is the data module of a data set with the format of the corpus, not PostDataModule.
        super().__init__(root, **options)  # type: ignore[arg-type]
        self.demo = demo or DemoSettings()
        self._posts: dict[str, list[dict[str, Any]]] = {}

    @property
    def corpus(self) -> str:
        """See `PostDataModule.corpus`."""
        return f"demo-{self.demo.size}"

    def describe(self, split: str, row: int) -> dict[str, Any]:
        """See `PostDataModule.describe`.

        If the model was shown the post's own image, the result also has `noise`, the kind of an irrelevant image or
        None; and `relevance_posterior`, or None if the post has no clause that an image could fit.
        """
        described = super().describe(split, row)
        post = self._post_of(split, row)
        if described["image"] is not None and Path(described["image"]).name == post["image"]:
            described |= {name: post[name] for name in ("noise", "relevance_posterior")}
        return described

    def _post_of(self, split: str, row: int) -> dict[str, Any]:
        """The ground truth of the post of a row."""
        if split not in self._posts:
            posts = read_truth(self.root, split)
            rows = [len(post["rows"]) if self.task.name == "mre" else 1 for post in posts]
            self._posts[split] = [post for post, count in zip(posts, rows, strict=True) for _ in range(count)]
        return self._posts[split][self.row_in_split(split, row)]

    def check_files(self, stage: str) -> None:
        """See `PostDataModule.check_files`; a missing corpus passes, since it will be written."""
        if is_built(self.root, self.demo):
            super().check_files(stage)

    def prepare_data(self) -> None:
        """Write the corpus; Lightning calls this in one process per node."""
        with clock.phase("demo corpus"):
            write_demo_corpus(self.root, self.demo)


class DemoMREDataModule(DemoDataModule, MNREDataModule):
    """Relation extraction on the demo corpus, in the format of MNRE."""


class DemoMNERDataModule(DemoDataModule, TwitterDataModule):
    """Entity recognition on the demo corpus, in the format of Twitter-2017."""
