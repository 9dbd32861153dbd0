"""The best expected rank of a post's image among those of other posts, given the words of the post.

The words determine a family of themes and, on the hard level, shirt colours; only the image shows which theme of the
family it is. Many images thus match the words of a post, so that no model can always rank the right one first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mmib.datamodules.demo.posteriors import image_likelihood
from mmib.datamodules.demo.posts import Post

Array = NDArray[np.float64]

# Ratios with a smaller relative difference are equal.
TIE = 1e-9


def best_image_ranks(posts: Sequence[Post], noise: float) -> tuple[list[Post], Array]:
    """Return the rank of each post's image in the optimal order of all images given its words.

    The candidates are the images of all posts that have one. The optimal order is by p(image | words) / p(image), where
    p(image) is the mean over the words of all posts: an image that matches any words carries no information on them.
    Ties share the mean of their ranks.

    Args:
        posts: posts of one split.
        noise: p(irrelevant | an image that is not unrelated); see `DemoSettings.hidden_noise`.

    Returns:
        The N posts with an image, and their ranks (N,), from 1.
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
