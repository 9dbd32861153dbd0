"""The sample of posts: which, in which order, and what is shown of each."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmib.analysis.calibration import Entity
from mmib.analysis.report.posts import Post, PostWriter, darkest_word, read_post, sample
from mmib.schema import RELATIONS, DataError, RunError, Task

BOXES = [[0.0, 0.0, 1.0, 1.0], [0.1, 0.2, 0.4, 0.9], [0.0, 0.0, 0.0, 0.0]]


def relation(**changes: Any) -> dict[str, Any]:
    scores = [0.0] * len(RELATIONS)
    record = {"id": 3, "gold": "None", "predicted": "None", "scores": scores, "words": ["Anna", "likes", "Bob"]}
    return {**record, "head": [0, 1], "tail": [2, 3], **changes}


def tagged(**changes: Any) -> dict[str, Any]:
    tags = ["B-PER", "O", "B-LOC"]
    record = {"id": 3, "gold": tags, "predicted": tags, "words": ["Anna", "in", "Paris"]}
    return {**record, "confidence": [0.9, 0.5, 0.8], **changes}


RECORDS: dict[Task, Callable[..., dict[str, Any]]] = {"mre": relation, "mner": tagged}


def written(task: Task, record: dict[str, Any], root: Path | None = None) -> str:
    post = read_post(task, record)
    return PostWriter(task, post.classes, darkest_word([post]), root).write(post)


def post(right: bool, confidence: float) -> Post:
    return Post({"id": confidence}, right, confidence, [], [], [])


def test_wrong_posts_come_first_and_then_right_ones_each_by_confidence() -> None:
    random = np.random.default_rng(0)
    posts = [post(bool(random.random() < 0.7), float(random.random())) for _ in range(100)]
    chosen = sample(posts, 20)
    wrong = sorted((p.confidence for p in posts if not p.right), reverse=True)[:10]
    right = [p.confidence for p in chosen if p.right]
    assert [p.confidence for p in chosen[:10]] == wrong
    assert [p.right for p in chosen] == [False] * 10 + [True] * 10
    assert right == sorted(right, reverse=True)
    assert {right[0], right[-1]} == {f(p.confidence for p in posts if p.right) for f in (max, min)}


@pytest.mark.parametrize(
    ("wrong", "right", "size"), [(3, 50, 20), (50, 3, 20), (4, 4, 20), (5, 5, 0), (0, 0, 5), (9, 9, 1)]
)
def test_a_sample_is_as_large_as_it_can_be_and_holds_nothing_twice(wrong: int, right: int, size: int) -> None:
    posts = [post(number >= wrong, number / 100) for number in range(wrong + right)]
    chosen = sample(posts, size)
    assert len(chosen) == min(size, wrong + right)
    assert len({p.confidence for p in chosen}) == len(chosen)


def test_a_post_of_entities_is_right_where_nothing_is_missed_or_made_up() -> None:
    assert read_post("mner", tagged()).right
    assert not read_post("mner", tagged(gold=["B-PER", "O", "O"])).right
    assert not read_post("mner", tagged(predicted=["B-PER", "O", "B-ORG"])).right
    assert read_post("mner", tagged()).confidence == 0.8
    assert read_post("mner", tagged(predicted=["O"] * 3)).confidence == 0.5
    assert read_post("mner", tagged(predicted=["B-ORG", "O", "O"])).classes == ["LOC", "ORG", "PER"]


def test_head_and_tail_are_the_entities_of_a_relation() -> None:
    assert read_post("mre", relation()).gold == [Entity("head", 0, 1), Entity("tail", 2, 3)]
    assert read_post("mre", relation()).confidence == pytest.approx(1 / len(RELATIONS))


def test_words_are_shaded_by_their_nats_up_to_the_darkest() -> None:
    text = written("mner", tagged(kl=[0.0, 10.0, None]))
    # The 95th percentile of 0 and 10 is 9.5: what lies above has the darkest shade.
    assert re.findall(r"--k:([\d.]+)", text) == ["0.42"]
    assert 'data-kl="0"' in text
    assert 'class="w unseen entity gold"' in text


def test_attention_of_words_of_an_entity_and_of_the_post() -> None:
    attention = [[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], None]
    gold = ["B-PER", "I-PER", "B-LOC"]
    text = written("mner", tagged(gold=gold, predicted=gold, attention=attention, boxes=BOXES))
    assert re.findall(r'class="w[^"]*"[^>]*data-a="([\d ]+)"', text) == ["500 300 200", "100 800 100"]
    assert re.findall(r'class="chip[^"]*"[^>]*data-a="([\d ]+)"', text) == ["300 550 150"] * 2
    assert 'data-most="800"' in text


def test_the_shorter_of_two_nested_entities_gives_its_attention_to_a_word() -> None:
    attention = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    text = written("mre", relation(head=[0, 3], tail=[1, 2], attention=attention, boxes=BOXES))
    assert re.findall(r'class="w[^"]*"[^>]*data-a="([\d ]+)"', text) == ["1000 0 0", "0 1000 0", "1000 0 0"]


def test_a_picture_has_its_regions_over_it_and_unknown_ones_hidden(tmp_path: Path) -> None:
    Image.new("RGB", (960, 480)).save(tmp_path / "a.jpg")
    text = written("mre", relation(image="a.jpg", boxes=BOXES, attention=[[0.6, 0.2, 0.2]] * 2), tmp_path)
    assert 'width="240" height="120"' in text
    assert "data:image/webp;base64," in text
    assert re.findall(r'<rect x="([\d.]+)"[^>]*--a:([\d.]+)"(?: class="(\w+)")?', text) == [
        ("0.0", "1.00", "whole"),
        ("0.1", "0.33", ""),
        ("0.0", "0.33", "unknown"),
    ]


@pytest.mark.parametrize(
    ("image", "says"), [(None, "no image"), ("gone.jpg", "image not found"), ("bad.jpg", "not found")]
)
def test_posts_without_a_picture_say_so(tmp_path: Path, image: str | None, says: str) -> None:
    (tmp_path / "bad.jpg").write_text("no picture")
    assert says in written("mre", relation(image=image, boxes=[]), tmp_path)


def test_a_prediction_file_cannot_reach_files_outside_the_data(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "private.png")
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match="does not lie inside"):
        written("mre", relation(image="../private.png"), tmp_path / "data")


@pytest.mark.parametrize("task", ["mre", "mner"])
def test_a_post_without_evidence_is_shown(task: Task) -> None:
    text = written(task, RECORDS[task]())
    assert "Anna" in text
    assert "data-a" not in text
    assert "data-kl" not in text


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        ("mre", {"head": [0, 9]}),
        ("mre", {"tail": [2, 2]}),
        ("mre", {"head": None}),
        ("mre", {"scores": [1.0]}),
        ("mre", {"predicted": "no relation of ours"}),
        ("mre", {"kl": [1.0]}),
        ("mre", {"kl": ["a", "b", "c"]}),
        ("mre", {"boxes": [[0, 0, 1]]}),
        ("mre", {"attention": [[1.0], [1.0]], "boxes": BOXES}),
        ("mre", {"words": None}),
        ("mner", {"predicted": ["O"]}),
        ("mner", {"confidence": [0.5]}),
        ("mner", {"confidence": None}),
        ("mner", {"gold": [1, 2, 3]}),
    ],
)
def test_fields_that_do_not_fit_are_refused_with_the_row(task: Task, changes: dict[str, Any]) -> None:
    with pytest.raises(RunError, match="row 3 is damaged"):
        read_post(task, RECORDS[task](**changes))


def test_posts_stop_at_the_budget(tmp_path: Path) -> None:
    posts = [read_post("mre", relation(id=number)) for number in range(9)]
    writer = PostWriter("mre", ["None"], 1.0, None)
    one = len(writer.write(posts[0]).encode())
    assert len(list(writer.within(posts, 3 * one + 1))) == 3
