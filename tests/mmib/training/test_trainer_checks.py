"""Unsupported trainer options are one-sentence errors, before weights and data are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytorch_lightning.accelerators import CUDAAccelerator, MPSAccelerator

from mmib.training import trainer_checks
from mmib.training.trainer_checks import supported_precision

Refused = Callable[..., str]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trainer.precision=bf16-true"], "precision bf16-true keeps the weights themselves in half precision"),
        (["--trainer.precision=16-true"], "choose from 32-true, bf16-mixed, 16-mixed, 64-true"),
        (["--trainer.precision=transformer-engine"], "transformer_engine"),
        (["--trainer.max_epochs=-1"], "this training has no end: set max_epochs, max_steps or max_time"),
        (["--trainer.max_epochs=-3"], "max_epochs"),
        (["--trainer.accumulate_grad_batches=0"], "accumulate_grad_batches is 0: a step takes at least one batch"),
        (["--trainer.barebones=true"], "barebones disables the log and the checkpoints"),
        (["--trainer.default_root_dir=x"], "everything is written into the run folder"),
        (["--trainer.strategy=nonsense"], "You selected an invalid strategy name"),
        (["--trainer.strategy=ddp_spawn"], "the strategy ddp_spawn starts processes from this one"),
        (["--trainer.devices=2.5"], "should be an int"),
        (
            ["--trainer.strategy=ddp", "--trainer.devices=2", "--trainer.use_distributed_sampler=true"],
            "use_distributed_sampler would share out batches that the data module has shared out",
        ),
        (["--trainer.gradient_clip_algorithm=nrom"], "Allowed algorithms: ['value', 'norm']"),
        (["--trainer.profiler=nonsense"], "can only be one of ['simple', 'advanced'"),
        (["--trainer.enable_checkpointing=false"], "found `ModelCheckpoint` in callbacks list"),
        (["--trainer.logger=false", "--wandb=online"], "trainer.logger is false, so that nothing is logged"),
    ],
)
def test_unsupported_options_are_refused_before_a_run_exists(
    refused: Refused, workspace: Any, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.setattr("mmib.encoders.text_model.AutoModel.from_pretrained", None)
    before = workspace.folders()
    error = refused("fit", "--config", str(workspace.experiment), *options)
    assert message in error.splitlines()[-1]
    assert workspace.folders() == before


def test_options_incompatible_with_the_number_of_batches_are_one_sentence_errors(
    refused: Refused, workspace: Any
) -> None:
    error = refused("fit", "--config", str(workspace.experiment), "--trainer.val_check_interval=100")
    assert "`val_check_interval` (100) must be less than or equal to the number" in error.splitlines()[-1]


def test_a_package_needed_by_a_logger_is_named(
    refused: Refused, workspace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_checks, "find_spec", lambda name: None)
    logger = ("--trainer.logger=TensorBoardLogger", "--trainer.logger.save_dir=logs")
    error = refused("fit", "--config", str(workspace.experiment), *logger)
    assert error.splitlines()[-1].endswith("install it with `pip install tensorboard`")


@pytest.mark.parametrize(
    ("precision", "accelerator", "gpu", "expected"),
    [
        ("bf16-mixed", "auto", False, "32-true"),
        ("bf16", "cpu", True, "32-true"),
        ("bf16-mixed", "auto", True, "bf16-mixed"),
        ("bf16-mixed", "gpu", True, "bf16-mixed"),
        ("64-true", "cpu", False, "64-true"),
        (None, "auto", False, None),
    ],
)
def test_bf16_is_replaced_on_cpus_without_it(
    monkeypatch: pytest.MonkeyPatch, precision: str | None, accelerator: str, gpu: bool, expected: str | None
) -> None:
    monkeypatch.setattr(CUDAAccelerator, "is_available", lambda: gpu)
    monkeypatch.setattr(MPSAccelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False})
    assert supported_precision(precision, accelerator) == expected
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert supported_precision(precision, accelerator) == precision


def test_a_run_on_a_cpu_without_bf16_says_that_it_trains_in_float32(
    start: Callable[..., Any], workspace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    options = ("--config=trainer/bf16.yaml", "--trainer.accelerator=cpu", "--trainer.max_epochs=1", "--evaluate=val")
    run = start("fit", "--config", str(workspace.experiment), *options)
    assert "precision: 32-true instead of bf16-mixed: this CPU has no instructions for bf16" in run.output
    assert json.loads((run.folder / "summary.json").read_text())["precision"] == "32-true"
    assert "precision: bf16-mixed" in (run.folder / "config.yaml").read_text()
