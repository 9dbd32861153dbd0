"""How well the words of a post can tell its image from those of other posts: the best rank that any model can expect.

The words name a family of themes, and on the hard level shirt colours; which of the family's themes it is, the image
alone shows. So many images go with a post's words, and a model that ranks its image first knows more than is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mmib.datamodules.demo.posteriors import image_likelihood
from mmib.datamodules.demo.posts import Post

Array = NDArray[np.float64]

# Ratios that differ by less, relative to one, are equal.
TIE = 1e-9


def best_image_ranks(posts: Sequence[Post], noise: float) -> tuple[list[Post], Array]:
    """The rank of each post's image when all are sorted as well as its words allow.

    The candidates are the images of all posts that have one. The best order is by p(image | words) / p(image), p(image)
    being the mean over the words of all posts: an image that goes with any words says nothing of these. Ties share the
    mean of their ranks.

    Args:
        posts: of one split.
        noise: p(irrelevant | an image that is not unrelated); see `DemoSettings.hidden_noise`.

    Returns:
        The posts with an image, and the rank of each (N,), from 1; N are the candidates.
    """
    shown = [post for post in posts if not post.missing]
    pictures = [post.picture for post in shown]

    def likelihoods(post: Post) -> list[float]:
        known = {picture: image_likelihood(replace(post, picture=picture), noise) for picture in set(pictures)}
        return [known[picture] for picture in pictures]

    table = np.array([likelihoods(post) for post in shown])
    ratios = table / np.maximum(table.mean(axis=0, keepdims=True), np.finfo(float).tiny)
    distance = ratios - np.diagonal(ratios)[:, None]
    tied = np.abs(distance) <= TIE * np.maximum(ratios, 1.0)
    better = (distance > 0) & ~tied
    return shown, 1.0 + better.sum(axis=1) + (tied.sum(axis=1) - 1) / 2
