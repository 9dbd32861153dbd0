"""Tasks that choose one class per row: what a task of posts must define, and what it gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmib.backbone import MultimodalIB
from mmib.datamodules.examples import collate_regions, collate_text
from mmib.datamodules.posts import LabelledPost
from mmib.encoders.text import TextEncoder
from mmib.labels import LabelSet
from mmib.modules import ExtractionModule
from mmib.records import Chip
from mmib.schema import NO_IMAGE, NO_WORD, Prepared, Task, register_task
from mmib.tasks.base import ClassBatch, PostClassification, PostNetwork

LABELS = LabelSet(("related", "unrelated", "unclear"), "unrelated")


class RelevanceNetwork(PostNetwork):
    """The network of the test's task."""

    task = "relevance"


class Relevance(PostClassification):
    """Whether the image of a post is relevant to its text."""

    name = "relevance"
    title = "image-text relevance"
    network = RelevanceNetwork


TASK = Relevance()


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmib.schema._TASKS", {})
    register_task(TASK)


@pytest.fixture
def make_posts(make_text_encoder: Callable[..., TextEncoder]) -> Callable[..., ClassBatch]:
    """Builds a batch of posts without images from texts and labels, using the task's own functions."""
    tokenizer = make_text_encoder().tokenizer

    def make(*posts: tuple[str, str], max_length: int = 20) -> ClassBatch:
        prepared = Prepared(tokenizer, max_length, LABELS)
        words = [text.split() for text, _ in posts]
        examples = [
            TASK.encode(row, LabelledPost(words=post, image="", place="x:1", label=label), pieces, prepared)
            for row, (post, pieces, (_, label)) in enumerate(zip(words, tokenizer.pieces(words), posts, strict=True))
        ]
        fields = collate_text(examples, tokenizer.pad_id) | collate_regions([[]] * len(posts), None, 96)
        return TASK.collate(examples, {**fields, "pixels": None}, LABELS)

    return make


# From posts to batches


def test_a_post_becomes_its_pieces_and_the_id_of_its_label(make_text_encoder: Callable[..., TextEncoder]) -> None:
    tokenizer = make_text_encoder().tokenizer
    post = LabelledPost(words=["anna", "xyz", "bob"], image="a.jpg", place="x:1", label="unclear")
    pieces = tokenizer.pieces([post.words])[0]
    example = TASK.encode(7, post, pieces, Prepared(tokenizer, 20, LABELS))
    assert (example.row, example.label, example.words) == (7, 2, post.words)
    assert example.input_ids == [*tokenizer.prefix, *(piece for word in pieces for piece in word), *tokenizer.suffix]
    assert example.word_ids == [NO_WORD, 0, 1, 1, 1, 2, NO_WORD]
    assert not any(example.mentions)
    assert (example.image_id, example.pictures, example.spans()) == (NO_IMAGE, (), {})
    cut = TASK.encode(7, post, pieces, Prepared(tokenizer, 5, LABELS))
    assert cut.word_ids == [NO_WORD, 0, NO_WORD], "no part of a word"
    assert cut.words == post.words
    assert TASK.example_labels(cut, LABELS) == ["unclear"]


def test_the_labels_of_a_post_are_its_single_label() -> None:
    assert TASK.labels_of(LabelledPost(words=["a"], image="", place="x:1", label="unrelated")) == ["unrelated"]


def test_a_batch_contains_the_labels_and_the_position_of_the_first_piece(make_posts: Callable[..., ClassBatch]) -> None:
    batch = make_posts(("anna meets bob", "unclear"), ("the", "related"))
    assert batch.label_ids.tolist() == [2, 0]
    assert batch.positions.tolist() == [[0], [0]]
    assert batch.position_mask.all()
    assert batch.rows.tolist() == [0, 1]
    assert batch.text_mask.sum(dim=1).tolist() == [5, 3]


def test_the_census_counts_rows_and_labels(make_posts: Callable[..., ClassBatch]) -> None:
    census = TASK.census()
    for label in ("related", "unclear", "related"):
        census.add(LabelledPost(words=["a"], image="", place="x:1", label=label), None)
    assert str(census) == "3 posts, 2 labels"
    assert census.labels == {"related": 2, "unclear": 1}


# The network


@pytest.fixture
def module(make_backbone: Callable[..., MultimodalIB]) -> ExtractionModule:
    return ExtractionModule(TASK.build_network(make_backbone(sampling=False), LABELS), beta_text=0.0, gamma=0.0)


def test_the_head_is_a_linear_map_of_the_first_state(module: ExtractionModule) -> None:
    states = torch.randn(4, 1, 24)
    head: Any = module.network.head
    expected = states[:, 0] @ head[-1].weight.T + head[-1].bias
    torch.testing.assert_close(module.network.scores(states), expected)
    assert module.network.scores(states.bfloat16().float()).dtype == torch.float32
    assert module.network.settings() == {}


