"""One tiny corpus on disk, read without the project's own readers."""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from mmib.datamodules.demo import DemoSettings, write_demo_corpus

TWITTER_TEXTS = {"train": "train.txt", "val": "valid.txt", "test": "test.txt"}
MNRE_CROP_LISTS = {"train": "mre_train_dict.pth", "val": "mre_dev_dict.pth", "test": "mre_test_dict.pth"}


@dataclass(frozen=True)
class Written:
    """A corpus on disk."""

    root: Path
    settings: DemoSettings

    def rows(self, split: str) -> list[dict[str, Any]]:
        """Lines of the MNRE file."""
        lines = (self.root / "txt" / f"ours_{split}.txt").read_text(encoding="utf-8").splitlines()
        return [ast.literal_eval(line) for line in lines]

    def twitter_text(self, split: str) -> str:
        return (self.root / "twitter2017" / TWITTER_TEXTS[split]).read_text(encoding="utf-8")

    def posts(self, split: str) -> dict[str, tuple[list[str], list[str]]]:
        """Tokens and tags of the posts of the Twitter file, by id, in file order."""
        posts = {}
        for block in self.twitter_text(split).removesuffix("\n\n").split("\n\n"):
            first, *lines = block.split("\n")
            tokens, tags = zip(*(line.split("\t") for line in lines), strict=True)
            posts[first.removeprefix("IMGID:")] = (list(tokens), list(tags))
        return posts

    def records(self, name: str) -> list[dict[str, Any]]:
        """Lines of a file of `demo/`."""
        return [json.loads(line) for line in (self.root / "demo" / name).read_text(encoding="utf-8").splitlines()]

    def crops_by_row(self, split: str) -> dict[int, list[str]]:
        return dict(torch.load(self.root / "txt" / MNRE_CROP_LISTS[split], weights_only=True))

    def crops_by_image(self, split: str) -> dict[str, list[str]]:
        return dict(torch.load(self.root / "twitter2017" / f"twitter2017_{split}_dict.pth", weights_only=True))

    def content(self) -> dict[str, bytes]:
        """Every file's bytes."""
        files = (path for path in sorted(self.root.rglob("*")) if path.is_file())
        return {str(path.relative_to(self.root)): path.read_bytes() for path in files}

    def again(self, root: Path) -> Written:
        """Write the same corpus a second time."""
        write_demo_corpus(root, self.settings)
        return Written(root, self.settings)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return write(tmp_path_factory.mktemp("demo") / "corpus", DemoSettings(size="tiny", missing=0.1))


@pytest.fixture(scope="session")
def noisy_corpus(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A corpus with irrelevant images of several kinds."""
    weights = {"scene": 1.0, "meme": 1.0, "food": 1.0}
    settings = DemoSettings(size="tiny", missing=0.2, noise=0.6, noise_kinds=weights, posts_per_image=1)
    return write(tmp_path_factory.mktemp("demo") / "noisy", settings)


def write(root: Path, settings: DemoSettings) -> Written:
    assert write_demo_corpus(root, settings) is True
    return Written(root, settings)
