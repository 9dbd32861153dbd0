"""Slices: membership, consistent counts, and reasons for missing slices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmib.analysis.slices import (
    BY_ALIGNMENT,
    BY_RELEVANCE,
    FORM,
    FREQUENCY,
    IMAGE,
    LENGTH,
    RELEVANT,
    SEEN,
    UNSEEN,
    SlicedPost,
    breakdown,
    count,
    errors,
    match_of,
    rated,
    sliced_posts,
    slices_of,
)
from mmib.datamodules.image_relevance import ImageRelevance
from mmib.datamodules.released import MNRE, TWITTER
from mmib.metrics import label_tensor
from mmib.records import Item, TrainingItems
from mmib.runs.reader import FinishedRun
from mmib.schema import DataError, task_named

MNER, MRE = task_named("mner"), task_named("mre")
LABELS = {"mner": TWITTER, "mre": MNRE}
WORDS = ["Anna", "met", "Bob", "Smith", "in", "Paris"]
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG"]
TRAINING = TrainingItems({"PER": 60, "LOC": 7}, frozenset({"anna", "bob smith"}))


def entity_records(rows: int = 60) -> list[dict[str, Any]]:
    """Random tags over posts of 1 to 24 words; every fourth post has no image."""
    random = np.random.default_rng(0)
    records = []
    for row in range(rows):
        words = [WORDS[number] for number in random.integers(len(WORDS), size=1 + row % 24)]
        gold, predicted = ([TAGS[number] for number in random.integers(len(TAGS), size=len(words))] for _ in range(2))
        similarity = None if row % 4 == 0 else float(random.normal())
        evidence = {"similarity": similarity, "confidence": random.uniform(size=len(words)).tolist()}
        records.append({"id": row, "words": words, "gold": gold, "predicted": predicted, **evidence})
    return records


def relation_records(rows: int = 60) -> list[dict[str, Any]]:
    random = np.random.default_rng(1)
    records = []
    for row in range(rows):
        gold, predicted = (MNRE.names[number] for number in random.integers(4, size=2))
        scores = [30.0 * (name == predicted) for name in MNRE.names]
        post = {"words": WORDS, "head": [row % 3, row % 3 + 1], "tail": [5, 6], "similarity": float(random.normal())}
        records.append({"id": row, **post, "gold": gold, "predicted": predicted, "scores": scores})
    return records


RECORDS = {"mner": entity_records, "mre": relation_records}


@pytest.mark.parametrize("task", RECORDS)
def test_the_parts_of_a_slice_add_up_to_the_scores_of_the_task(task: str) -> None:
    records, labels, judge = RECORDS[task](), LABELS[task], task_named(task)
    posts = sliced_posts(judge, labels, records[::-1])
    training = TrainingItems({labels.names[1]: 60}, frozenset({"anna", "anna\tparis"}))
    slices, unavailable = slices_of(posts, training, match_of([posts]))
    groups, counts = count(posts, slices, labels)
    assert not unavailable
    ids = {name: number for number, name in enumerate(judge.outputs(labels))}
    predicted, gold = (
        label_tensor([[ids[tag] for tag in record[key]] if task == "mner" else ids[record[key]] for record in records])
        for key in ("predicted", "gold")
    )
    above, below = judge.metric(labels).row_parts(predicted, gold, "f1")
    for name in (FORM, FREQUENCY, LENGTH):
        places = [place for place, group in enumerate(groups) if group.slice == name]
        assert len(places) > 1
        torch.testing.assert_close(torch.tensor(2 * counts.correct[places].sum(axis=0)), above)
        whole = (counts.predicted + counts.gold)[places].sum(axis=0)
        torch.testing.assert_close(torch.tensor(whole), below)
    lengths = [group.rows for group in groups if group.slice == LENGTH]
    assert sum(lengths) == len(records)
    halves = {group.name: group.rows for group in groups if group.slice == IMAGE}
    known = sum(record["similarity"] is not None for record in records)
    assert halves == dict(zip(BY_ALIGNMENT, (known // 2, known - known // 2), strict=True))


def test_predictions_belong_to_slices_by_their_own_surface_form() -> None:
    """Bob alone never occurred in training, Bob Smith did."""
    gold = ["B-PER", "O", "B-PER", "I-PER", "O", "B-LOC"]
    record = {"id": 0, "words": WORDS, "gold": gold, "predicted": ["B-PER", "O", "B-PER", "O", "O", "O"]}
    posts = sliced_posts(MNER, TWITTER, [record])
    slices, unavailable = slices_of(posts, TRAINING, None)
    groups, counts = count(posts, slices, TWITTER)
    found = {group.name: [int(part[place, 0]) for part in counts] for place, group in enumerate(groups)}
    assert found[SEEN] == [1, 1, 2]  # correct, predicted, gold
    assert found[UNSEEN] == [0, 1, 1]
    assert found["51 to 200 in training"] == [1, 2, 2]
    assert found["up to 50 in training"] == [0, 0, 1]
    assert found["up to 12 words"] == [1, 2, 3]
    assert list(unavailable) == [IMAGE]


def test_seen_relations_are_determined_by_the_pair_and_the_negative_class_is_not_scored() -> None:
    pair = {"words": WORDS, "head": [0, 1], "tail": [2, 4]}
    names = [("/per/per/peer", "/per/per/peer"), ("None", "/per/per/peer"), ("None", "None")]
    records = [{"id": row, **pair, "gold": gold, "predicted": given} for row, (gold, given) in enumerate(names)]
    posts = sliced_posts(MRE, MNRE, records)
    slices, _ = slices_of(posts, TrainingItems({}, frozenset({"anna\tbob smith"})), None)
    groups, counts = count(posts, slices, MNRE)
    place = next(place for place, group in enumerate(groups) if group.name == SEEN)
    assert [int(part[place].sum()) for part in counts] == [1, 2, 1]
    assert groups[place].rows == 3


def posts_of(name: str, *values: float | None) -> list[SlicedPost]:
    return [SlicedPost(row, [], [], 3, **{name: value}) for row, value in enumerate(values)]


def test_a_relevance_file_takes_precedence_over_alignment_and_runs_are_averaged_by_rank() -> None:
    similar = posts_of("similarity", 0.9, 0.1, None, 0.5)
    both = [post._replace(relevance=value) for post, value in zip(similar, (1e-6, 0.9, 0.5, None), strict=True)]
    by_file = match_of([both])
    assert by_file is not None
    assert (by_file.source, sorted(by_file.scores, key=by_file.scores.__getitem__)) == ("the relevance file", [0, 2, 1])
    # The second run has the same order on another scale of scores.
    by_both = match_of([similar, posts_of("similarity", 200.0, 300.0, None, 100.0)])
    assert by_both is not None
    assert by_both.source == "the alignment score"
    assert by_both.scores == pytest.approx({0: (1 + 2 / 3) / 2, 1: (1 / 3 + 1) / 2, 3: (2 / 3 + 1 / 3) / 2})
    assert match_of([posts_of("similarity", None, None)]) is None


def test_rows_of_the_same_image_are_in_the_same_half() -> None:
    posts = posts_of("relevance", 0.5, 0.5, 0.5, 0.5, 0.9, 0.1)
    (image, _), _ = slices_of(posts, None, match_of([posts]))
    halves = [image.group_of(post, None) for post in posts]
    more, less = BY_RELEVANCE
    assert halves == [*[less] * 4, more, less]


def test_known_relevance_takes_precedence_over_alignment_if_it_separates_rows() -> None:
    known = [{"relevance_posterior": 0.9, "noise": noise} for noise in (None, "meme", None, None)]
    similar = [{"similarity": value} for value in (0.1, 0.9, 0.2, 0.3, 0.4)]
    pair = {"words": WORDS, "head": [0, 1], "tail": [2, 4], "gold": "None", "predicted": "None"}
    records = [{"id": row, **pair, **a, **b} for row, (a, b) in enumerate(zip([*known, {}], similar, strict=True))]
    posts = sliced_posts(MRE, MNRE, records)
    match = match_of([posts, posts])
    assert match is not None
    assert match.source == "what the data set knows"
    (image, *_), _ = slices_of(posts, None, match)
    relevant, irrelevant = RELEVANT
    assert [image.group_of(post, None) for post in posts] == [relevant, irrelevant, relevant, relevant, None]
    by_alignment = match_of([[posts[0], *posts[2:]]])
    assert by_alignment is not None, "all of these images are relevant"
    assert by_alignment.groups == BY_ALIGNMENT


def test_old_predictions_report_which_slices_are_missing() -> None:
    """Written by versions before 0.2: labels only, and no training.json."""
    records = [{"id": row, "gold": "None", "predicted": "None", "scores": [0.0] * 23} for row in range(3)]
    found = breakdown(MRE, MNRE, records, None)
    assert found["groups"] == []
    assert found["unavailable"] == {
        FORM: "the run has no training.json",
        FREQUENCY: "the run has no training.json",
        IMAGE: "no row has a relevance or an alignment score of its image",
        LENGTH: "the predictions hold no words",
    }
    with_training = breakdown(MRE, MNRE, records, TRAINING)["unavailable"]
    assert with_training[FORM] == "the predictions name no entities"


def test_alignment_is_not_used_for_shuffled_images() -> None:
    found = breakdown(MRE, MNRE, relation_records(), TRAINING, own_images=False)
    assert IMAGE in found["unavailable"]
    assert found["image_by"] is None
    assert all(group["slice"] != IMAGE for group in found["groups"])


def test_a_slice_that_separates_no_rows_is_omitted_and_named() -> None:
    found = breakdown(MRE, MNRE, relation_records(), TRAINING)
    assert found["unavailable"] == {
        FORM: "all belong to one part, 'never seen'",
        FREQUENCY: "all belong to one part, 'up to 50 in training'",
        LENGTH: "all belong to one part, 'up to 12 words'",
    }
    assert [group["group"] for group in found["groups"]] == [*BY_ALIGNMENT]
    for group in found["groups"]:
        assert group["f1"] == pytest.approx(2 * group["correct"] / (group["predicted"] + group["gold"]))
        assert 0 < group["f1_se"] < 0.2


def entity(label: str, start: int, end: int) -> Item:
    return Item(label, f"{start}", (start, end))


def test_error_types_by_hand() -> None:
    gold = [entity("PER", 0, 1), entity("PER", 2, 4), entity("LOC", 5, 6), entity("ORG", 8, 10), entity("PER", 12, 13)]
    given = [entity("PER", 0, 1), entity("ORG", 2, 4), entity("LOC", 5, 7), entity("LOC", 9, 11), entity("PER", 20, 21)]
    found = errors([SlicedPost(0, gold, given)], TWITTER)
    assert found == {"exact": 1, "wrong_label": 1, "other_span": 2, "missed": 1, "spurious": 1}


def test_errors_of_relations_are_missed_spurious_or_confused() -> None:
    pairs = [("/per/per/peer", "/per/per/peer"), ("/per/per/peer", "/per/per/couple"), ("/per/per/peer", "None")]
    posts = [SlicedPost(0, [Item(gold, "")], [Item(given, "")]) for gold, given in [*pairs, ("None", "/per/per/peer")]]
    assert errors(posts, MNRE) == {"exact": 1, "wrong_label": 1, "other_span": 0, "missed": 1, "spurious": 1}


@pytest.mark.parametrize("task", RECORDS)
def test_errors_add_up_to_the_gold_items(task: str) -> None:
    posts = sliced_posts(task_named(task), LABELS[task], RECORDS[task]())
    found = errors(posts, LABELS[task])
    gold = sum(item.label != LABELS[task].negative for post in posts for item in post.gold)
    assert sum(found.values()) - found["spurious"] == gold
    assert all(found[name] for name in found if name != "other_span")


def test_predictions_of_a_diverged_model_have_no_confidence() -> None:
    records = relation_records(4)
    assert breakdown(MRE, MNRE, records, None)["risk_coverage"]["curve"][-1][0] == 1.0
    found = breakdown(MRE, MNRE, [{**record, "scores": [None] * 23} for record in records], None)
    assert found["calibration_error"] is found["risk_coverage"] is None


@pytest.fixture
def relevance(tmp_path: Path) -> ImageRelevance:
    (tmp_path / "relevance.jsonl").write_text('{"image": "a.jpg", "relevance": 0.5}\n')
    return ImageRelevance(tmp_path / "relevance.jsonl")


@pytest.fixture
def run(tmp_path: Path) -> FinishedRun:
    (tmp_path / "config.yaml").write_text("data: {init_args: {images: own}}\n")
    return FinishedRun(tmp_path, {})


def test_records_are_matched_with_the_relevance_of_their_images_by_name(
    run: FinishedRun, relevance: ImageRelevance
) -> None:
    records: list[dict[str, Any]] = [{"id": 0, "image": "img/val/a.png"}, {"id": 1, "image": "b.jpg"}, {"id": 2}]
    assert [record["relevance"] for record in rated(run, records, relevance)] == [0.5, None, None]
    assert rated(run, records, None) == records
    with pytest.raises(DataError, match=r"no relevance of any image of the run .*it names a\.jpg, the posts b\.jpg"):
        rated(run, records[1:], relevance)


def test_shuffled_images_have_no_relevance(run: FinishedRun, relevance: ImageRelevance) -> None:
    (run.folder / "config.yaml").write_text("data: {init_args: {images: shuffled}}\n")
    records: list[dict[str, Any]] = [{"id": 0, "image": "a.jpg"}]
    assert rated(run, records, relevance) == records
