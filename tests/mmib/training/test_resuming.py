"""Resuming a run with changed settings: they apply from there on, and are recorded with their step."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mmib.cli import main
from mmib.runs.folder import training

pytestmark = pytest.mark.fresh_weights
Resume = Callable[..., dict[str, Any]]
NOT_SCORED = "--evaluate=false"


@pytest.fixture
def run(finished: Any, tmp_path: Path) -> Path:
    """A copy of the finished run, with two epochs of eight steps each."""
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    return folder


@pytest.fixture
def resume(run: Path, monkeypatch: pytest.MonkeyPatch) -> Resume:
    """Resumes the run, and returns the content of its last checkpoint."""

    def resumed(*options: str) -> dict[str, Any]:
        arguments = ["fit", "--run", str(run), "--ckpt_path", "last", *options]
        monkeypatch.setattr(sys, "argv", ["mmib", *arguments])
        assert main(arguments) == 0
        return checkpoint(run)

    return resumed


def checkpoint(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return content


def config(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    return content


def summary(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    return content


def logged(run: Path, name: str) -> list[float]:
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def test_a_run_that_is_being_trained_is_not_resumed(run: Path, refused: Callable[..., str]) -> None:
    """Two processes used to interleave their rows in one metrics.csv, and both exited with status 0."""
    log = (run / "metrics.csv").read_bytes()
    with training(run):
        message = refused("fit", "--run", str(run), "--ckpt_path", "last", "--trainer.max_epochs=3")
    assert f"the run {run} is being trained by another process" in message
    assert (run / "metrics.csv").read_bytes() == log


def test_learning_rates_of_zero_leave_all_weights_unchanged(run: Path, resume: Resume) -> None:
    """Otherwise the optimiser's state would restore those of the checkpoint and change the weights."""
    before = checkpoint(run)["state_dict"]
    rates = [f"--model.optimizer.{name}=0" for name in ("lr", "text_lr", "image_lr")]
    after = resume("--trainer.max_epochs=3", *rates)
    assert after["global_step"] == 24
    assert all(torch.equal(before[name], weight) for name, weight in after["state_dict"].items())
    assert [config(run)["model"]["init_args"]["optimizer"][name] for name in ("lr", "text_lr")] == [0.0, 0.0]


def test_changed_settings_apply_from_the_resumed_step_on(run: Path, resume: Resume) -> None:
    """Step 17 of 24 is the first one; 18 steps warm up."""
    changed = {
        "optimizer.lr": 0.5,
        "optimizer.text_lr": 0.25,
        "optimizer.weight_decay": 0.125,
        "optimizer.warmup": 0.75,
        "beta_text": 0.75,
        "gamma": 0.0625,
    }
    after = resume(
        *("--trainer.max_epochs=3", "--trainer.log_every_n_steps=1"),
        "--trainer.callbacks+={class_path: LearningRateMonitor, init_args: {logging_interval: step}}",
        *(f"--model.{name}={value}" for name, value in changed.items()),
        *("--model.beta_schedule=LinearWarmup", "--model.beta_schedule.share=1"),
    )
    factors = [17 / 18, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]
    assert logged(run, "lr-AdamW/.") == pytest.approx([0.5 * factor for factor in factors])
    assert logged(run, r"lr-AdamW/^backbone\.text_encoder\.") == pytest.approx([0.25 * factor for factor in factors])
    assert {group["weight_decay"] for group in after["optimizer_states"][0]["param_groups"]} == {0.0, 0.125}
    assert logged(run, "ib/beta_text_step")[-8:] == pytest.approx([0.75 * step / 24 for step in range(16, 24)])
    settings = config(run)["model"]["init_args"]
    flat = {**{f"optimizer.{name}": value for name, value in settings["optimizer"].items()}, **settings}
    assert {name: flat[name] for name in changed} == changed


def test_the_summary_keeps_the_history_of_commands(
    run: Path, resume: Resume, capsys: pytest.CaptureFixture[str]
) -> None:
    (first,) = summary(run)["commands"]
    assert (first["command"], first["epoch"], first["step"]) == (summary(run)["command"], 0, 0)
    resume("--trainer.max_epochs=3", "--model.beta_text=0.5")
    commands = summary(run)["commands"]
    assert commands[0] == first
    assert (commands[1]["epoch"], commands[1]["step"]) == (2, 16)
    assert commands[1]["command"].endswith("--ckpt_path last --trainer.max_epochs=3 --model.beta_text=0.5")
    assert commands[1]["started"] >= first["started"]
    before = config(run)
    capsys.readouterr()
    resume("--model.optimizer.lr=0.5")  # there is nothing left to train
    assert "was already complete: nothing was trained" in capsys.readouterr().out
    assert summary(run)["commands"] == commands
    assert config(run) == before


def test_a_run_with_another_optimiser_is_resumed_with_changed_rates_or_refused(
    run: Path, resume: Resume, refused: Callable[..., str], start: Callable[..., Any], workspace: Any
) -> None:
    chosen = ("--optimizer=Adam", "--optimizer.lr=1e-4", NOT_SCORED, "--trainer.max_epochs=1")
    again = ("--ckpt_path", "last", "--trainer.max_epochs=2", NOT_SCORED, "--optimizer.lr=0")
    plain = start("fit", "--config", str(workspace.experiment), *chosen)
    before = checkpoint(plain.folder)["state_dict"]
    assert main(["fit", "--run", str(plain.folder), *again]) == 0
    after = checkpoint(plain.folder)
    assert after["global_step"] == 16
    assert all(torch.equal(before[name], weight) for name, weight in after["state_dict"].items())
    schedule = ("--lr_scheduler=StepLR", "--lr_scheduler.step_size=1")
    scheduled = start("fit", "--config", str(workspace.experiment), *chosen, *schedule)
    message = refused("fit", "--run", str(scheduled.folder), *again)
    assert "the checkpoint has initial_lr [0.0001], and this configuration [0.0]: the schedule of" in message
    message = refused("fit", "--run", str(run), "--ckpt_path", "last", "--trainer.max_epochs=3", "--optimizer=Adam")
    assert "resume with the --optimizer that the run began with" in message
