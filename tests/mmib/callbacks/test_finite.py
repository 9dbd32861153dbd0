"""A training with non-finite numbers ends at once, and earlier checkpoints are kept."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from pytorch_lightning.trainer.states import TrainerFn

from mmib.callbacks import SelectedCheckpoint
from mmib.callbacks.checkpointing import LastCheckpoint
from mmib.callbacks.finite import FiniteCheck
from mmib.modules import ExtractionModule
from mmib.runs.checkpoints import not_finite
from mmib.schema import DivergenceError

NAN, INF = torch.tensor(float("nan")), torch.tensor(float("inf"))


class Scaler:
    def __init__(self, scale: float) -> None:
        self.scale = scale

    def get_scale(self) -> float:
        return self.scale


def trainer(folder: Path, scaler: Scaler | None = None) -> Any:
    plugin = SimpleNamespace(**({} if scaler is None else {"scaler": scaler}))
    state = SimpleNamespace(fn=TrainerFn.FITTING)
    return SimpleNamespace(
        precision_plugin=plugin, default_root_dir=folder, global_step=7, current_epoch=2, state=state
    )


def checked() -> FiniteCheck:
    """A checked module with a batch of rows 3 and 5."""
    check = FiniteCheck()
    batch: Any = SimpleNamespace(rows=torch.tensor([3, 5]))
    check.on_train_batch_start(None, None, batch, 0)  # type: ignore[arg-type]
    return check


@pytest.mark.parametrize(
    ("terms", "named"),
    [
        ({"task": NAN, "align": torch.tensor(1.0)}, "task nan"),
        ({"task": torch.tensor(1.0), "kl_text": INF}, "kl_text inf"),
        ({"task": torch.tensor(3e38), "align": torch.tensor(3e38)}, "add up to infinity"),
    ],
)
def test_a_non_finite_loss_is_reported_with_step_rows_and_term(
    make_module: Callable[..., ExtractionModule], tmp_path: Path, terms: dict[str, torch.Tensor], named: str
) -> None:
    module = make_module()
    module.loss_terms = terms
    with pytest.raises(DivergenceError, match=named) as error:
        checked().on_before_backward(trainer(tmp_path), module, NAN)
    assert "step 7, epoch 2, rows 3, 5 of the split" in str(error.value)
    assert "start anew" in str(error.value)


def test_a_non_finite_gradient_names_its_parameter(
    make_module: Callable[..., ExtractionModule], tmp_path: Path
) -> None:
    module = make_module()
    optimizer: Any = None
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    checked().on_before_optimizer_step(trainer(tmp_path), module, optimizer)
    module.get_parameter("head.classifier.weight").grad = torch.full_like(module.head.classifier.weight, float("inf"))
    with pytest.raises(DivergenceError, match=r"head\.classifier\.weight"):
        checked().on_before_optimizer_step(trainer(tmp_path), module, optimizer)


def test_steps_skipped_by_the_scaler_are_allowed_until_its_scale_is_too_small(
    make_module: Callable[..., ExtractionModule], tmp_path: Path
) -> None:
    module = make_module()
    module.loss_terms = {"task": NAN}
    checked().on_before_backward(trainer(tmp_path, Scaler(1.0)), module, NAN)
    with pytest.raises(DivergenceError):
        checked().on_before_backward(trainer(tmp_path, Scaler(0.5)), module, NAN)


def test_non_finite_weights_are_not_saved(tmp_path: Path) -> None:
    weights = {"a": torch.ones(2), "b": torch.tensor([1.0, float("nan")])}
    assert not_finite(weights) == "b"
    broken = trainer(tmp_path)
    broken.lightning_module = SimpleNamespace(state_dict=lambda: weights)
    with pytest.raises(DivergenceError, match="not finite after step 7, b"):
        LastCheckpoint()._save(broken)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_non_finite_score_is_never_the_best(mode: str) -> None:
    callback = SelectedCheckpoint(monitor="val/f1", mode=mode)
    for score in (NAN, INF, -INF):
        assert not callback.check_monitor_top_k(None, score)  # type: ignore[arg-type]
    assert callback.check_monitor_top_k(None, torch.tensor(0.5))  # type: ignore[arg-type]


def test_a_learning_rate_of_1e30_ends_the_training(workspace: Any, refused: Callable[..., str], tmp_path: Path) -> None:
    """Formerly two epochs continued with NaN weights, which became the best, last and previous checkpoint."""
    rates = {"model": {"init_args": {"optimizer": {"lr": 1e30, "text_lr": 1e30}}}}
    every_step = {"class_path": "mmib.callbacks.LastCheckpoint", "init_args": {"every_n_steps": 1}}
    config = {"include": [str(workspace.experiment)], "trainer": {"callbacks": [every_step]}, **rates}
    (tmp_path / "hot.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    before = workspace.folders()
    message = refused("fit", "--config", str(tmp_path / "hot.yaml"))
    assert "the loss of a training batch is not finite, task nan" in message
    assert re.search(r": step [12], epoch 0, rows \d+, \d+", message)
    (folder,) = workspace.folders() - before
    kept = folder / "checkpoints"
    oldest = "previous.ckpt" if (kept / "previous.ckpt").is_file() else "last.ckpt"
    assert f"resume with mmib fit --run {folder} --ckpt_path {kept / oldest}" in message
    for path in kept.iterdir():
        assert not_finite(torch.load(path, weights_only=True)["state_dict"]) is None
    assert "nan" not in (folder / "metrics.csv").read_text(encoding="utf-8")
