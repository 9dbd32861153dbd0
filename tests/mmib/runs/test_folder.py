"""Every run has a separate folder."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pytorch_lightning.utilities import rank_zero_only

from mmib.runs import folder as runs
from mmib.runs.folder import new_run_folder, shared_run_folder, slurm_run_folders, training
from mmib.schema import ConfigError, RunError

STAMP = "2026-01-02_03-04-05"


@pytest.fixture
def same_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs.time, "strftime", lambda _: STAMP)


def test_a_folder_name_consists_of_experiment_time_and_seed(tmp_path: Path) -> None:
    folder = new_run_folder(tmp_path / "runs", "mre-demo", 3)
    assert folder.is_dir()
    assert folder.parent == tmp_path / "runs" / "mre-demo"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-seed3", folder.name)
    assert abs(time.mktime(time.strptime(folder.name[:19], "%Y-%m-%d_%H-%M-%S")) - time.time()) < 60


def test_a_run_is_trained_by_only_one_job_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with training(tmp_path):
        with pytest.raises(RunError, match=f"the run {tmp_path} is being trained by another process"):
            training(tmp_path).__enter__()
        monkeypatch.setattr(rank_zero_only, "rank", 1, raising=False)
        with training(tmp_path):  # another rank of the same job
            pass
        monkeypatch.setattr(rank_zero_only, "rank", 0)
    with training(tmp_path):
        pass


def test_seed_0_differs_from_no_seed(tmp_path: Path, same_second: None) -> None:
    assert new_run_folder(tmp_path, "x", 0).name == f"{STAMP}-seed0"
    assert new_run_folder(tmp_path, "x", None).name == STAMP


def test_two_runs_started_in_the_same_second_have_two_folders(tmp_path: Path, same_second: None) -> None:
    names = [new_run_folder(tmp_path, "x", 1).name for _ in range(3)]
    assert names == [f"{STAMP}-seed1", f"{STAMP}-seed1-2", f"{STAMP}-seed1-3"]


def test_concurrent_runs_never_share_a_folder(tmp_path: Path, same_second: None) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: new_run_folder(tmp_path, "x", 1), range(40)))
    assert len(set(folders)) == 40


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_JOB_NAME", "LOCAL_RANK", runs.FOLDER_VARIABLE, runs.TORCHRUN_VARIABLE):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in {"SLURM_JOB_ID": "17", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.mark.parametrize("tasks", ["1", "2"])
def test_every_run_of_a_slurm_job_has_one_folder_for_all_its_tasks(
    tmp_path: Path, slurm: pytest.MonkeyPatch, tasks: str
) -> None:
    slurm.setenv("SLURM_NTASKS", tasks)
    for name in ("slurm-17", "slurm-17-2", "slurm-17-3"):
        for task in range(int(tasks)):
            slurm.setenv("SLURM_PROCID", str(task))
            assert shared_run_folder(tmp_path, "x", 1) == tmp_path / "x" / name
        (tmp_path / "x" / name / "config.yaml").touch()
    assert [folder.name for folder in slurm_run_folders(tmp_path, "x")] == ["slurm-17", "slurm-17-2", "slurm-17-3"]


def test_ranks_started_by_lightning_in_an_interactive_slurm_job_share_the_first_ranks_folder(
    tmp_path: Path, slurm: pytest.MonkeyPatch
) -> None:
    slurm.setenv("SLURM_JOB_NAME", "bash")
    first = shared_run_folder(tmp_path, "x", 1)
    slurm.setenv("LOCAL_RANK", "1")
    assert shared_run_folder(tmp_path, "x", 1) == first == tmp_path / "x" / "slurm-17"


def test_an_unwritable_location_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"the run folder .* cannot be made: .*; choose another with --runs"):
        new_run_folder(tmp_path / "file", "x", 1)
