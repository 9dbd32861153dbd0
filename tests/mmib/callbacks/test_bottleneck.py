"""Records of trainings whose bottleneck works, is inert, or is too strong."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from mmib.callbacks.bottleneck import BottleneckRecord, compared_steps
from mmib.callbacks.monitor import gradient_norms
from mmib.information import scalars
from mmib.optim import OptimizerSettings
from mmib.schema import PostBatch

Build = Callable[..., Any]
FAST = OptimizerSettings(lr=0.05, text_lr=0.0, warmup=0.0)


def train(module: Any, batch: PostBatch, folder: Path, record: BottleneckRecord, steps: int = 60) -> None:
    options: dict[str, Any] = {
        **{"default_root_dir": folder, "logger": False, "accelerator": "cpu", "log_every_n_steps": 1},
        **{"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False},
    }
    batches: DataLoader[Any] = DataLoader([batch] * steps, batch_size=None)  # type: ignore[arg-type]
    trainer = pl.Trainer(max_epochs=1, num_sanity_val_steps=0, callbacks=[record], **options)
    trainer.fit(module, batches, DataLoader([batch], batch_size=None))  # type: ignore[arg-type]


def recorded(make_module: Build, batch: PostBatch, folder: Path, beta: float) -> dict[str, Any]:
    record = BottleneckRecord()
    train(make_module(beta_text=beta, beta_image=beta, optimizer=FAST), batch, folder, record)
    return record.summary()


def test_the_rate_of_a_working_bottleneck_falls_under_pressure(
    make_module: Build, make_batch: Build, tmp_path: Path
) -> None:
    batch = make_batch()
    module = make_module(beta_text=0.3, beta_image=0.3, optimizer=FAST)
    before = {name: float(value) for name, value in scalars(module.objective(batch).sums).items()}
    record = BottleneckRecord()
    train(module, batch, tmp_path, record)
    for modality, described in record.summary().items():
        rate = described["rate"]
        assert rate["start"] == pytest.approx(before[f"ib/kl_{modality}"], rel=0.05)
        assert rate["end"] < 0.5 * rate["start"]
        assert described["rate_post"]["start"] == pytest.approx(before[f"ib/rate_{modality}"], rel=0.05)
        assert len(described["gradient_ratios"]) == 10
        assert not described["inert"]


def test_a_bottleneck_without_pressure_is_inert_and_one_without_beta_is_not(
    make_module: Build, make_batch: Build, tmp_path: Path
) -> None:
    inert, off = (recorded(make_module, make_batch(), tmp_path, beta) for beta in (1e-12, 0.0))
    assert inert["text"]["inert"]
    assert max(ratio["ratio"] for ratio in inert["text"]["gradient_ratios"]) < 1e-3
    assert not off["text"]["inert"]
    assert off["text"]["beta"] == off["text"]["share"] == 0


def test_a_collapsed_rate_is_reported_with_its_step(
    make_module: Build, make_batch: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        described = recorded(make_module, make_batch(), tmp_path, 1000.0)
    step = described["text"]["collapsed_at"]
    assert 0 < step <= 60
    assert f"nats per word piece at step {step}: latents hold no information; lower beta_text" in caplog.text


def test_ratios_match_the_gradient_norms(make_module: Build, make_batch: Build, tmp_path: Path) -> None:
    batch = make_batch()
    module = make_module({"sampling": False}, beta_text=0.3, beta_image=0.3, optimizer=FAST)
    frozen = OptimizerSettings(lr=0.0, text_lr=0.0)
    module.optimizer = frozen
    record = BottleneckRecord()
    train(module, batch, tmp_path, record, steps=10)
    torch.manual_seed(0)
    module.loss_terms = module.objective(batch).terms
    norms = gradient_norms(module)
    for modality, described in record.summary().items():
        expected = float(norms[f"kl_{modality}"] / norms["task"])
        assert [ratio["ratio"] for ratio in described["gradient_ratios"]] == pytest.approx([expected] * 9, rel=1e-4)


def test_a_resumed_run_keeps_its_initial_record(make_module: Build, make_batch: Build, tmp_path: Path) -> None:
    first, second = BottleneckRecord(), BottleneckRecord()
    train(make_module(beta_text=0.1, optimizer=FAST), make_batch(), tmp_path, first, steps=5)
    second.load_state_dict(first.state_dict())
    assert second.state_dict() == first.state_dict()
    assert second.summary() == {}, "nothing has been validated"


def test_gradients_are_compared_at_ten_steps_or_at_powers_of_two() -> None:
    assert sorted(compared_steps(1000)) == [*range(100, 1000, 100), 999]
    assert sorted(compared_steps(4)) == [0, 1, 2, 3]
    assert sorted(step for step in compared_steps(float("inf")) if step < 20) == [1, 2, 4, 8, 16]
