"""Stored predictions, on any number of ranks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmib.callbacks import predictions
from mmib.callbacks.predictions import PredictionCollector
from mmib.schema import NO_LABEL


def outputs(rows: list[int], predicted: list[int], gold: list[int] | None = None) -> dict[str, torch.Tensor]:
    columns = {"rows": rows, "predicted": predicted, **({} if gold is None else {"gold": gold})}
    return {**{key: torch.tensor(values) for key, values in columns.items()}, "scores": torch.eye(len(rows))}


VALIDATING: Any = SimpleNamespace(testing=False, predicting=False)
TESTING: Any = SimpleNamespace(testing=True, predicting=False)
PREDICTING: Any = SimpleNamespace(testing=False, predicting=True)
MODULE: Any = None


def test_only_predictions_of_the_last_pass_are_kept_by_row() -> None:
    collector = PredictionCollector()
    for value in (1, 2):
        collector.on_validation_epoch_start(VALIDATING, MODULE)
        for rows in ([3, 0], [1]):
            kept = outputs(rows, [value] * len(rows), [7] * len(rows))
            collector.on_validation_batch_end(VALIDATING, MODULE, kept, None, 0)
    collector.on_test_epoch_start(TESTING, MODULE)
    collector.on_test_batch_end(TESTING, MODULE, outputs([0], [5], [6]), None, 0)
    assert sorted(collector.predictions["val"]) == [0, 1, 3]
    assert {record["predicted"] for record in collector.predictions["val"].values()} == {2}
    assert collector.predictions["val"][0] == {"id": 0, "gold": 7, "predicted": 2, "scores": [0.0, 1.0]}
    assert collector.predictions["test"] == {0: {"id": 0, "gold": 6, "predicted": 5, "scores": [1.0]}}


def test_predictions_without_gold_are_kept() -> None:
    collector = PredictionCollector()
    collector.on_predict_epoch_start(PREDICTING, MODULE)
    collector.on_predict_batch_end(PREDICTING, MODULE, outputs([4], [5]), None, 0)
    assert collector.predictions == {"test": {4: {"id": 4, "predicted": 5, "scores": [1.0]}}}


def test_word_labels_are_kept_without_padding_and_evidence_unchanged() -> None:
    labels = torch.tensor([[1, 2, NO_LABEL], [0, 0, 0]])
    batch_outputs = {"rows": torch.tensor([1, 0]), "gold": labels, "predicted": labels, "confidence": torch.rand(2, 3)}
    batch_outputs |= {"kl": torch.rand(2, 2), "kl_image": torch.rand(2, 5), "attention": torch.rand(2, 3, 5)}
    collector = PredictionCollector()
    collector.on_test_epoch_start(TESTING, MODULE)
    collector.on_test_batch_end(TESTING, MODULE, batch_outputs, None, 0)
    kept = collector.predictions["test"][1]
    assert (kept["gold"], kept["predicted"], len(kept["confidence"])) == ([1, 2], [1, 2], 2)
    for key in ("kl", "kl_image", "attention"):
        assert kept[key] == batch_outputs[key][0].tolist()


def test_padding_rows_have_no_predictions() -> None:
    collector = PredictionCollector()
    collector.on_test_epoch_start(TESTING, MODULE)
    collector.on_test_batch_end(TESTING, MODULE, outputs([2, -1, 0, -1], [5, 6, 7, 8], [1, 1, 1, 1]), None, 0)
    assert {row: record["predicted"] for row, record in collector.predictions["test"].items()} == {2: 5, 0: 7}


def test_sums_are_not_stored_as_predictions() -> None:
    collector = PredictionCollector()
    collector.on_test_epoch_start(TESTING, MODULE)
    collector.on_test_batch_end(TESTING, MODULE, {**outputs([0], [5]), "sums": object(), "output": object()}, None, 0)
    assert collector.predictions["test"][0].keys() == {"id", "predicted", "scores"}


def test_gathered_predictions_of_all_ranks_are_sorted_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def record(row: int) -> dict[str, Any]:
        return {"id": row, "predicted": 10 * row}

    collector = PredictionCollector()
    asked: list[str] = []
    collector.predictions = {"val": {2: record(2), 0: record(0)}, "test": {}}
    others = {"val": [{3: record(3), 1: record(1)}], "test": [{0: record(0)}]}

    def gather(local: dict[int, Any]) -> list[dict[int, Any]]:
        split = ("test", "val")[len(asked)]
        asked.append(split)
        return [local, *others[split]]

    monkeypatch.setattr(predictions, "gather_objects", gather)
    collector.gather()
    assert list(collector.predictions["val"].items()) == [(row, record(row)) for row in range(4)]
    assert collector.predictions["test"] == {0: record(0)}


def test_predictions_of_one_process_are_sorted_by_row() -> None:
    collector = PredictionCollector()
    collector.predictions = {"val": {2: {"id": 2}, 0: {"id": 0}}}
    collector.gather()
    assert list(collector.predictions["val"]) == [0, 2]
