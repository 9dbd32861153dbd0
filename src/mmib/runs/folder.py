"""The folder of a run, which is the same on all ranks."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count, takewhile
from pathlib import Path

from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning.utilities import rank_zero_only
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # documented, but not re-exported

from mmib.schema import ConfigError, RunError

LOCK = ".lock"

# If Lightning starts the other ranks, they get the run's folder from this environment variable.
FOLDER_VARIABLE = "MMIB_RUN_FOLDER"
TORCHRUN_VARIABLE = "TORCHELASTIC_RUN_ID"


def shared_run_folder(runs: Path, name: str, seed: int | None) -> Path:
    """Create a folder for a run, the same on all ranks.

    Raises:
        ConfigError: the folder cannot be created.
    """
    if TORCHRUN_VARIABLE in os.environ:
        return _agreed_folder(runs, name, seed)
    if started_by_first_rank():
        return Path(os.environ[FOLDER_VARIABLE])
    if _started_by_slurm() and int(os.environ["SLURM_NTASKS"]) > 1:
        return _next_folder(runs, name)
    folder = new_run_folder(runs, name, seed)
    os.environ[FOLDER_VARIABLE] = str(folder)
    return folder


def started_by_first_rank() -> bool:
    """Return whether Lightning's launcher started this process, as a child of the first rank."""
    outside = TORCHRUN_VARIABLE in os.environ or _started_by_slurm()
    return not outside and int(os.environ.get("LOCAL_RANK", "0")) > 0


def _started_by_slurm() -> bool:
    """Return whether SLURM started the ranks; in a job named `bash` or `interactive`, Lightning starts them."""
    return "SLURM_PROCID" in os.environ and SLURMEnvironment.detect()


def slurm_job() -> str:
    """Return the id of the SLURM job, with the task id in a job array."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]


def slurm_run_folders(runs: Path, name: str) -> list[Path]:
    """Return the folders of this SLURM job's runs, in the order in which they were created."""
    return list(takewhile(Path.is_dir, _numbered(_slurm_folder(runs, name))))


def _slurm_folder(runs: Path, name: str) -> Path:
    return runs / name / f"slurm-{slurm_job()}"


def _next_folder(runs: Path, name: str) -> Path:
    """Return the folder of this SLURM job's next run, which each of its tasks determines, and the first one creates.

    They agree, because no run has a `config.yaml` before all of its tasks have joined.
    """
    folder = next(folder for folder in _numbered(_slurm_folder(runs, name)) if not (folder / "config.yaml").is_file())
    _make(folder, exist_ok=True)
    return folder


def _agreed_folder(runs: Path, name: str, seed: int | None) -> Path:
    """Return the folder that rank 0 creates; the other ranks get it from torchrun's store."""
    store = TCPStore(
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=timedelta(minutes=5)
    )
    key = f"{FOLDER_VARIABLE}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    if os.environ["RANK"] == "0":
        store.set(key, str(new_run_folder(runs, name, seed)))
    return Path(store.get(key).decode())


@contextmanager
def training(folder: Path) -> Iterator[None]:
    """Lock a run folder for the job that trains the run; the first rank locks it for all.

    Raises:
        RunError: another process is training the run.
    """
    if getattr(rank_zero_only, "rank", 0):
        yield
        return
    # The system releases the lock if the process is killed.
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(
                f"the run {folder} is being trained by another process: wait until it ends, or end it, and then resume "
                f"the run with mmib fit --run {folder} --ckpt_path last"
            ) from error
        yield


def new_run_folder(runs: Path, name: str, seed: int | None) -> Path:
    """Create RUNS/NAME/<time>-seed<seed>, with a number appended if two runs start in the same second.

    Under SLURM it is RUNS/NAME/slurm-<job>, so that a requeued job finds it again; further runs of the job are
    numbered.

    Raises:
        ConfigError: the folder cannot be created.
    """
    if "SLURM_PROCID" in os.environ:
        base = _slurm_folder(runs, name)
    else:
        stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
        base = runs / name / (stamp if seed is None else f"{stamp}-seed{seed}")
    # Creating a folder is atomic: if two runs start together, only one gets this name.
    return next(folder for folder in _numbered(base) if _make(folder))


def _numbered(base: Path) -> Iterator[Path]:
    """Yield a path, and then the same with -2, -3, … appended."""
    yield base
    for number in count(2):
        yield base.with_name(f"{base.name}-{number}")


def _make(folder: Path, exist_ok: bool = False) -> bool:
    """Create a folder, and return whether this call did, or may use the existing one."""
    try:
        folder.mkdir(parents=True, exist_ok=exist_ok)
    except FileExistsError:
        return False
    except OSError as error:
        raise ConfigError(f"the run folder {folder} cannot be made: {error}; choose another with --runs") from error
    return True
