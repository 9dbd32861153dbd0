"""An interrupted and resumed run ends like an uninterrupted one, and a dead rank ends its job."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn

from experiments.robustness import kill_and_resume
from mmib.cli import main
from mmib.runs.reader import read_run
from mmib.runs.resumption import LAST, PREVIOUS
from mmib.schema import CheckpointError
from mmib.training.cli import check_checkpoint

ROOT = Path(__file__).parents[3]
WITHIN_S = 60
TWO_RANKS = ("--config", "trainer/ddp_cpu.yaml")
ONE_RANK = ("--trainer.devices", "1", "--trainer.strategy", "auto")
ONE_EPOCH = ("--trainer.max_epochs", "1")
Fit = Callable[..., Path]


class Interruption(pl.Callback):
    """Sends SIGTERM to the second of two ranks, while the selected checkpoint is scored on the test split."""

    def on_test_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int, _: int = 0) -> None:
        if trainer.state.fn == TrainerFn.TESTING and trainer.global_rank == 1 and batch_idx == 1:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.chdir(ROOT)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("robustness")


@pytest.fixture(scope="module")
def options(encoder_files: Any, place: Path) -> list[str]:
    """A short training with all sources of randomness enabled."""
    demo = ["--data.root", str(place / "demo"), "--data.cache_dir", str(place / "cache"), "--wandb", "off"]
    return ["--config", str(ROOT / "experiments/robustness/resume.yaml"), *encoder_files.options(), *demo]


@pytest.fixture(scope="module")
def whole(options: list[str], place: Path) -> Path:
    """An uninterrupted run."""
    log = place / "whole.log"
    assert kill_and_resume.fit([*options, "--runs", str(place / "whole")], log), log.read_text()
    return kill_and_resume.only_run(place / "whole")


@pytest.fixture(scope="module")
def interrupted(options: list[str], place: Path) -> Path:
    """A run of two ranks that was terminated while being scored, and was then scored by one rank."""
    sender = f"--trainer.callbacks+={__name__}.Interruption"
    job = [*options, *TWO_RANKS, *ONE_EPOCH, "--data.eval_batch_size", "8", sender, "--runs", str(place / "two")]
    with (place / "two.log").open("w") as log:
        status = subprocess.call(command("-m", "mmib", "fit", *job), stdout=log, stderr=log, timeout=5 * WITHIN_S)
    assert status == os.EX_TEMPFAIL, (place / "two.log").read_text()
    run = kill_and_resume.only_run(place / "two")
    assert not (run / "summary.json").exists()
    assert kill_and_resume.fit(["--run", str(run), "--ckpt_path", "last", *ONE_RANK], place / "two.log")
    return run


def command(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def test_a_killed_run_ends_like_an_uninterrupted_one(options: list[str], whole: Path, tmp_path: Path) -> None:
    """Killed mid-epoch, with its last checkpoint damaged: it resumes from the previous one, as the error suggests."""
    log, runs = tmp_path / "output.log", tmp_path / "killed"

    def has_two_checkpoints(_: float) -> bool:
        return any(runs.glob(f"*/*/checkpoints/{PREVIOUS}"))

    assert not kill_and_resume.fit([*options, "--runs", str(runs)], log, has_two_checkpoints)
    killed = kill_and_resume.only_run(runs)
    last = killed / "checkpoints" / LAST
    if last.is_file():
        last.write_bytes(last.read_bytes()[:-1000])
    else:  # killed between two renames
        last.write_bytes(b"")
    with pytest.raises(CheckpointError, match=f"{last} is no checkpoint, or is damaged") as damaged:
        check_checkpoint(last, "mre", None, resume=True)
    remedy = str(damaged.value).partition("mmib fit ")[2].split()
    assert torch.load(remedy[-1], weights_only=True)["global_step"] % 8 > 0, "in the middle of an epoch"
    assert kill_and_resume.fit(remedy, log), log.read_text()
    assert kill_and_resume.differences(whole, killed) == []


class Killed(BaseException):
    """Ends a run inside the test process as if it had been killed."""


class Ending(pl.Callback):
    """Ends a run once at a critical moment: in a validation, after it, or by SIGTERM in the step before it."""

    armed = False

    def __init__(self, moment: str, step: int) -> None:
        self.moment, self.step = moment, step

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self._is_now("sigterm", trainer):
            os.kill(os.getpid(), signal.SIGTERM)

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int, _: int = 0
    ) -> None:
        if self._is_now("validation", trainer):
            raise Killed

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self._is_now("epoch end", trainer):
            raise Killed

    def _is_now(self, moment: str, trainer: pl.Trainer) -> bool:
        now = Ending.armed and (moment, trainer.global_step) == (self.moment, self.step)
        Ending.armed = Ending.armed and not now
        return now


@pytest.mark.fresh_weights
@pytest.mark.parametrize(("moment", "step"), [("sigterm", 11), ("validation", 12), ("epoch end", 8)])
def test_runs_can_be_killed_at_any_moment(
    options: list[str], whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], moment: str, step: int
) -> None:
    """Validations follow steps 4 and 8, the end of the epoch; checkpoints are due every 3 steps."""
    ending = {"class_path": f"{__name__}.Ending", "init_args": {"moment": moment, "step": step}}
    Ending.armed = True
    with pytest.raises((Killed, SystemExit)):
        main(["fit", *options, f"--trainer.callbacks+={json.dumps(ending)}", "--runs", str(tmp_path)])
    assert not Ending.armed
    run = kill_and_resume.only_run(tmp_path)
    advice = f"mmib: interrupted after step 12; resume with mmib fit --run {run} --ckpt_path last\n"
    assert (advice in capsys.readouterr().err) == (moment == "sigterm")
    assert main(["fit", "--run", str(run), "--ckpt_path", "last"]) == 0
    assert kill_and_resume.differences(whole, run) == []


def test_differences_are_detected(whole: Path, interrupted: Path) -> None:
    assert kill_and_resume.differences(whole, whole) == []
    assert {"last.ckpt: state_dict", "metrics.csv"} <= set(kill_and_resume.differences(whole, interrupted))


def test_a_run_terminated_during_scoring_is_scored_again(interrupted: Path) -> None:
    run = read_run(interrupted)
    scored = [row for row in run.metrics() if {"val/f1", "test/f1"} & row.keys()]
    assert ["test/f1" in row for row in scored] == [False, False, False, True], "twice in the epoch, and then once each"
    assert sum("train/loss" in row for row in run.metrics()) == 1
    assert run.summary["selected"]["value"] == pytest.approx(run.summary["val"]["f1"])
    assert (interrupted / "information_plane.svg").is_file()


def test_torchrun_can_start_the_same_job(options: list[str], interrupted: Path, tmp_path: Path) -> None:
    job = [*options, *TWO_RANKS, *ONE_EPOCH, "--data.eval_batch_size", "8", "--runs", str(tmp_path / "runs")]
    torchrun = command("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "mmib", "fit")
    done = subprocess.run([*torchrun, *job], capture_output=True, text=True, timeout=5 * WITHIN_S, check=False)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").glob("*/*")
    found = kill_and_resume.differences(interrupted, run)
    assert set(found) <= {"metrics.csv"}, "the other was scored by one rank: its last digits are not the same"
    assert json.loads((run / "summary.json").read_text())["test"] == read_run(interrupted).summary["test"]


@pytest.mark.parametrize("dead", [0, 1])
def test_a_dead_rank_ends_the_job_and_is_named(options: list[str], tmp_path: Path, dead: int) -> None:
    log, runs = tmp_path / "output.log", tmp_path / "runs"
    endless = command("-m", "mmib", "fit", *options, *TWO_RANKS, "--trainer.max_epochs", "1000", "--runs", str(runs))
    with log.open("w") as output:
        job = subprocess.Popen(endless, stdout=output, stderr=output)
    try:
        while not any(runs.glob(f"*/*/checkpoints/{LAST}")):
            assert job.poll() is None, log.read_text()
            time.sleep(0.1)
        other = _only_child(job.pid)
        os.kill((job.pid, other)[dead], signal.SIGKILL)
        assert job.wait(timeout=WITHIN_S) != 0
        _wait_for_end(other)
    finally:
        job.kill()
    # Lightning's monitoring of its children, or ours, or the broken connection: whichever was first.
    named = rf"rank: {dead}.*terminated with code -9|rank {dead}( \(status -9\))? of this job ended, so the job ends"
    assert re.search(named, log.read_text())


def _only_child(pid: int) -> int:
    listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True, check=True)
    (child,) = [line.split()[0] for line in listed.stdout.splitlines() if "mmib" in line]
    return int(child)


def _wait_for_end(pid: int) -> None:
    deadline = time.monotonic() + WITHIN_S
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, f"rank {pid} is still there"
        time.sleep(0.1)


def test_the_number_of_ranks_may_change(interrupted: Path, tmp_path: Path) -> None:
    """A single rank continues what two ranks started, and reports what differs."""
    run, log = tmp_path / "run", tmp_path / "output.log"
    shutil.copytree(interrupted, run)
    more = ["--run", str(run), "--ckpt_path", "last", *ONE_RANK, "--trainer.max_epochs", "2"]
    assert kill_and_resume.fit(more, log), log.read_text()
    assert "this run had 2 ranks until step 8 and resumes with 1" in log.read_text()
    assert torch.load(run / "checkpoints" / LAST, weights_only=True)["global_step"] == 16
    assert sum("train/loss" in row for row in read_run(run).metrics()) == 2
