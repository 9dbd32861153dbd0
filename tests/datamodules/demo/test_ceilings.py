"""The ceiling is the highest expected score of any decision rule, and the optimal rule achieves it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import f1_score

from mmib.datamodules.demo import DemoSettings, expected_best_f1
from mmib.datamodules.demo.posteriors import View, entity_posteriors, relation_posteriors
from mmib.datamodules.demo.posts import LEVELS, Post, draw_post
from mmib.datamodules.released import NO_RELATION

LABELS = (NO_RELATION, "a", "b")


@st.composite
def posteriors(draw: st.DrawFn) -> dict[str, float]:
    weights = [draw(st.integers(0, 6)) for _ in LABELS]
    total = sum(weights) or 1
    weights[0] += sum(weights) == 0
    return {label: weight / total for label, weight in zip(LABELS, weights, strict=True) if weight}


def ratio_of_expectations(rows: list[dict[str, float]], answers: tuple[str, ...]) -> float:
    gold = sum(1 - row.get(NO_RELATION, 0.0) for row in rows)
    given_answers = [(row, answer) for row, answer in zip(rows, answers, strict=True) if answer != NO_RELATION]
    hits = sum(row.get(answer, 0.0) for row, answer in given_answers)
    return 2 * hits / (len(given_answers) + gold) if given_answers else 0.0


@settings(max_examples=60, deadline=None)
@given(st.lists(posteriors(), min_size=1, max_size=5))
def test_no_decision_rule_exceeds_the_ceiling(rows: list[dict[str, float]]) -> None:
    best = max(ratio_of_expectations(rows, answers) for answers in itertools.product(LABELS, repeat=len(rows)))
    assert expected_best_f1(rows) == pytest.approx(best, abs=1e-12)


def test_the_optimal_rule_scores_the_computed_ceiling() -> None:
    rng = random.Random(0)
    kinds = [{"a": 1.0}, {"a": 0.24, "b": 0.46, NO_RELATION: 0.3}, {"b": 0.1, NO_RELATION: 0.9}, {NO_RELATION: 1.0}]
    rows = [rng.choice(kinds) for _ in range(60_000)]
    threshold = expected_best_f1(rows) / 2  # the F1-optimal rule: predict where p is at least half the best F1
    hits = answers = gold = 0
    for row in rows:
        truth = rng.choices(list(row), list(row.values()))[0]
        gold += truth != NO_RELATION
        label, p = max(
            ((label, p) for label, p in row.items() if label != NO_RELATION), key=lambda x: x[1], default=("", 0)
        )
        if p > threshold:
            answers += 1
            hits += label == truth
    assert 2 * hits / (answers + gold) == pytest.approx(expected_best_f1(rows), abs=0.01)


def test_predicting_a_relation_beats_the_most_likely_class() -> None:
    rows = [{"a": 0.4, NO_RELATION: 0.6}] * 10
    assert expected_best_f1(rows) == pytest.approx(0.8 / 1.4)  # the most likely class is None everywhere: F1 0


def test_leaving_out_an_ambiguous_entity_can_be_optimal() -> None:
    rows = [{"a": 1.0}] * 8 + [{"a": 0.34, "b": 0.33, "c": 0.33}] * 2
    assert expected_best_f1(rows) == pytest.approx(2 * 8 / (8 + 10))  # including it: 2 * 8.68 / 20


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("view", ["text", "multimodal"])
def test_the_optimal_rule_scores_the_entity_ceiling(level: str, view: View) -> None:
    """Posts are sampled and tagged by the F1-optimal rule, which seqeval scores: 12,000 entities, s.e. below 0.004."""
    corpus = DemoSettings(noise=0.3, noise_kinds={"scene": 2.0, "pattern": 1.0}, missing=0.1)
    noise = corpus.hidden_noise("train")
    posts = [draw_post(corpus, "train", number, level) for number in range(3000)]
    predicted = [entity_posteriors(post, view, noise) for post in posts]
    ceiling = expected_best_f1([posterior for posteriors in predicted for posterior in posteriors])
    answers = [[best_answer(posterior, ceiling / 2) for posterior in posteriors] for posteriors in predicted]
    gold = [[entity_type for *_, entity_type in post.entities] for post in posts]
    found = f1_score(
        [tagged(post, types) for post, types in zip(posts, gold, strict=True)],
        [tagged(post, types) for post, types in zip(posts, answers, strict=True)],
    )
    assert found == pytest.approx(ceiling, abs=0.012)


@pytest.mark.parametrize("level", LEVELS)
def test_detectable_noise_costs_less(level: str) -> None:
    """Half of the images are irrelevant: either scenes, which mislead, or memes, which leave only the words."""
    ceilings = []
    for noise, names in ((0.5, {"scene": 1.0}), (0.5, {"scene": 1.0, "meme": 1.0}), (0.5, {"meme": 1.0}), (0.0, {})):
        corpus = DemoSettings(noise=noise, noise_kinds=names or {"scene": 1.0})
        posts = [draw_post(corpus, "test", number, level) for number in range(600)]
        predicted = [relation_posteriors(post, "multimodal", corpus.hidden_noise("test")) for post in posts]
        ceilings.append(expected_best_f1([posterior for posteriors in predicted for posterior in posteriors]))
    assert ceilings == sorted(ceilings)
    assert min(after - before for before, after in itertools.pairwise(ceilings)) > 0.01


def best_answer(posterior: dict[str, float], threshold: float) -> str | None:
    """The most likely type, if its probability is at least half the best F1."""
    entity_type, p = max(posterior.items(), key=lambda entry: entry[1])
    return entity_type if p > threshold else None


def tagged(post: Post, types: Sequence[str | None]) -> list[str]:
    tags = ["O"] * len(post.tokens)
    for (start, end, _), entity_type in zip(post.entities, types, strict=True):
        if entity_type is not None:
            tags[start:end] = [f"B-{entity_type}", *[f"I-{entity_type}"] * (end - start - 1)]
    return tags


def test_ceilings_of_extreme_cases() -> None:
    assert expected_best_f1([]) == 0.0
    assert expected_best_f1([{NO_RELATION: 1.0}]) == 0.0
    assert expected_best_f1([{"a": 1.0}, {NO_RELATION: 1.0}]) == 1.0
