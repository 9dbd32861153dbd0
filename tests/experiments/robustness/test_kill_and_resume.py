"""A run that is killed in mid-epoch and resumed ends like one that never was, and one dead rank ends its job."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.robustness import kill_and_resume
from mmib.callbacks import LAST

ROOT = Path(__file__).parents[3]
WITHIN_S = 60


@pytest.fixture
def options(encoder_files: Any, tmp_path: Path) -> list[str]:
    """A short training with everything that is random switched on."""
    demo = ["--data.root", str(tmp_path / "demo"), "--data.cache_dir", str(tmp_path / "cache"), "--wandb", "off"]
    return ["--config", str(ROOT / "experiments/robustness/resume.yaml"), *encoder_files.options(), *demo]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(ROOT)


def test_a_killed_run_ends_like_one_that_never_was(options: list[str], tmp_path: Path) -> None:
    log = tmp_path / "output.log"
    assert kill_and_resume.fit([*options, "--runs", str(tmp_path / "whole")], log), log.read_text()
    runs = tmp_path / "killed"

    def has_checkpoint(_: float) -> bool:
        return any(runs.glob(f"*/*/checkpoints/{LAST}"))

    assert not kill_and_resume.fit([*options, "--runs", str(runs)], log, has_checkpoint)
    killed = kill_and_resume.only_run(runs)
    step = torch.load(killed / "checkpoints" / LAST, weights_only=True)["global_step"]
    assert step % 8 > 0, "in the middle of an epoch"
    assert kill_and_resume.fit(["--run", str(killed), "--ckpt_path", "last"], log), log.read_text()
    assert kill_and_resume.differences(kill_and_resume.only_run(tmp_path / "whole"), killed) == []


def test_differences_are_found(options: list[str], tmp_path: Path) -> None:
    log = tmp_path / "output.log"
    for name, seed in (("one", "1"), ("other", "2")):
        assert kill_and_resume.fit([*options, "--seed_everything", seed, "--runs", str(tmp_path / name)], log)
    one, other = (kill_and_resume.only_run(tmp_path / name) for name in ("one", "other"))
    assert kill_and_resume.differences(one, one) == []
    assert {"last.ckpt: state_dict", "metrics.csv"} <= set(kill_and_resume.differences(one, other))


def test_a_rank_that_dies_ends_the_job_and_is_named(options: list[str], tmp_path: Path) -> None:
    log, runs = tmp_path / "output.log", tmp_path / "runs"
    command = [sys.executable, "-m", "mmib", "fit", *options, "--config", "trainer/ddp_cpu.yaml"]
    with log.open("w") as output:
        job = subprocess.Popen(
            [*command, "--runs", str(runs), "--trainer.max_epochs", "1000"], stdout=output, stderr=output
        )
    try:
        while not any(runs.glob(f"*/*/checkpoints/{LAST}")):
            assert job.poll() is None, log.read_text()
            time.sleep(0.1)
        os.kill(_only_child(job.pid), signal.SIGKILL)
        assert job.wait(timeout=WITHIN_S) != 0
    finally:
        job.kill()
    # Lightning's own watch over its children, or the connection that broke, whichever came first.
    assert re.search(r"rank: 1.*terminated with code -9|rank 1 of this job ended with status -9", log.read_text())


def _only_child(pid: int) -> int:
    listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True, check=True)
    (child,) = [line.split()[0] for line in listed.stdout.splitlines() if "mmib" in line]
    return int(child)
