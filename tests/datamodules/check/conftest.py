"""A writer of small folders in the layout of the Twitter sets."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image


class TwitterRoot:
    """Writes posts and images."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, *posts: tuple[str, str], split: str = "train", year: int = 2017) -> Path:
        """Write posts such as `("1", "ada/B-PER met/O")` to the file of a split."""
        path = self.root / f"twitter{year}" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        blocks = (f"IMGID:{name}\n" + "\n".join(words.split(" ")).replace("/", "\t") for name, words in posts)
        path.write_text("\n\n".join(blocks) + "\n\n", encoding="utf-8")
        return path

    def picture(self, *parts: str, colour: str = "red") -> Path:
        path = self.root.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), colour).save(path)
        return path


@pytest.fixture
def twitter(tmp_path: Path) -> TwitterRoot:
    return TwitterRoot(tmp_path / "twitter")
