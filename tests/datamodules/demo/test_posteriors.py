"""The stored posteriors are calibrated: gold relations and types occur as often as predicted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

import pytest

from mmib.datamodules.demo.posteriors import (
    View,
    entity_posteriors,
    relation_posteriors,
    relevance_posterior,
    theme_belief,
)
from mmib.datamodules.demo.posts import EASY, HARD, LEVELS, Post, draw_chatter, draw_post
from mmib.datamodules.demo.settings import DemoSettings
from mmib.datamodules.demo.themes import theme_prior

# More noise than the default, so that every term and case of the posterior has weight.
SETTINGS = DemoSettings(noise=0.4, noise_kinds={"scene": 3.0, "meme": 1.0}, missing=0.1)
NOISE = SETTINGS.hidden_noise("train")
VIEWS: tuple[View, ...] = ("text", "multimodal", "unbound")

Answer = tuple[dict[str, float], str, bool]  # posterior, gold label, whether the words are ambiguous
Answers = Callable[[Post, View], Iterator[Answer]]


@pytest.fixture(scope="module")
def posts() -> dict[str, list[Post]]:
    return {level: [draw_post(SETTINGS, "train", number, level) for number in range(3500)] for level in LEVELS}


def relations(post: Post, view: View) -> Iterator[Answer]:
    for pair, posterior in zip(post.pairs, relation_posteriors(post, view, NOISE), strict=True):
        yield posterior, pair.relation, pair.kind == "ambiguous"


def entities(post: Post, view: View) -> Iterator[Answer]:
    posteriors = entity_posteriors(post, view, NOISE)
    for index, ((_, _, entity_type), posterior) in enumerate(zip(post.entities, posteriors, strict=True)):
        yield posterior, entity_type, post.clauses[index // 2].ambiguous


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("answers", [relations, entities])
def test_posteriors_are_calibrated(posts: dict[str, list[Post]], level: str, view: View, answers: Answers) -> None:
    """In each bin of predicted probability the label occurs as often, within 4.5 standard errors."""
    bands: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for post in posts[level]:
        for posterior, truth, is_open in answers(post, view):
            if is_open:
                for label, p in posterior.items():
                    bands[int(p * 20)].append((p, truth == label))
    checked = 0
    for band in bands.values():
        stated = sum(p for p, _ in band)
        variance = sum(p * (1 - p) for p, _ in band)
        if variance > 5:
            checked += 1
            assert abs(sum(hit for _, hit in band) - stated) < 4.5 * variance**0.5
    assert checked >= 2


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("answers", [relations, entities])
def test_posteriors_sum_to_one_and_are_positive_for_the_truth(
    posts: dict[str, list[Post]], view: View, answers: Answers
) -> None:
    for post in posts[EASY][:300] + posts[HARD][:300]:
        for posterior, truth, is_open in answers(post, view):
            assert sum(posterior.values()) == pytest.approx(1.0)
            assert posterior[truth] > 0
            if not is_open:
                assert posterior == {truth: 1.0}


def test_relation_and_type_posteriors_of_a_clause_agree(posts: dict[str, list[Post]]) -> None:
    """Residents and members differ in the type of the tail entity: both posteriors express the same belief."""
    for post in posts[EASY]:
        types, relations = entity_posteriors(post, "text", NOISE), relation_posteriors(post, "text", NOISE)
        for index, clause in enumerate(post.clauses):
            if clause.family == "person_thing":
                assert types[2 * index] == pytest.approx({"PER": 1.0})
                home = theme_prior("person_thing")["home"]  # the other theme in which the tail entity is a place
                residence = relations[index]["/per/loc/place_of_residence"]
                assert types[2 * index + 1]["LOC"] == pytest.approx(residence + home)


def test_a_post_without_entities_has_no_posteriors() -> None:
    chatter = draw_chatter(SETTINGS, "train", 0, HARD)
    assert relation_posteriors(chatter, "multimodal", NOISE) == entity_posteriors(chatter, "multimodal", NOISE) == []


def test_without_its_image_a_post_has_the_posterior_of_its_text(posts: dict[str, list[Post]]) -> None:
    for post in posts[EASY] + posts[HARD]:
        if post.missing:
            assert relation_posteriors(post, "multimodal", NOISE) == relation_posteriors(post, "text", NOISE)
            assert entity_posteriors(post, "multimodal", NOISE) == entity_posteriors(post, "text", NOISE)


def test_an_image_that_is_always_relevant_leaves_no_uncertainty(posts: dict[str, list[Post]]) -> None:
    fitting = [post for level in LEVELS for post in posts[level] if not (post.noise or post.missing)]
    for post in fitting[:500]:
        truth = tuple(clause.theme for clause in post.clauses if clause.ambiguous)
        assert theme_belief(post, "multimodal", noise=0.0)[truth] == pytest.approx(1.0)  # type: ignore[index]


def test_a_hard_image_without_its_bindings_leaves_uncertainty(posts: dict[str, list[Post]]) -> None:
    fitting = [post for post in posts[HARD][:1000] if not (post.missing or post.noise)]
    bound, unbound = (
        [max(theme_belief(post, view, noise=0.05).values()) for post in fitting] for view in ("multimodal", "unbound")
    )
    assert sum(unbound) / len(unbound) < 0.6 < 0.95 < sum(bound) / len(bound)


def test_a_colour_that_nobody_wears_marks_the_image_as_irrelevant(posts: dict[str, list[Post]]) -> None:
    """An image in which nobody wears the colour mentioned in the text is irrelevant: the prior remains."""
    seen = 0
    for post in posts[HARD]:
        clauses = [clause for clause in post.clauses if clause.ambiguous]
        worn = {colour for colour, _ in post.picture.people}
        if len(clauses) == 1 and worn and clauses[0].colour not in worn and not post.missing:
            seen += 1
            assert theme_belief(post, "multimodal", NOISE) == pytest.approx(theme_belief(post, "text", NOISE))
    assert seen > 20


def test_the_remaining_uncertainty_is_due_to_irrelevant_scenes() -> None:
    """Counts for 100 posts: 50 irrelevant images, 10 of them scenes, among 60 scenes."""
    kinds = {"meme": 4.0, "scene": 1.0}
    assert DemoSettings(noise=0.5, noise_kinds=kinds).hidden_noise("val") == pytest.approx(10 / 60)
    assert DemoSettings(noise=0.3).hidden_noise("test") == 0.3
    assert DemoSettings(noise=0.5, noise_kinds={"food": 1.0}).hidden_noise("train") == 0.0
    assert DemoSettings(noise=1.0, noise_kinds={"food": 1.0}).hidden_noise("train") == 0.0
    robust = DemoSettings(noise=0.1, test_noise=0.5, test_noise_kinds=kinds)
    assert [robust.hidden_noise(split) for split in ("train", "val", "test")] == pytest.approx([0.1, 0.1, 10 / 60])


def test_an_unrelated_image_gives_the_posterior_of_the_words(posts: dict[str, list[Post]]) -> None:
    unrelated = [post for level in LEVELS for post in posts[level] if post.picture.unrelated]
    assert len(unrelated) > 400
    for post in unrelated:
        assert relation_posteriors(post, "multimodal", NOISE) == relation_posteriors(post, "text", NOISE)
        assert relevance_posterior(post, NOISE) == (None if post.missing else 0.0)


@pytest.mark.parametrize("level", LEVELS)
def test_images_are_relevant_at_the_documented_rate(posts: dict[str, list[Post]], level: str) -> None:
    bands: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for post in posts[level]:
        p = relevance_posterior(post, NOISE)
        assert (p is None) == post.missing
        if p is not None:
            bands[int(p * 10)].append((p, post.noise is None))
    for band in bands.values():
        variance = sum(p * (1 - p) for p, _ in band)
        assert abs(sum(hit for _, hit in band) - sum(p for p, _ in band)) <= 4.5 * variance**0.5
    assert len(bands) > 3


def test_chatter_has_no_relevant_images() -> None:
    assert relevance_posterior(draw_chatter(SETTINGS, "train", 0, EASY), NOISE) is None
