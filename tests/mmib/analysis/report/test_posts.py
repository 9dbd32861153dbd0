"""The sample of posts: selection, order, and what is shown of each."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmib.analysis.report.posts import Post, PostWriter, darkest_word, read_post, sample
from mmib.datamodules.released import MNRE, TWITTER
from mmib.records import Answer, Chip
from mmib.schema import RunError, Task, task_named

MRE, MNER = task_named("mre"), task_named("mner")
LABELS = {MRE: MNRE, MNER: TWITTER}
BOXES = [[0.0, 0.0, 1.0, 1.0], [0.1, 0.2, 0.4, 0.9], [0.0, 0.0, 0.0, 0.0]]


def relation(**changes: Any) -> dict[str, Any]:
    scores = [0.0] * len(MNRE)
    record = {"id": 3, "gold": "None", "predicted": "None", "scores": scores, "words": ["Anna", "likes", "Bob"]}
    return {**record, "head": [0, 1], "tail": [2, 3], **changes}


def tagged(**changes: Any) -> dict[str, Any]:
    tags = ["B-PER", "O", "B-LOC"]
    record = {"id": 3, "gold": tags, "predicted": tags, "words": ["Anna", "in", "Paris"]}
    return {**record, "confidence": [0.9, 0.5, 0.8], **changes}


RECORDS: dict[Task, Callable[..., dict[str, Any]]] = {MRE: relation, MNER: tagged}


def read(task: Task, record: dict[str, Any]) -> Post:
    return read_post(task, LABELS[task], record)


def written(task: Task, record: dict[str, Any], root: Path | None = None) -> str:
    return shown(read(task, record), root)


def shown(post: Post, root: Path | None = None) -> str:
    return PostWriter(post.answer.classes, darkest_word([post]), root).write(post)


def post(right: bool, confidence: float) -> Post:
    return Post({"id": confidence}, Answer(right, confidence, [], "", "", []))


def test_wrong_posts_precede_right_ones_and_both_are_sorted_by_confidence() -> None:
    random = np.random.default_rng(0)
    posts = [post(bool(random.random() < 0.7), float(random.random())) for _ in range(100)]
    chosen = sample(posts, 20)
    wrong = sorted((p.answer.confidence for p in posts if not p.answer.right), reverse=True)[:10]
    right = [p.answer.confidence for p in chosen if p.answer.right]
    assert [p.answer.confidence for p in chosen[:10]] == wrong
    assert [p.answer.right for p in chosen] == [False] * 10 + [True] * 10
    assert right == sorted(right, reverse=True)
    assert {right[0], right[-1]} == {f(p.answer.confidence for p in posts if p.answer.right) for f in (max, min)}


@pytest.mark.parametrize(
    ("wrong", "right", "size"), [(3, 50, 20), (50, 3, 20), (4, 4, 20), (5, 5, 0), (0, 0, 5), (9, 9, 1)]
)
def test_a_sample_is_as_large_as_possible_without_duplicates(wrong: int, right: int, size: int) -> None:
    posts = [post(number >= wrong, number / 100) for number in range(wrong + right)]
    chosen = sample(posts, size)
    assert len(chosen) == min(size, wrong + right)
    assert len({p.answer.confidence for p in chosen}) == len(chosen)


def test_chips_are_buttons_if_they_refer_to_words_and_labels_otherwise() -> None:
    record = {"id": 1, "words": ["<a>", "b"], "attention": [[0.25, 0.75]], "boxes": BOXES[:2]}
    lines = [
        ("found", [Chip("<a>", "right", (0, 1), "PER 90 %", [0]), Chip("b", "wrong", (1, 2))]),
        ("class", [Chip("<related>", "wrong"), Chip("x", tag="50 %")]),
        ("missed", []),
    ]
    text = shown(Post(record, Answer(False, 0.5, ["x"], "", "", lines)))
    lists = text[text.index("<dl>") :]
    assert '<button type="button" class="chip right" tabindex="-1" data-a="250 750"><bdi>&lt;a&gt;</bdi> ' in lists
    assert "<small>PER 90 %</small></button> <button" in lists
    assert '<button type="button" class="chip wrong" tabindex="-1"><bdi>b</bdi></button>' in lists
    assert '<span class="label wrong">&lt;related&gt;</span> <span class="label">x <small>50 %</small></span>' in lists
    assert "<div><dt>missed</dt><dd>none</dd></div>" in lists


def test_words_have_the_styles_and_attention_defined_by_the_task() -> None:
    record = {"id": 1, "words": ["a", "b", "c"], "attention": [[1.0, 0.0], [0.0, 1.0]], "boxes": BOXES[:2]}
    answer = Answer(True, 0.5, [], "", "", [], {1: ["head", "tail"]}, {1: [0, 1], 2: [1]})
    words = re.findall(r'<span class="(w[^"]*)" tabindex="-1"(?: data-a="([^"]+)")?>', shown(Post(record, answer)))
    assert words == [("w", ""), ("w head tail", "500 500"), ("w", "0 1000")]


def test_words_are_shaded_by_their_nats_up_to_the_darkest_shade() -> None:
    text = written(MNER, tagged(kl=[0.0, 10.0, None]))
    # The 95th percentile of 0 and 10 is 9.5: larger values have the darkest shade.
    assert re.findall(r"--k:([\d.]+)", text) == ["0.42"]
    assert 'data-kl="0"' in text
    assert 'class="w unseen entity gold"' in text


def test_attention_of_words_of_an_entity_and_of_the_post() -> None:
    attention = [[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], None]
    gold = ["B-PER", "I-PER", "B-LOC"]
    text = written(MNER, tagged(gold=gold, predicted=gold, attention=attention, boxes=BOXES))
    assert re.findall(r'class="w[^"]*"[^>]*data-a="([\d ]+)"', text) == ["500 300 200", "100 800 100"]
    assert re.findall(r'class="chip[^"]*"[^>]*data-a="([\d ]+)"', text) == ["300 550 150"] * 2
    assert 'data-most="800"' in text


def test_a_word_shows_the_attention_of_the_shorter_of_two_nested_entities() -> None:
    attention = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    text = written(MRE, relation(head=[0, 3], tail=[1, 2], attention=attention, boxes=BOXES))
    assert re.findall(r'class="w[^"]*"[^>]*data-a="([\d ]+)"', text) == ["1000 0 0", "0 1000 0", "1000 0 0"]


def test_an_image_is_overlaid_with_its_regions_and_unknown_ones_are_hidden(tmp_path: Path) -> None:
    Image.new("RGB", (960, 480)).save(tmp_path / "a.jpg")
    text = written(MRE, relation(image="a.jpg", boxes=BOXES, attention=[[0.6, 0.2, 0.2]] * 2), tmp_path)
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
def test_posts_without_an_image_are_marked(tmp_path: Path, image: str | None, says: str) -> None:
    (tmp_path / "bad.jpg").write_text("no picture")
    assert says in written(MRE, relation(image=image, boxes=[]), tmp_path)


def test_a_prediction_file_cannot_refer_to_files_outside_the_data(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "private.png")
    (tmp_path / "data").mkdir()
    assert "data:image" in written(MRE, relation(image="private.png"), tmp_path)
    assert "data:image" not in written(MRE, relation(image="../private.png"), tmp_path / "data")


@pytest.mark.parametrize("task", [MRE, MNER], ids=["mre", "mner"])
def test_a_post_without_evidence_is_shown(task: Task) -> None:
    text = written(task, RECORDS[task]())
    assert "Anna" in text
    assert "data-a" not in text
    assert "data-kl" not in text


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        (MRE, {"head": [0, 9]}),
        (MRE, {"tail": [2, 2]}),
        (MRE, {"head": None}),
        (MRE, {"scores": [1.0]}),
        (MRE, {"predicted": "no relation of ours"}),
        (MRE, {"kl": [1.0]}),
        (MRE, {"kl": ["a", "b", "c"]}),
        (MRE, {"boxes": [[0, 0, 1]]}),
        (MRE, {"attention": [[1.0], [1.0]], "boxes": BOXES}),
        (MRE, {"words": None}),
        (MNER, {"predicted": ["O"]}),
        (MNER, {"confidence": [0.5]}),
        (MNER, {"confidence": None}),
        (MNER, {"gold": [1, 2, 3]}),
    ],
)
def test_inconsistent_fields_are_refused_with_their_row(task: Task, changes: dict[str, Any]) -> None:
    with pytest.raises(RunError, match="row 3 is damaged"):
        read(task, RECORDS[task](**changes))


def test_posts_are_limited_by_the_size_budget(tmp_path: Path) -> None:
    posts = [read(MRE, relation(id=number)) for number in range(9)]
    writer = PostWriter(["None"], 1.0, None)
    one = len(writer.write(posts[0]).encode())
    assert len(list(writer.within(posts, 3 * one + 1))) == 3
