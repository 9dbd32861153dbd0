"""Relation extraction: predictions of the network match its module, for any label set, and prediction records."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from mmib.datamodules.posts import RelationPost
from mmib.labels import LabelSet
from mmib.modules import MREModule
from mmib.records import Chip
from mmib.schema import ConfigError, PostBatch, task_named
from mmib.tasks.mre import RelationExample, RelationNetwork

Build = Callable[..., MREModule]
MakeBatch = Callable[..., PostBatch]
TASK = task_named("mre")
# The negative class is in the middle.
CUSTOM = ["sponsors", "no_relation", "plays_for"]
LABELS = LabelSet(tuple(CUSTOM), "no_relation")


def test_the_head_has_one_output_per_label(make_module: Build) -> None:
    assert make_module().network.head.classifier.out_features == 23
    module = make_module(labels=CUSTOM)
    assert module.network.head.classifier.out_features == 3
    assert module.labels == LabelSet(tuple(CUSTOM))
    assert TASK.outputs(LABELS) == LABELS.names


def test_the_predicted_relation_has_the_highest_logit(make_module: Build, make_batch: MakeBatch) -> None:
    module = make_module().eval()
    predicted = module.predict_step(make_batch(), 0)
    assert predicted["scores"].shape == (4, len(module.labels))
    assert torch.equal(predicted["predicted"], predicted["scores"].argmax(dim=1))


@pytest.mark.parametrize(
    ("probabilities", "expected"), [((0.6, 0.35, 0.05), 1), ((0.6, 0.2, 0.2), 0), ((0.1, 0.4, 0.5), 2)]
)
def test_a_threshold_determines_when_a_relation_is_predicted(
    make_module: Build, make_batch: MakeBatch, probabilities: tuple[float, ...], expected: int
) -> None:
    module = make_module(threshold=0.3)
    scores = torch.full((4, len(module.labels)), -50.0)
    scores[:, :3] = torch.tensor(probabilities).log()
    decoded = module.network.decode(scores, make_batch())
    assert decoded["predicted"].tolist() == [expected] * 4
    assert torch.equal(decoded["scores"], scores)


@pytest.mark.parametrize(
    ("probabilities", "expected"), [((0.35, 0.6, 0.05), 0), ((0.2, 0.6, 0.2), 1), ((0.4, 0.1, 0.5), 2)]
)
def test_below_the_threshold_the_negative_class_is_predicted_at_any_id(
    make_module: Build, make_batch: MakeBatch, probabilities: tuple[float, ...], expected: int
) -> None:
    network = make_module(labels=LABELS.to_dict(), threshold=0.3).network
    scores = torch.tensor(probabilities).log().repeat(4, 1)
    assert network.decode(scores, make_batch())["predicted"].tolist() == [expected] * 4


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.5])
def test_a_threshold_outside_0_to_1_is_refused(make_module: Build, threshold: float) -> None:
    with pytest.raises(ConfigError, match=f"threshold is {threshold}"):
        make_module(threshold=threshold)


def test_a_threshold_needs_a_negative_class(make_module: Build) -> None:
    with pytest.raises(ConfigError, match=r"threshold is 0\.3, and the label set has no negative class"):
        make_module(labels=CUSTOM, threshold=0.3)
    assert make_module(labels=CUSTOM).network.predict(torch.eye(3)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("threshold", [None, 0.3])
def test_a_network_can_be_rebuilt_from_its_settings(
    make_module: Build, make_batch: MakeBatch, threshold: float | None
) -> None:
    module, batch = make_module(threshold=threshold), make_batch()
    network = TASK.build_network(module.backbone, module.labels, **module.network.settings())
    assert isinstance(network, RelationNetwork)
    assert network.settings() == {"threshold": threshold}
    logits = 2 * torch.randn(50, 23)
    assert torch.equal(network.predict(logits), module.network.decode(logits, batch)["predicted"])


def test_a_batch_counts_the_labels_of_its_valid_rows(make_module: Build, make_batch: MakeBatch) -> None:
    module = make_module(labels=CUSTOM)
    batch = make_batch(labels=[2, 0, 2, 2])
    batch = dataclasses.replace(batch, rows=torch.tensor([0, 1, 2, -1]))
    assert module.network.label_counts(batch).tolist() == [1, 0, 2]


# Posts


def test_the_label_of_a_post_is_its_relation() -> None:
    post = RelationPost(words=["a", "b"], image="", place="x:1", head=(0, 1), tail=(1, 2), relation="sponsors")
    assert TASK.labels_of(post) == ["sponsors"]


def test_spans_are_tuples_even_if_read_from_json() -> None:
    fields: dict[str, Any] = {"row": 0, "words": ["a", "b"], "input_ids": [1], "word_ids": [0], "mentions": [1]}
    example = RelationExample(**fields, head=[0, 1], tail=[1, 2], head_index=1, tail_index=4, label=0)  # type: ignore[arg-type]
    assert example.spans() == {"head": (0, 1), "tail": (1, 2)}


# Prediction records


def record(head: tuple[int, int], tail: tuple[int, int]) -> dict[str, Any]:
    words = ["ada", "of", "acme", "labs"]
    named = {"gold": "plays_for", "predicted": "sponsors", "scores": [3.0, 0.0, 1.0]}
    return {**named, "words": words, "head": list(head), "tail": list(tail)}


def test_an_answer_marks_head_and_tail() -> None:
    answer = TASK.answer(record((2, 4), (0, 1)), LABELS)
    assert answer.lines == [
        ("head", [Chip("acme labs", "head", (2, 4), positions=[0])]),
        ("tail", [Chip("ada", "tail", (0, 1), positions=[1])]),
        ("gold", [Chip("plays_for")]),
        ("predicted", [Chip("sponsors", "wrong")]),
    ]
    assert answer.word_styles == {0: ["tail"], 2: ["head"], 3: ["head"]}
    assert answer.word_positions == {0: [1], 2: [0], 3: [0]}
    assert not answer.right


def test_a_word_in_both_entities_shows_the_attention_of_the_shorter() -> None:
    answer = TASK.answer(record((1, 4), (2, 3)), LABELS)
    assert answer.word_styles == {1: ["head"], 2: ["head", "tail"], 3: ["head"]}
    assert answer.word_positions == {1: [0], 2: [1], 3: [0]}


@pytest.mark.parametrize("change", [{"head": [0]}, {"head": None}, {"tail": ["a", "b"]}, {"words": None}])
def test_a_damaged_record_raises_an_expected_error(change: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, IndexError)):
        TASK.answer({**record((0, 1), (1, 2)), **change}, LABELS)


def test_a_prediction_keeps_the_attention_of_head_and_tail() -> None:
    assert TASK.attention_rows(50) == 2
    assert TASK.finds == "relations"