def test_loss_prediction_and_counts_of_a_batch(module: ExtractionModule, make_posts: Callable[..., ClassBatch]) -> None:
    batch = make_posts(("anna", "unclear"), ("bob", "related"), ("the", "related"), ("and", "unrelated"))
    batch.rows[2] = -1
    logits = torch.randn(4, 3)
    network = module.network
    torch.testing.assert_close(network.loss(logits, batch), F.cross_entropy(logits, batch.label_ids, reduction="none"))
    decoded = network.decode(logits, batch)
    assert torch.equal(decoded["predicted"], logits.argmax(dim=1))
    assert torch.equal(decoded["scores"], logits)
    assert torch.equal(network.gold(batch), batch.label_ids)
    assert network.label_counts(batch).tolist() == [1, 1, 1], "a padding row has no label"


def test_a_task_of_posts_can_be_learnt_and_scored(
    module: ExtractionModule, make_posts: Callable[..., ClassBatch]
) -> None:
    """The two classes above are all that a custom task needs."""
    batch = make_posts(("anna meets bob", "unclear"), ("the paris", "related"), ("xyz", "unrelated"))
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=3e-3)
    module.train()
    for _ in range(60):
        optimizer.zero_grad()
        module.training_step(batch, 0)["loss"].backward()
        optimizer.step()
    module.eval()
    assert module.predict_step(batch, 0)["predicted"].tolist() == batch.label_ids.tolist()
    module.validation_step(batch, 0)
    assert module.val_metric.compute() == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "accuracy": 1.0}
    assert int(module.val_metric.gold[0, module.val_metric.scored].sum()) == 2, "the negative class is not scored"


# Prediction records, and reading them back


def record(gold: str, predicted: str, scores: tuple[float, ...] = (0.5, 2.0, -1.0)) -> dict[str, Any]:
    return {"gold": gold, "predicted": predicted, "scores": list(scores), "words": ["a"]}


def test_a_row_is_judged_by_all_its_logits() -> None:
    judged = TASK.judge([record("related", "unrelated"), record("unclear", "unclear")], LABELS)
    assert [(list(j.logits), j.predicted, j.gold, j.right) for j in judged] == [
        ([0.5, 2.0, -1.0], 1, 0, False),
        ([0.5, 2.0, -1.0], 2, 2, True),
    ]


def test_the_confusion_matrix_has_the_occurring_classes_in_label_order() -> None:
    pairs = [("unclear", "related"), ("unclear", "unclear"), ("related", "unclear"), ("unclear", "related")]
    found = TASK.confusion([record(*pair) for pair in pairs], LABELS)
    assert found.rows == found.columns == ["related", "unclear"]
    assert found.counts.tolist() == [[0, 1], [2, 1]]
    assert TASK.confusion([], LABELS).rows == []


@pytest.mark.parametrize(("gold", "style"), [("unrelated", "right"), ("related", "wrong")])
def test_an_answer_shows_both_classes_and_the_confidence(gold: str, style: str) -> None:
    answer = TASK.answer(record(gold, "unrelated"), LABELS)
    shares = np.exp([0.5, 2.0, -1.0]) / np.exp([0.5, 2.0, -1.0]).sum()
    assert answer.confidence == pytest.approx(shares[1])
    assert answer.right is (style == "right")
    assert (answer.gold, answer.predicted, answer.classes) == (gold, "unrelated", [gold, "unrelated"])
    assert answer.lines == [("gold", [Chip(gold)]), ("predicted", [Chip("unrelated", style)])]
    assert (answer.word_styles, answer.word_positions) == ({}, {})


@pytest.mark.parametrize(
    "damaged",
    [
        record("related", "gone"),
        record("gone", "related"),
        record("related", "related", (1.0, 2.0)),
        {"gold": "related", "predicted": "related"},
        {**record("related", "related"), "scores": 3},
    ],
)
@pytest.mark.parametrize("method", ["judge", "answer"])
def test_a_damaged_record_raises_an_expected_error(damaged: dict[str, Any], method: str) -> None:
    given: Any = [damaged] if method == "judge" else damaged
    with pytest.raises((ValueError, KeyError, TypeError, IndexError)):
        getattr(TASK, method)(given, LABELS)


def test_an_unknown_label_is_named() -> None:
    with pytest.raises(ValueError, match="'gone' is not one of the labels related, unrelated, unclear"):
        TASK.confusion([record("gone", "related")], LABELS)


def test_defaults_of_the_interface() -> None:
    task: Task = TASK
    assert task.outputs(LABELS) == LABELS.names
    assert task.counts([], LABELS) == {}
    assert (task.attention_rows(30), task.finds, task.rows) == (1, "labels", "posts")
