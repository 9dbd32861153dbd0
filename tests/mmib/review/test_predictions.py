"""How files of runs and of `mmib extract` are displayed."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmib.plugins import import_plugins
from mmib.review.predictions import Evidence, read_predictions
from mmib.schema import ConfigError, DataError, RunError, TaskError, task_named
from tests.mmib.review.conftest import BOXES, LABELS, MakePredictions


def test_entities_of_a_run_are_sorted_by_certainty_with_their_attention(make_predictions: MakePredictions) -> None:
    found = read_predictions(make_predictions("mner"))
    assert [(post.row, post.certainty) for post in found.posts] == [(1, 0.3), (2, 0.6), (0, 0.8)]
    assert (found.types, found.relations, found.root) == (("PERSON", "TEAM"), (), found.root)
    post = found.posts[0]
    assert post.text == "🙂 Ada Lovelace joins Foo United"
    entities = [
        (post.text[entity.start : entity.end], entity.type, entity.confidence) for entity in post.proposal.entities
    ]
    assert entities == [("Ada Lovelace", "PERSON", 0.9), ("Foo", "TEAM", 0.9)]
    assert post.proposal.entities[0].evidence == Evidence(BOXES, [0.3, 0.7], 0.25)


def test_rows_of_a_post_are_merged_with_their_relations(make_predictions: MakePredictions) -> None:
    found = read_predictions(make_predictions("mre"))
    assert [post.row for post in found.posts] == [0, 2]
    assert (found.types, found.relations, found.negative) == ((), LABELS["mre"].names, "none")
    first = found.posts[0]
    assert [entity.type for entity in first.proposal.entities] == [None, None]
    assert [(link.head, link.tail, link.type) for link in first.proposal.relations] == [
        (0, 1, "plays_for"),
        (1, 0, "none"),
    ]
    assert first.certainty == min(link.confidence or 1 for link in first.proposal.relations) < 0.5
    assert found.posts[1].certainty == pytest.approx(0.9867, abs=1e-4)


def test_extractions_keep_their_evidence_and_get_images_from_their_posts(extracted: Path) -> None:
    found = read_predictions(extracted, posts=extracted.with_name("posts.jsonl"), types=["PLACE", "TEAM"])
    assert [(post.row, post.certainty, post.image) for post in found.posts] == [(2, 0.6, "ada.png"), (1, None, "")]
    assert (found.types, found.relations) == (("PERSON", "TEAM", "PLACE"), ("plays_for",))
    assert found.posts[0].proposal.entities[0].evidence == Evidence(BOXES, [0.2, 0.8], 0.5)
    assert found.posts[0].proposal.entities[1].evidence is None  # its words were not read


def test_predictions_without_a_summary_require_the_task(make_predictions: MakePredictions) -> None:
    path = make_predictions("mner", summary=False)
    with pytest.raises(ConfigError, match="add --task"):
        read_predictions(path)
    assert len(read_predictions(path, task="mner").posts) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ('{"a": 1}\n', "holds no predictions"),
        ('{"row": 1, "text": "a", "entities": [], "relations": [{}]}\n', "line 1"),
        ('{"text": "a", "entities": [], "relations": []}\n', "holds no predictions"),
        ('{"row": 1, "id": 1, "error": "empty"}\n', "nothing could be|anything could be"),
        ("{\n", "is no JSON"),
    ],
)
def test_files_without_predictions_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "file.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_predictions(path)
    with pytest.raises(DataError, match="is a folder"):
        read_predictions(tmp_path)


def test_damaged_predictions_and_unused_options_are_refused(make_predictions: MakePredictions) -> None:
    path = make_predictions("mner")
    with pytest.raises(ConfigError, match="leave out --posts"):
        read_predictions(path, types=["A"])
    path.write_text(path.read_text(encoding="utf-8").replace("B-TEAM", "B-OTHER"), encoding="utf-8")
    with pytest.raises(RunError, match="'B-OTHER' is not one of the tags"):
        read_predictions(path)


def test_a_task_that_labels_posts_explains_why_it_cannot_be_reviewed(relevance: str) -> None:
    import_plugins([relevance])
    with pytest.raises(TaskError, match="which hold entities and relations only"):
        task_named("relevance").proposal({}, LABELS["mner"])


def test_concatenated_outputs_are_refused(make_predictions: MakePredictions, extracted: Path) -> None:
    """One of two posts with the same row would be hidden."""
    extracted.write_text(extracted.read_text(encoding="utf-8") * 2, encoding="utf-8")
    with pytest.raises(DataError, match=r"found\.jsonl, line 1 and line 4 are both of row 1"):
        read_predictions(extracted)
    path = make_predictions("mner")
    path.write_text(path.read_text(encoding="utf-8") * 2, encoding="utf-8")
    with pytest.raises(RunError, match=r"test\.jsonl, lines 1 and 4 are both of row 0"):
        read_predictions(path)
