"""Scores of triples, compared with manual counts."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from mmib.analysis.triples import (
    Fault,
    Lack,
    PostTriples,
    Triple,
    count_faults,
    count_lacks,
    count_mentions,
    count_triples,
)
from mmib.scores import Scores

ANNA, BOB, ACME, PARIS = (0, 4), (9, 12), (20, 24), (30, 35)
PEER, MEMBER, CONTAIN = "/per/per/peer", "/per/org/member_of", "/loc/loc/contain"
UNRELATED = "no_relation"
ANNOTATED = [Triple(ANNA, PEER, BOB), Triple(BOB, MEMBER, ACME), Triple(ANNA, UNRELATED, ACME)]


def post(*predicted: Triple, found: tuple[tuple[int, int], ...] = (ANNA, BOB, ACME, PARIS)) -> PostTriples:
    """A post with four entities, three annotated pairs and two gold triples."""
    return PostTriples((ANNA, BOB, ACME, PARIS), ANNOTATED, found, predicted, UNRELATED)


def scores(*posts: PostTriples) -> tuple[float, ...]:
    return tuple(asdict(count_triples(posts).scores).values())


def test_a_triple_is_correct_if_all_three_parts_are() -> None:
    assert scores(post(*ANNOTATED[:2])) == (1.0, 1.0, 1.0)
    assert scores(post(ANNOTATED[0], Triple(BOB, PEER, ACME))) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("predicted", "fault"),
    [
        (Triple(BOB, PEER, ANNA), Fault.WRONG_WAY),
        (Triple(ANNA, CONTAIN, BOB), Fault.WRONG_RELATION),
        (Triple(BOB, CONTAIN, ANNA), Fault.WRONG_RELATION),
        (Triple(ANNA, MEMBER, ACME), Fault.NOT_RELATED),
        (Triple(ACME, MEMBER, ANNA), Fault.NOT_RELATED),
        (Triple(ANNA, PEER, PARIS), Fault.NOTHING_TOLD),
        (Triple((0, 3), PEER, BOB), Fault.NO_ENTITY),
        (Triple(BOB, MEMBER, (20, 29)), Fault.NO_ENTITY),
    ],
)
def test_all_other_triples_are_false_and_classified(predicted: Triple, fault: Fault) -> None:
    assert scores(post(predicted)) == (0.0, 0.0, 0.0)
    assert count_faults([post(predicted)]) == {fault: 1}


def test_duplicate_predictions_and_annotations_count_once() -> None:
    twice = PostTriples((ANNA, BOB), [ANNOTATED[0]] * 2, (ANNA, BOB), [ANNOTATED[0]] * 3)
    assert scores(twice) == (1.0, 1.0, 1.0)
    false = Triple(ANNA, CONTAIN, BOB)
    assert count_triples([post(false, false)]).predicted == [1]
    assert count_faults([post(false, false)]).total() == 1


def test_a_post_without_predictions_only_reduces_recall() -> None:
    silent, right = post(), post(*ANNOTATED[:2])
    assert scores(silent) == (0.0, 0.0, 0.0)
    assert scores(silent, right) == (1.0, 0.5, pytest.approx(2 / 3))
    assert count_lacks([silent, right]) == {Lack.NO_RELATION: 2}


def test_predictions_in_a_post_without_entities_are_false_positives() -> None:
    chatter = PostTriples((), (), (), ())
    talked_into = PostTriples((), (), (ANNA, BOB), [Triple(ANNA, PEER, BOB)])
    assert scores(chatter) == (0.0, 0.0, 0.0)
    assert scores(post(*ANNOTATED[:2]), chatter) == (1.0, 1.0, 1.0)
    assert scores(post(*ANNOTATED[:2]), talked_into) == (pytest.approx(2 / 3), 1.0, pytest.approx(0.8))
    assert count_faults([talked_into]) == {Fault.NO_ENTITY: 1}


def test_scores_of_several_posts_add_up_their_counts() -> None:
    counted = count_triples([post(ANNOTATED[0]), post(*ANNOTATED[:2], Triple(ANNA, PEER, PARIS))])
    assert (counted.correct, counted.predicted, counted.gold) == ([1, 2], [1, 3], [2, 2])
    assert counted.scores == Scores.from_counts(3, 4, 4)


def test_without_a_negative_relation_every_annotated_pair_is_related() -> None:
    triples = PostTriples((ANNA, BOB, ACME), ANNOTATED, (ANNA, BOB, ACME), ANNOTATED)
    assert count_triples([triples]).gold == [3]
    assert scores(triples) == (1.0, 1.0, 1.0)


def test_the_same_triple_of_another_post_is_not_right() -> None:
    other = PostTriples((ANNA, BOB), [], (ANNA, BOB), [ANNOTATED[0]])
    mine = PostTriples((ANNA, BOB), [ANNOTATED[0]], (ANNA, BOB), [])
    assert scores(other, mine) == (0.0, 0.0, 0.0)


def test_on_annotated_pairs_predictions_for_other_pairs_do_not_count() -> None:
    triples = post(*ANNOTATED[:2], Triple(ANNA, PEER, PARIS), Triple(ACME, MEMBER, ANNA), Triple((0, 3), PEER, BOB))
    assert scores(triples) == (2 / 5, 1.0, pytest.approx(4 / 7))
    assert scores(triples.on_annotated_pairs()) == (pytest.approx(2 / 3), 1.0, pytest.approx(0.8))


def test_missed_triples_have_a_reason() -> None:
    assert count_lacks([post(found=(ANNA, ACME))]) == {Lack.NOT_FOUND: 2}
    assert count_lacks([post(Triple(BOB, PEER, ANNA))]) == {Lack.WRONG: 1, Lack.NO_RELATION: 1}


def test_types_are_part_of_a_mention_if_given() -> None:
    person, place, other = (0, 4, "PER"), (9, 12, "LOC"), (9, 12, "ORG")
    triples = PostTriples((person, place), [Triple(person, MEMBER, place)], (person, other), [])
    assert count_mentions([triples]).scores == Scores.from_counts(1, 2, 2)
    assert count_lacks([triples]) == {Lack.NOT_FOUND: 1}


def test_the_standard_error_of_f1_is_that_of_a_proportion_of_posts() -> None:
    """Each post has one triple, correct or not: F1 is the proportion of correct ones, its error sqrt(p (1 - p) / n)."""
    right = PostTriples((ANNA, BOB), ANNOTATED[:1], (ANNA, BOB), ANNOTATED[:1])
    wrong = PostTriples((ANNA, BOB), ANNOTATED[:1], (ANNA, BOB), [Triple(BOB, PEER, ANNA)])
    counted = count_triples([right] * 300 + [wrong] * 100)
    assert counted.scores.f1 == 0.75
    assert counted.f1_error == pytest.approx((0.75 * 0.25 / 400) ** 0.5, rel=0.1)
