"""Joint extraction as triples: reading the corpus, and tables of extractions with known scores."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from PIL import Image

from experiments import joint
from experiments.joint import ALL, FOUND, GIVEN, IMAGES, OBJECTS, Known
from mmib.datamodules.released import NO_RELATION
from mmib.export.folder import write_export
from mmib.export.model import TrainedModel
from mmib.extract.extractor import Extractor, Post
from mmib.extract.results import Entity, Extraction, Relation

MEMBER, PEER = "/per/org/member_of", "/per/per/peer"
RECORDS = [
    {
        "level": "easy",
        "tokens": ["Anna", "Bee", "joined", "Acme", ";", "Bob", "too"],
        "entities": [[0, 2, "PER"], [3, 4, "ORG"], [5, 6, "PER"]],
        "relations": [[0, 1, MEMBER], [0, 2, PEER], [2, 1, NO_RELATION]],
        "image": "a.jpg",
    },
    {"level": "hard", "tokens": ["just", "talk"], "entities": [], "relations": [], "image": None},
]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A demo corpus of two test posts, one with an image of two objects."""
    root = tmp_path / "corpus"
    for folder in ("demo", "twitter2017", "twitter2017_images", "twitter2017_aux_images/test/crops"):
        (root / folder).mkdir(parents=True)
    (root / "demo.json").write_text("{}")
    (root / "demo" / "test.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    torch.save({"a.jpg": ["2.jpg", "1.jpg"]}, root / "twitter2017" / "twitter2017_test_dict.pth")
    boxes = {"1.jpg": [0.0, 0.0, 0.5, 1.0], "2.jpg": [0.5, 0.0, 1.0, 1.0]}
    (root / "twitter2017_aux_images" / "test" / "boxes.json").write_text(json.dumps(boxes))
    Image.linear_gradient("L").convert("RGB").save(root / "twitter2017_images" / "a.jpg")
    return root


@pytest.fixture
def posts(corpus: Path) -> list[Known]:
    return joint.read_known(corpus, "test")


class Oracle:
    """Returns the gold annotations, optionally changed by `damage`."""

    def __init__(self, posts: Sequence[Known], damage: Callable[[Extraction], Extraction] = lambda found: found):
        self.truth = {post.text: post for post in posts}
        self.damage = damage
        self.asked: list[Post] = []

    def extract_batch(self, posts: Sequence[Post]) -> list[Extraction]:
        self.asked += posts
        return [self.damage(self._true(self.truth[post.text])) for post in posts]

    def _true(self, known: Known) -> Extraction:
        entities = [Entity(known.text[start:end], start, end, kind) for start, end, kind in known.entities]
        related = [pair for pair in known.pairs if pair[2] != NO_RELATION]
        relations = [Relation(label, head, tail, 1.0, True) for head, tail, label in related]
        return Extraction(known.text, entities, relations)

    def results(self, posts: Sequence[Known]) -> joint.Results:
        return joint.extract_all(cast(Extractor, self), posts, lambda line: None)


def test_spans_are_character_offsets_of_the_text(posts: list[Known]) -> None:
    first, chatter = posts
    assert [first.text[start:end] for start, end, _ in first.entities] == ["Anna Bee", "Acme", "Bob"]
    assert first.boxes == [(0.5, 0.0, 1.0, 1.0), (0.0, 0.0, 0.5, 1.0)]
    assert (chatter.text, chatter.image, chatter.entities, chatter.pairs) == ("just talk", None, [], [])


def test_posts_are_given_with_and_without_objects_image_and_entities(posts: list[Known]) -> None:
    oracle = Oracle(posts)
    results = oracle.results(posts)
    assert list(results) == [(image, entities) for image in IMAGES for entities in (GIVEN, FOUND)]
    shown = {
        condition: (post.image is not None, post.crops, post.entities)
        for condition, post in zip(results, oracle.asked[::2], strict=True)
    }
    assert shown[OBJECTS, FOUND] == (True, posts[0].boxes, None)
    assert shown["image alone", GIVEN] == (True, None, posts[0].entities)
    assert shown["no image", FOUND] == (False, None, None)


def test_gold_annotations_score_a_hundred_in_every_row(posts: list[Known]) -> None:
    results = Oracle(posts).results(posts)
    rows = joint.score_rows(posts, results)
    assert [row[2] for row in rows] == [ALL, "easy", "hard"] * len(results)
    full = ["100.0", "100.0", "100.0 ± 0.0", "100.0", "100.0", "100.0"]
    assert all(row[3:] == full for row in rows if row[2] == "easy")
    assert {(*row[3:5], row[6]) for row in rows if row[2] == ALL} == {("100.0",) * 3}
    reasons = {name: counts for name, *counts in joint.reason_rows(posts, results)}
    assert reasons.pop("right") == ["2", "2"]
    assert {count for counts in reasons.values() for count in counts} == {"0"}


def test_errors_are_counted_in_their_column(posts: list[Known]) -> None:
    def damage(found: Extraction) -> Extraction:
        if not found.relations:
            return found
        entities = [found.entities[0], replace(found.entities[1], type="LOC"), found.entities[2]]
        swapped = replace(found.relations[1], head=2, tail=0, compatible=False)
        return replace(found, entities=entities, relations=[found.relations[0], swapped])

    results = Oracle(posts, damage).results(posts)
    row = joint.score_rows(posts, results)[0]
    assert row[:5] == [OBJECTS, GIVEN, ALL, "50.0", "50.0"]
    assert row[6:8] == ["50.0", "66.7"], "the one that is wrong does not fit its types"
    assert row[8] == "0.0", "with types the relation that is right has a tail of another type"
    spans, typed = joint.entity_rows(posts, results)[:2]
    assert (spans[2], typed[2]) == ("100.0", "66.7")
    reasons = {name: counts for name, *counts in joint.reason_rows(posts, results)}
    assert reasons["false: head and tail are the wrong way round"] == ["1", "1"]
    assert reasons["missed: another relation or direction was found"] == ["1", "1"]


def test_the_command_writes_a_page_about_both_models(
    corpus: Path, tmp_path: Path, make_trained: Callable[..., TrainedModel], capsys: pytest.CaptureFixture[str]
) -> None:
    card: dict[str, Any] = {"experiment": "tiny", "corpus": "drawn", "seed": 7, "test": {"f1": 0.25}}
    write_export([make_trained("mner", card=card), make_trained("mre")], tmp_path / "both")
    page = tmp_path / "joint.md"
    options = ["--root", str(corpus), "--table", str(page)]
    assert joint.main(["--model", str(tmp_path / "both"), *options]) == 0
    text = page.read_text(encoding="utf-8")
    assert "2 posts with 3 entities and 3 annotated pairs, 2 of them related" in text
    assert "| mner | tiny | drawn | 7 | 25.0 |" in text
    assert "| mre | unknown | unknown | unknown | not scored |" in text
    assert str(page) in capsys.readouterr().out
    assert joint.main(["--model", str(tmp_path / "both" / "mner"), *options]) == 2
    assert "a model of entities and one of relations" in capsys.readouterr().err


def test_a_missing_corpus_or_model_is_a_one_sentence_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert joint.main(["--root", str(tmp_path)]) == 2
    assert "mmib demo-data" in capsys.readouterr().err
