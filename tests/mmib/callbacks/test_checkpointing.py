"""Which weights checkpoints contain, and metadata of checkpoints."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from pytorch_lightning.trainer.states import TrainerFn
from torch.utils.data import DataLoader

from mmib.callbacks.checkpointing import AveragedWeights, LastCheckpoint, SelectedCheckpoint, batch_order
from mmib.datamodules.base import PostDataModule

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{text}")
    for text in (
        "You defined a `validation_step` but have no",
        "The number of training batches",
        r"Found \d+ module\(s\) in eval mode at the start",
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    )
]


@pytest.mark.parametrize("moved", [True, False])
def test_the_best_epoch_is_kept_for_a_moved_folder_but_not_for_another_run(tmp_path: Path, moved: bool) -> None:
    before, after = (
        SelectedCheckpoint(dirpath=tmp_path / name, monitor="val/f1", mode="max") for name in ("one", "two")
    )
    before.best_model_score = torch.tensor(0.8)
    before.best_model_path = str(tmp_path / "one" / "best.ckpt")
    before.best_k_models = {before.best_model_path: torch.tensor(0.8)}
    before.kth_best_model_path, before.kth_value = before.best_model_path, torch.tensor(0.8)
    best = tmp_path / ("two" if moved else "one") / "best.ckpt"
    best.parent.mkdir()
    best.touch()
    after.load_state_dict(before.state_dict())
    assert after.best_model_path == (str(best) if moved else "")
    assert list(after.best_k_models) == ([str(best)] if moved else [])
    assert after.kth_best_model_path == after.best_model_path
    assert after.best_model_score == (before.best_model_score if moved else None)
    assert after.dirpath == str(tmp_path / "two")
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(reduce_boolean_decision=lambda decision, **_: decision))
    assert after.check_monitor_top_k(trainer, torch.tensor(0.7)) != moved, "a worse epoch of the run is not selected"
    assert after.check_monitor_top_k(trainer, torch.tensor(0.9))


class Climbing(pl.LightningModule):
    """A weight that grows by 1 per step and is also the score."""

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
def test_the_checkpoint_contains_the_validated_weights(tmp_path: Path, weights_only: bool, averaged: bool) -> None:
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


def test_a_checkpoint_validated_after_fitting_keeps_its_own_weights(tmp_path: Path) -> None:
    """The scores of a first epoch, selected as the best by `mode`, are not those of the last average."""
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


def test_averaged_weights_match_those_of_lightning(tmp_path: Path) -> None:
    averages = []
    for averaging in (AveragedWeights, EMAWeightAveraging):
        torch.manual_seed(0)
        trainer = pl.Trainer(
            max_epochs=3,
            accelerator="cpu",
            logger=False,
            callbacks=[averaging(decay=0.7, update_every_n_steps=2)],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
        )
        module = Climbing()
        trainer.fit(module, DataLoader(torch.zeros(5, 1)))  # type: ignore[arg-type]
        averages.append(float(module.weight.detach().sum()))
    ours, theirs = averages
    assert ours == pytest.approx(theirs, rel=1e-6)
    assert ours < 15, "the last step's weight is 15"


def test_averaging_does_not_change_integer_buffers(tmp_path: Path) -> None:
    """Position ids are such a buffer: averaging and rounding them down corrupts every score after the first update."""

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


@pytest.mark.parametrize(
    ("batches_of_a_step", "interval", "saved_after"),
    [(1, 1.0, [4, 8]), (1, 0.5, [2, 4, 6, 8]), (2, 0.5, [4, 8, 12, 16]), (2, 5 / 8, [6, 8, 14, 16])],
)
def test_checkpoints_contain_complete_steps_and_an_epoch_ending_with_validation_is_saved_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches_of_a_step: int, interval: float, saved_after: list[int]
) -> None:
    """Each of these files includes the optimiser state: for small data they are most of what a training writes."""
    saved: list[int] = []
    last = LastCheckpoint()
    save = last._save

    def noted(trainer: pl.Trainer) -> None:
        saved.append(trainer.fit_loop.epoch_loop.batch_progress.total.ready)
        save(trainer)

    monkeypatch.setattr(last, "_save", noted)
    batches: DataLoader[Any] = DataLoader(torch.zeros(4 * batches_of_a_step, 1))  # type: ignore[arg-type]
    trainer = pl.Trainer(
        max_epochs=2,
        val_check_interval=interval,
        accumulate_grad_batches=batches_of_a_step,
        accelerator="cpu",
        logger=False,
        callbacks=[last],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(Climbing(), batches, batches)
    assert saved == saved_after


@pytest.mark.parametrize("change", [{"holdout_seed": 1}, {"subset": {"seed": 1}}, {"rows": 11}, {"sha256": "b"}])
def test_the_choice_of_the_training_rows_determines_the_batches(change: dict[str, Any]) -> None:
    described = {"sha256": "a", "rows": 12, "held_out": {"val": 0.2}, "holdout_seed": 0, "subset": {"seed": 0}}
    first, second = (
        batch_order(
            Mock(
                accumulate_grad_batches=1,
                datamodule=Mock(spec=PostDataModule, batch_size=4, max_tokens=None, fingerprint=lambda split, d=d: d),
            )
        )
        for d in (described, described | change)
    )
    assert first != second


@pytest.mark.parametrize(
    ("fn", "exception", "printed"),
    [
        (TrainerFn.FITTING, KeyboardInterrupt(), "mmib: interrupted after step 7; start again"),
        (TrainerFn.TESTING, KeyboardInterrupt(), ""),
        (TrainerFn.FITTING, ValueError(), ""),
    ],
    ids=str,
)
def test_an_interrupted_training_reports_how_to_continue(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fn: TrainerFn, exception: BaseException, printed: str
) -> None:
    trainer: Any = SimpleNamespace(
        state=SimpleNamespace(fn=fn), global_step=7, is_global_zero=True, default_root_dir=tmp_path
    )
    LastCheckpoint().on_exception(trainer, Mock(), exception)
    error = capsys.readouterr().err
    assert error.startswith(printed)
    assert bool(error) == bool(printed)
