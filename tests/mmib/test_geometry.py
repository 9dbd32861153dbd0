"""Measures of a latent space: known answers, reference implementations, and invariances."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import entropy, rankdata
from sklearn.metrics.pairwise import cosine_similarity

from mmib.geometry import Geometry, PairedLatents, effective_rank, mean_cosine, unit_vectors

Array = NDArray[np.float64]
POSTS, DIM = 60, 8


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(5)


def geometry(text: Array, image: Array, image_ids: Array | None = None) -> Geometry:
    return PairedLatents(text, image, image_ids).geometry()


def test_identical_vectors_are_collapsed(random: np.random.Generator) -> None:
    """Their images are indistinguishable: the own one has the middle rank."""
    same = np.tile(random.normal(size=DIM), (POSTS, 1))
    found = geometry(same, 3 * same)
    assert (found.cosine_text, found.cosine_image) == pytest.approx((1, 1))
    assert (found.effective_rank_text, found.effective_rank_image) == pytest.approx((1, 1))
    assert found.gap == pytest.approx(0, abs=1e-12)
    assert found.pair_cosine == pytest.approx(1)
    assert (found.own_image_rank, found.candidates) == ((POSTS + 1) / 2, POSTS)


def test_orthonormal_vectors_span_every_direction(random: np.random.Generator) -> None:
    basis, _ = np.linalg.qr(random.normal(size=(DIM, DIM)))
    found = geometry(basis, -basis)
    assert found.cosine_text == pytest.approx(0, abs=1e-12)
    assert (found.effective_rank_text, found.effective_rank_image) == pytest.approx((DIM, DIM))
    assert found.gap == pytest.approx(2 / math.sqrt(DIM)), "the centres lie at 1 / sqrt(D) on opposite sides"
    assert found.pair_cosine == pytest.approx(-1)
    assert found.own_image_rank == DIM, "the own image is the farthest"
    assert geometry(basis, basis).own_image_rank == 1
    assert geometry(basis, basis).own_image_share == 1 / DIM


def test_measures_match_reference_implementations(random: np.random.Generator) -> None:
    vectors = random.normal(size=(POSTS, DIM)) + 0.5
    cosines = cosine_similarity(vectors)
    assert mean_cosine(unit_vectors(vectors)) == pytest.approx(cosines[~np.eye(POSTS, dtype=bool)].mean())
    assert effective_rank(vectors) == pytest.approx(math.exp(entropy(np.linalg.svd(vectors)[1])))
    text, image = unit_vectors(vectors), unit_vectors(vectors + random.normal(size=(POSTS, DIM)))
    ranks, candidates = PairedLatents(text, image).ranks
    cosines = cosine_similarity(text - text.mean(axis=0), image - image.mean(axis=0))
    assert ranks.tolist() == [rankdata(-row)[post] for post, row in enumerate(cosines)]
    assert (candidates == POSTS).all()
    assert geometry(text, image).own_image_rank == np.median(ranks)


def test_a_permuted_pairing_has_chance_ranks(random: np.random.Generator) -> None:
    """Over 400 permutations the mean rank is (N + 1) / 2, with a standard error of N / sqrt(12 * 400 N)."""
    text = random.normal(size=(POSTS, 32)) + 2
    image = text + 0.1 * random.normal(size=(POSTS, 32)) + random.normal(size=32)
    assert geometry(text, image).own_image_rank == 1, "centring removes what all images share"
    means = [PairedLatents(text, random.permutation(image)).ranks[0].mean() for _ in range(400)]
    assert np.mean(means) == pytest.approx((POSTS + 1) / 2, abs=4 * POSTS / math.sqrt(12 * 400 * POSTS))


def test_posts_that_share_an_image_are_not_candidates_for_each_other() -> None:
    """Otherwise each of the three posts with one image would rank it among three equal ones."""
    text = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    image = np.array([[1.0, 0, 0]] * 3 + [[-1.0, 0, 0], [0, -1, 0]])
    ranks, candidates = PairedLatents(text, image, np.array([4, 4, 4, 7, 9])).ranks
    assert candidates.tolist() == [3, 3, 3, 5, 5]
    assert ranks[0] == 1
    apart, _ = PairedLatents(text, image).ranks
    assert apart[0] == 2, "ties are averaged"
    alone = geometry(text, image, np.zeros(5))
    assert math.isnan(alone.own_image_rank), "there was nothing to choose from"
    assert math.isnan(alone.own_image_share)


def test_a_subset_is_ranked_among_the_images_of_all(random: np.random.Generator) -> None:
    text = random.normal(size=(POSTS, DIM))
    latents = PairedLatents(text, text + random.normal(size=(POSTS, DIM)))
    members = np.arange(POSTS) % 3 == 1
    found, alone = latents.geometry(members), PairedLatents(latents.text[members], latents.image[members]).geometry()
    assert (found.posts, found.candidates) == (20, POSTS)
    assert found.own_image_rank == np.median(latents.ranks[0][members])
    for name in ("cosine_text", "cosine_image", "effective_rank_image", "gap", "pair_cosine"):
        assert getattr(found, name) == pytest.approx(getattr(alone, name)), name
    nobody = latents.geometry(np.zeros(POSTS, dtype=bool))
    assert nobody.posts == 0
    assert all(math.isnan(value) for name, value in vars(nobody).items() if name != "posts")


def test_scale_and_order_have_no_effect(random: np.random.Generator) -> None:
    """A bottleneck shrinks its means, which alone makes a space neither better nor worse."""
    text, image = random.normal(size=(2, POSTS, DIM)) + 0.3
    order, scales = random.permutation(POSTS), random.uniform(1e-6, 1e3, size=(POSTS, 1))
    found, moved = geometry(text, image), geometry(text[order] * scales, 1e-5 * image[order])
    assert vars(moved) == pytest.approx(vars(found))


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_zero_latents_give_neither_an_error_nor_a_good_score(value: float) -> None:
    broken = np.full((POSTS, DIM), value)
    found = geometry(broken, np.eye(POSTS, DIM))
    assert math.isnan(found.effective_rank_text)
    assert not found.own_image_rank < POSTS / 2
    assert not found.cosine_text > 0


def test_a_single_post_has_no_candidates() -> None:
    found = geometry(np.ones((1, DIM)), np.ones((1, DIM)))
    assert math.isnan(found.cosine_text)
    assert math.isnan(found.own_image_rank)
    assert found.gap == pytest.approx(0)
    with pytest.raises(ValueError, match=r"text \(1, 8\) and image \(3, 8\) are not latents of the same posts"):
        PairedLatents(np.ones((1, 8)), np.ones((3, 8)))
