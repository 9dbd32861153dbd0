"""The log of a run survives crashes, and no run depends on W&B."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning.loggers import CSVLogger, WandbLogger

from mmib.base import wandb_mode
from mmib.runs import loggers
from mmib.runs.folder import new_run_folder
from mmib.runs.loggers import ContinuedWriter, RunLogger, make_loggers


def test_the_log_continues_with_new_column_names(tmp_path: Path) -> None:
    writer = ContinuedWriter(str(tmp_path))
    writer.log_metrics({"train/loss": 0.5}, 1)
    writer.save()
    writer.log_metrics({"val/f1": 0.25}, 2)
    writer.save()
    assert list(csv.DictReader((tmp_path / "metrics.csv").open(newline=""))) == [
        {"step": "1", "train/loss": "0.5", "val/f1": ""},
        {"step": "2", "train/loss": "", "val/f1": "0.25"},
    ]


def test_a_run_killed_while_adding_log_columns_keeps_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = ContinuedWriter(str(tmp_path))
    writer.log_metrics({"train/loss": 0.5}, 1)
    writer.save()
    before = (tmp_path / "metrics.csv").read_bytes()

    def killed(path: Path, text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loggers, "write_text", killed)
    writer.log_metrics({"val/f1": 0.25}, 2)
    with pytest.raises(KeyboardInterrupt):
        writer.save()
    assert (tmp_path / "metrics.csv").read_bytes() == before


def test_a_log_on_a_full_disk_names_its_file(small_disk: Path) -> None:
    writer = ContinuedWriter(str(small_disk))
    writer.log_metrics({f"a/{number}": 0.123456789 for number in range(10_000)}, 1)
    with pytest.raises(OSError, match=f"No space left.*{small_disk / 'metrics.csv'}"):
        writer.save()


# W&B


class FakeWandb:
    """A stub of WandbLogger that records its arguments, and fails where requested."""

    def __init__(self, failing: tuple[bool, ...]) -> None:
        self.failing = failing
        self.started: list[bool] = []

    def __call__(self, **options: Any) -> Any:
        self.started.append(options["offline"])
        if options["offline"] in self.failing:
            raise RuntimeError("the network is down")
        return self

    @property
    def experiment(self) -> Any:
        return self

    def define_metric(self, *_: str, **__: str) -> None:
        pass


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeWandb]:
    def make(*failing: bool) -> FakeWandb:
        wandb = FakeWandb(failing)
        monkeypatch.setattr(loggers, "WandbLogger", wandb)
        return wandb

    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(wandb_mode.netrc, "netrc", lambda: (_ for _ in ()).throw(FileNotFoundError()))
    return make


def test_there_is_always_a_csv_log(tmp_path: Path, fake: Callable[..., FakeWandb]) -> None:
    wandb = fake()
    (logger,) = make_loggers(tmp_path, "x", "off")
    assert isinstance(logger, CSVLogger)
    assert Path(logger.log_dir) == tmp_path
    assert wandb.started == []


@pytest.mark.parametrize("use", ["auto", "offline"])
def test_without_a_key_wandb_runs_offline(tmp_path: Path, fake: Callable[..., FakeWandb], use: Any) -> None:
    wandb = fake()
    assert make_loggers(tmp_path, "x", use)[1] is wandb
    assert wandb.started == [True]


def test_a_key_in_the_environment_enables_online_mode(
    tmp_path: Path, fake: Callable[..., FakeWandb], monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = fake()
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    make_loggers(tmp_path, "x", "auto")
    assert wandb.started == [False]
    make_loggers(tmp_path, "x", "offline")
    assert wandb.started == [False, True]


@pytest.mark.parametrize(
    ("mode", "use", "offline"),
    [("offline", "auto", [True]), ("disabled", "auto", []), ("disabled", "online", [False])],
)
def test_the_environment_disables_wandb_unless_the_option_enables_it(
    tmp_path: Path, fake: Callable[..., FakeWandb], monkeypatch: pytest.MonkeyPatch, mode: str, use: Any, offline: Any
) -> None:
    wandb = fake()
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_MODE", mode)
    make_loggers(tmp_path, "x", use)
    assert wandb.started == offline


def test_wandb_falls_back_to_offline_mode(
    tmp_path: Path, fake: Callable[..., FakeWandb], caplog: pytest.LogCaptureFixture
) -> None:
    wandb = fake(False)
    assert make_loggers(tmp_path, "x", "online")[1] is wandb
    assert wandb.started == [False, True]
    assert "W&B could not be started online (the network is down)" in caplog.text


def test_a_failure_of_wandb_never_fails_a_run(
    tmp_path: Path, fake: Callable[..., FakeWandb], caplog: pytest.LogCaptureFixture
) -> None:
    fake(False, True)
    assert [type(logger) for logger in make_loggers(tmp_path, "x", "online")] == [RunLogger]
    assert "W&B could not be started offline" in caplog.text


def test_an_unreachable_wandb_server_leaves_a_run_offline(tmp_path: Path) -> None:
    """With the real client, in a separate process, since it caches its environment."""
    script = (
        "import sys, pathlib; from mmib.runs import loggers; loggers.WANDB_TIMEOUT_S = 1; "
        "made = loggers.make_loggers(pathlib.Path(sys.argv[1]), 'x', 'auto'); "
        "made[1].log_metrics({'val/f1': 0.5}, step=1); made[1].experiment.finish()"
    )
    key = {"WANDB_API_KEY": "x" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_MODE": "online"}
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, env={**os.environ, **key}, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "W&B could not be started online" in done.stderr
    assert "W&B could not be started offline" not in done.stderr
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_an_offline_wandb_run_is_written_to_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    folder = new_run_folder(tmp_path / "runs", "x", 1)
    _, logger = make_loggers(folder, "x", "offline")
    assert isinstance(logger, WandbLogger)
    logger.log_metrics({"val/f1": 0.5}, step=1)
    logger.experiment.finish()
    assert list(folder.glob("wandb/offline-run-*/*.wandb"))
    assert "WANDB_MODE" not in os.environ, "the next run of the process may be online"
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
