"""Settings of a demo corpus; corpora with equal settings are byte-identical."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from mmib.schema import ConfigError

SPLITS: tuple[str, ...] = ("train", "val", "test")

# Kinds of irrelevant images. A scene looks like an image that fits: only the words reveal that it does not. The others
# show none of the eight themes, so that they can be recognised as irrelevant without the words.
SCENE = "scene"
UNRELATED: tuple[str, ...] = ("screenshot", "meme", "pattern", "landscape", "food")
NOISE_KINDS: tuple[str, ...] = (SCENE, *UNRELATED)

# Numbers of posts that name entities, as (train, val, test); posts without entities are added to these. Training and
# validation mix the levels by `hard_share`; a test split has equal parts of both levels, so that the score of each is
# reliable (1,000 rows each in `default`), or only the one level of the training split.
SIZES: dict[str, tuple[int, int, int]] = {
    "default": (9000, 400, 1040),
    "study": (2700, 200, 500),
    "tiny": (60, 20, 20),
}


@dataclass(frozen=True)
class DemoSettings:
    """Settings of a demo corpus.

    Attributes:
        seed: seed of all random choices.
        size: a key of `SIZES`.
        noise: share of the posts whose image is unrelated to their text.
        noise_kinds: relative weights of the kinds of these images, by names of `NOISE_KINDS`.
        test_noise: this share in the test split; None for that of the training split. Validation is like training.
        test_noise_kinds: these weights in the test split; None for those of the training split.
        missing: share of the posts whose image file does not exist.
        hard_share: share of hard posts in the training and validation splits.
        posts_per_image: number of training posts that show the same image but ask for different relations, so that an
            image does not reveal the labels of a post. Each validation and test post has its own image.
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
        """p(irrelevant | the image looks like one that fits): the noise that only the words can reveal.

        It is `noise_share` if all irrelevant images are scenes, and 0 if none is.
        """
        noise, scenes = self.noise_share(split), self.kind_shares(split)[SCENE]
        likewise = 1.0 - noise * (1.0 - scenes)  # share of the images that look like ones that fit
        return noise * scenes / likewise if likewise > 0.0 else 0.0

    def posts(self, split: str) -> int:
        """Number of posts of a split that name entities."""
        return SIZES[self.size][SPLITS.index(split)]

    def images(self, split: str) -> int:
        """Number of images that these posts show."""
        return math.ceil(self.posts(split) / self.sharing(split))

    def hard_images(self, split: str) -> int:
        """Number of hard images of a split."""
        share = 0.5 if split == "test" and 0 < self.hard_share < 1 else self.hard_share
        return round(share * self.images(split))

    def sharing(self, split: str) -> int:
        """Number of posts of a split that show the same image."""
        return self.posts_per_image if split == "train" else 1


def _check_weights(name: str, weights: Mapping[str, float]) -> None:
    """Check the kinds of images and their weights."""
    unknown = sorted(set(weights) - set(NOISE_KINDS))
    if unknown:
        raise ConfigError(
            f"demo corpus: {name} has the unknown kinds {', '.join(unknown)}; there are {', '.join(NOISE_KINDS)}"
        )
    if any(not 0.0 <= weight < math.inf for weight in weights.values()) or not sum(weights.values()) > 0.0:
        raise ConfigError(
            f"demo corpus: {name} holds weights of 0 and more, at least one of them above 0, not {dict(weights)!r}"
        )
