"""What a demo corpus is made from; two corpora with equal settings are equal byte for byte."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from mmib.schema import ConfigError

SPLITS: tuple[str, ...] = ("train", "val", "test")

# Kinds of irrelevant images. A scene is drawn like any image that fits: nothing but the words gives it away. The others
# hold nothing of the eight themes, so that whoever recognises them knows that they are irrelevant.
SCENE = "scene"
UNRELATED: tuple[str, ...] = ("screenshot", "meme", "pattern", "landscape", "food")
NOISE_KINDS: tuple[str, ...] = (SCENE, *UNRELATED)

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
        noise_kinds: relative weights of the kinds of these images, by names of `NOISE_KINDS`.
        test_noise: the share in the test split; None for that of training. Validation is like training.
        test_noise_kinds: the weights in the test split; None for those of training.
        missing: share of the posts whose image file does not exist.
        hard_share: share of hard posts in the training and the validation split.
        posts_per_image: how many training posts show the same image and ask different things of it, so that an image
            does not give away the labels of a post. Validation and test posts have an image each.
    """

    seed: int = 0
    size: str = "default"
    noise: float = 0.05
    noise_kinds: dict[str, float] = field(default_factory=lambda: {SCENE: 1.0})
    test_noise: float | None = None
    test_noise_kinds: dict[str, float] | None = None
    missing: float = 0.05
    hard_share: float = 0.25
    posts_per_image: int = 3

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ConfigError(f"demo corpus: unknown size {self.size!r}; there are {', '.join(SIZES)}")
        for name in ("noise", "test_noise", "missing", "hard_share"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= value <= 1.0:
                raise ConfigError(f"demo corpus: {name} is a share from 0 to 1, not {value!r}")
        if self.posts_per_image < 1:
            raise ConfigError(f"demo corpus: posts_per_image is at least 1, not {self.posts_per_image!r}")

        for name in ("noise_kinds", "test_noise_kinds"):
            weights = getattr(self, name)
            if weights is not None:
                _check_weights(name, weights)

    def noise_share(self, split: str) -> float:
        """Share of a split's posts whose image is irrelevant."""
        return self.test_noise if split == "test" and self.test_noise is not None else self.noise

    def kind_shares(self, split: str) -> dict[str, float]:
        """Share of each of `NOISE_KINDS` among a split's irrelevant images."""
        weights = self.noise_kinds
        if split == "test" and self.test_noise_kinds is not None:
            weights = self.test_noise_kinds
        total = sum(weights.values())
        return {name: weights.get(name, 0.0) / total for name in NOISE_KINDS}

    def hidden_noise(self, split: str) -> float:
        """p(irrelevant | the image is drawn like those that fit): what is left to doubt once the others are set apart.

        All of `noise_share` where every irrelevant image is a scene; 0 where none is.
        """
        noise, scenes = self.noise_share(split), self.kind_shares(split)[SCENE]
        likewise = 1.0 - noise * (1.0 - scenes)  # share of the images that are drawn like those that fit
        return noise * scenes / likewise if likewise > 0.0 else 0.0

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


def _check_weights(name: str, weights: Mapping[str, float]) -> None:
    """Refuse unknown kinds of images, and weights that are none."""
    unknown = sorted(set(weights) - set(NOISE_KINDS))
    if unknown:
        raise ConfigError(
            f"demo corpus: {name} has the unknown kinds {', '.join(unknown)}; there are {', '.join(NOISE_KINDS)}"
        )
    if any(not 0.0 <= weight < math.inf for weight in weights.values()) or not sum(weights.values()) > 0.0:
        raise ConfigError(
            f"demo corpus: {name} holds weights of 0 and more, at least one of them above 0, not {dict(weights)!r}"
        )
