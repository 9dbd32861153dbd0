"""What a demo corpus is made from; two corpora with equal settings are equal byte for byte."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mmib.schema import ConfigError

SPLITS: tuple[str, ...] = ("train", "val", "test")

# Posts that name entities, as (train, val, test); posts that name none come on top. Training and validation mix the
# levels by `hard_share`; a test split holds both levels in equal parts, so that the score of each means something
# (1,000 rows of each in `default`), or only the level that training has.
SIZES: dict[str, tuple[int, int, int]] = {
    "default": (9000, 400, 1040),
    "study": (2700, 200, 500),
    "tiny": (60, 20, 20),
}


@dataclass(frozen=True)
class DemoSettings:
    """Settings of a demo corpus.

    Attributes:
        seed: seed of everything that is drawn.
        size: a key of `SIZES`.
        noise: share of the posts whose image has nothing to do with their text.
        missing: share of the posts whose image file does not exist.
        hard_share: share of hard posts in the training and the validation split.
        posts_per_image: how many training posts show the same image and ask different things of it, so that an image
            is no key to the labels of a post. Validation and test posts have an image each.
    """

    seed: int = 0
    size: str = "default"
    noise: float = 0.05
    missing: float = 0.05
    hard_share: float = 0.25
    posts_per_image: int = 3

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ConfigError(f"demo corpus: unknown size {self.size!r}; there are {', '.join(SIZES)}")
        for name in ("noise", "missing", "hard_share"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ConfigError(f"demo corpus: {name} is a share from 0 to 1, not {value!r}")
        if self.posts_per_image < 1:
            raise ConfigError(f"demo corpus: posts_per_image is at least 1, not {self.posts_per_image!r}")

    def posts(self, split: str) -> int:
        """Number of posts of a split that name entities."""
        return SIZES[self.size][SPLITS.index(split)]

    def images(self, split: str) -> int:
        """Number of images that these posts show."""
        return math.ceil(self.posts(split) / self.sharing(split))

    def hard_images(self, split: str) -> int:
        """Number of hard ones among them."""
        share = 0.5 if split == "test" and 0 < self.hard_share < 1 else self.hard_share
        return round(share * self.images(split))

    def sharing(self, split: str) -> int:
        """How many posts of a split show the same image."""
        return self.posts_per_image if split == "train" else 1
