"""The best achievable rank of a post's own image: known answers, and no other ordering is better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmib.datamodules.demo.posteriors import image_likelihood
from mmib.datamodules.demo.posts import EASY, HARD, Picture, Post, draw_chatter, draw_post
from mmib.datamodules.demo.retrieval import best_image_ranks
from mmib.datamodules.demo.settings import DemoSettings

SETTINGS = DemoSettings(noise=0.0, missing=0.0)
NOISE = SETTINGS.hidden_noise("train")


def drawn(level: str, numbers: range) -> list[Post]:
    return [draw_post(SETTINGS, "train", number, level) for number in numbers]


def test_texts_without_names_do_not_rank_images() -> None:
    posts = [draw_chatter(SETTINGS, "train", number, EASY) for number in range(5)]
    shown, ranks = best_image_ranks(posts, NOISE)
    assert shown == posts
    assert ranks.tolist() == [3.0] * 5


def test_the_level_of_the_text_excludes_images_of_the_other_level() -> None:
    easy, hard = drawn(EASY, range(1))[0], drawn(HARD, range(1))[0]
    assert best_image_ranks([easy, hard], NOISE)[1].tolist() == [1.0, 1.0]


def test_posts_of_one_scene_share_their_mean_rank_and_a_missing_image_is_no_candidate() -> None:
    post = drawn(EASY, range(1))[0]
    posts = [post, post, post, replace(post, missing=True)]
    shown, ranks = best_image_ranks(posts, NOISE)
    assert len(shown) == 3
    assert ranks.tolist() == [2.0, 2.0, 2.0]


def test_an_unrelated_image_is_compatible_with_any_text() -> None:
    post = drawn(EASY, range(1))[0]
    assert image_likelihood(replace(post, picture=Picture(unrelated="meme")), 0.3) == 1.0


@pytest.mark.parametrize("level", [EASY, HARD])
def test_no_ordering_by_the_text_is_better(level: str) -> None:
    """Compared with the prior of the words alone, and with the reversed order."""
    posts = drawn(level, range(120))
    _, ranks = best_image_ranks(posts, NOISE)
    likelihoods = np.array(
        [[image_likelihood(replace(post, picture=other.picture), NOISE) for other in posts] for post in posts]
    )
    by_likelihood = mean_rank(likelihoods)
    assert ranks.mean() <= by_likelihood + 1.0
    assert ranks.mean() < 0.5 * (len(posts) + 1) < mean_rank(-likelihoods)


def mean_rank(scores: np.ndarray) -> float:
    own_scores = np.diagonal(scores)[:, None]
    return float(((scores > own_scores).sum(axis=1) + ((scores == own_scores).sum(axis=1) + 1) / 2).mean())
