"""What callbacks log, keep and remember."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from mmib.callbacks import AveragedWeights, IBMonitor, PredictionCollector, SelectedCheckpoint
from mmib.modules import Scalar


class Scripted(pl.LightningModule):
    """Gives the scalars of a script, a step at a time."""

    def __init__(self, script: list[dict[str, Scalar]]) -> None:
        super().__init__()
        self.script = script
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: torch.Tensor, index: int) -> dict[str, Any]:
        return {"loss": self.weight.sum(), "scalars": self.script[index]}

    def validation_step(self, batch: torch.Tensor, index: int) -> dict[str, Any]:
        return {"scalars": self.script[index]}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def log(script: list[dict[str, Scalar]], tmp_path: Path) -> dict[str, float]:
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        callbacks=[IBMonitor()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    batches: DataLoader[Any] = DataLoader(torch.zeros(len(script), 1), batch_size=1)  # type: ignore[arg-type]
    trainer.fit(Scripted(script), batches, batches)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_a_mean_over_batches_counts_what_each_is_a_mean_of(tmp_path: Path) -> None:
    script = [
        {"task": Scalar(1.0, 2), "ib/kl_image": Scalar(10.0, 1), "align/loss": Scalar(5.0, 0)},
        {"task": Scalar(4.0, 1), "ib/kl_image": Scalar(2.0, 3), "align/loss": Scalar(3.0, torch.tensor(4))},
    ]
    logged = log(script, tmp_path)
    assert logged["train/task"] == logged["val/task"] == pytest.approx(2.0)
    assert logged["ib/kl_image"] == logged["val/ib/kl_image"] == pytest.approx(4.0)
    assert logged["align/loss"] == pytest.approx(3.0), "a batch without anchors has no say"


def test_an_epoch_without_any_anchor_logs_no_alignment(tmp_path: Path) -> None:
    logged = log([{"task": Scalar(1.0, 2), "align/loss": Scalar(0.0, 0)}], tmp_path)
    assert "align/loss" not in logged
    assert "train/task" in logged


def outputs(rows: list[int], predicted: list[int], gold: list[int] | None = None) -> dict[str, torch.Tensor]:
    columns = {"rows": rows, "predicted": predicted, **({} if gold is None else {"gold": gold})}
    return {**{key: torch.tensor(values) for key, values in columns.items()}, "scores": torch.eye(len(rows))}


VALIDATING: Any = SimpleNamespace(testing=False, predicting=False)
TESTING: Any = SimpleNamespace(testing=True, predicting=False)
PREDICTING: Any = SimpleNamespace(testing=False, predicting=True)
MODULE: Any = None


def test_predictions_are_kept_by_row_and_only_of_the_last_pass() -> None:
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


def test_predictions_without_gold_are_kept_too() -> None:
    collector = PredictionCollector()
    collector.on_predict_epoch_start(PREDICTING, MODULE)
    collector.on_predict_batch_end(PREDICTING, MODULE, outputs([4], [5]), None, 0)
    assert collector.predictions == {"test": {4: {"id": 4, "predicted": 5, "scores": [1.0]}}}


def test_the_best_epoch_is_remembered_in_another_folder(tmp_path: Path) -> None:
    before, after = (
        SelectedCheckpoint(dirpath=tmp_path / name, monitor="val/f1", mode="max") for name in ("one", "two")
    )
    before.best_model_score = torch.tensor(0.8)
    before.best_model_path = str(tmp_path / "one" / "best.ckpt")
    before.best_k_models = {before.best_model_path: torch.tensor(0.8)}
    before.kth_best_model_path, before.kth_value = before.best_model_path, torch.tensor(0.8)
    after.load_state_dict(before.state_dict())
    assert after.best_model_path == before.best_model_path
    assert after.best_model_score == before.best_model_score
    assert after.dirpath == str(tmp_path / "two")
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(reduce_boolean_decision=lambda decision, **_: decision))
    assert not after.check_monitor_top_k(trainer, torch.tensor(0.7)), "a worse epoch is not selected"
    assert after.check_monitor_top_k(trainer, torch.tensor(0.9))


class Climbing(pl.LightningModule):
    """A weight that grows by 1 a step, and a score that is the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        return -self.weight.sum()

    def validation_step(self, batch: torch.Tensor, index: int) -> None:
        self.log("val/f1", self.weight.detach().sum())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


@pytest.mark.parametrize("weights_only", [True, False])
@pytest.mark.parametrize("averaged", [True, False])
def test_the_checkpoint_holds_the_weights_that_were_validated(
    tmp_path: Path, weights_only: bool, averaged: bool
) -> None:
    best = SelectedCheckpoint(dirpath=tmp_path, monitor="val/f1", mode="max", save_weights_only=weights_only)
    batches: DataLoader[Any] = DataLoader(torch.zeros(4, 1))  # type: ignore[arg-type]
    module = Climbing()
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        callbacks=[best, *([AveragedWeights(decay=0.5)] if averaged else [])],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, batches, batches)
    saved = torch.load(best.best_model_path, weights_only=True)["state_dict"]["weight"]
    assert float(saved) == pytest.approx(float(best.best_model_score))  # type: ignore[arg-type]
    assert (float(saved) < 8) == averaged, "the last step's weight is 8"


def test_a_checkpoint_that_is_validated_after_fitting_is_itself(tmp_path: Path) -> None:
    """Scores of a first epoch, kept as the best one by `mode`, are not those of the last average."""
    best = SelectedCheckpoint(dirpath=tmp_path, monitor="val/f1", mode="min", save_weights_only=True)
    batches: DataLoader[Any] = DataLoader(torch.zeros(4, 1))  # type: ignore[arg-type]
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        callbacks=[best, AveragedWeights(decay=0.5)],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    module = Climbing()
    trainer.fit(module, batches, batches)
    (scored,) = trainer.validate(module, batches, ckpt_path=best.best_model_path, weights_only=True, verbose=False)
    assert scored["val/f1"] == pytest.approx(float(best.best_model_score))  # type: ignore[arg-type]
    assert scored["val/f1"] < 4


def test_averaging_leaves_buffers_of_whole_numbers_alone(tmp_path: Path) -> None:
    """Position ids are such a buffer: an average of them, rounded down, spoils every score after the first update."""

    class Positioned(Climbing):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("position_ids", torch.arange(100), persistent=False)
            self.seen: list[torch.Tensor] = []

        def validation_step(self, batch: torch.Tensor, index: int) -> None:
            self.seen.append(self.position_ids.clone())
            super().validation_step(batch, index)

    module = Positioned()
    batches = torch.utils.data.DataLoader(torch.zeros(4, 1))
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        callbacks=[AveragedWeights(decay=0.9)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, batches, batches)
    assert all(torch.equal(seen, torch.arange(100)) for seen in [*module.seen, module.position_ids])
