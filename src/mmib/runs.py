"""A folder of its own for every run, and what writes logs and checkpoints into it."""

from __future__ import annotations

import csv
import io
import logging
import netrc
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch.distributed import TCPStore

from mmib.files import atomic_file, named, write_text
from mmib.schema import CheckpointError, ConfigError

log = logging.getLogger(__name__)

WandbUse = Literal["auto", "online", "offline", "off"]
WANDB_HOST = "api.wandb.ai"
# A run must not wait longer than this for W&B to answer before it goes on offline.
WANDB_TIMEOUT_S = 30
# Where Lightning starts the other ranks itself, they learn the run's folder from their environment.
FOLDER_VARIABLE = "MMIB_RUN_FOLDER"
TORCHRUN_VARIABLE = "TORCHELASTIC_RUN_ID"


def shared_run_folder(runs: Path, name: str, seed: int | None) -> Path:
    """A new folder for a run, the same on all of its ranks.

    Under SLURM it is named after the job, so that a job that was requeued finds its own again.

    Raises:
        ConfigError: the folder cannot be made.
    """
    if "SLURM_PROCID" in os.environ:
        folder = slurm_run_folder(runs, name)
        _make(folder, exist_ok=True)
        return folder
    if TORCHRUN_VARIABLE in os.environ:
        return _agreed_folder(runs, name, seed)
    if started_by_first_rank():
        return Path(os.environ[FOLDER_VARIABLE])
    folder = new_run_folder(runs, name, seed)
    os.environ[FOLDER_VARIABLE] = str(folder)
    return folder


def started_by_first_rank() -> bool:
    """Whether Lightning's own launcher made this process, a rank that is a child of the first one."""
    outside = {"SLURM_PROCID", TORCHRUN_VARIABLE} & os.environ.keys()
    return not outside and int(os.environ.get("LOCAL_RANK", "0")) > 0


def slurm_job() -> str:
    """Id of the SLURM job, with the task's number where it is one of an array."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]


def slurm_run_folder(runs: Path, name: str) -> Path:
    """The folder of the run that this SLURM job makes."""
    return runs / name / f"slurm-{slurm_job()}"


def _agreed_folder(runs: Path, name: str, seed: int | None) -> Path:
    """The folder that rank 0 makes; the others learn of it from the store that torchrun keeps for its processes."""
    store = TCPStore(
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=timedelta(minutes=5)
    )
    key = f"{FOLDER_VARIABLE}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    if os.environ["RANK"] == "0":
        store.set(key, str(new_run_folder(runs, name, seed)))
    return Path(store.get(key).decode())


def new_run_folder(runs: Path, name: str, seed: int | None) -> Path:
    """Make RUNS/NAME/<time>-seed<seed>, with a number behind it where two runs start in the same second.

    Raises:
        ConfigError: the folder cannot be made.
    """
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    base = runs / name / (stamp if seed is None else f"{stamp}-seed{seed}")
    number = 1
    while True:
        folder = base if number == 1 else base.with_name(f"{base.name}-{number}")
        try:
            # Making a folder is atomic: of two runs that start together only one gets this name.
            _make(folder)
        except FileExistsError:
            number += 1
        else:
            return folder


def _make(folder: Path, exist_ok: bool = False) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=exist_ok)
    except FileExistsError:
        raise
    except OSError as error:
        raise ConfigError(f"the run folder {folder} cannot be made: {error}; choose another with --runs") from error


class ContinuedWriter(ExperimentWriter):
    """Goes on with the `metrics.csv` of a run that is resumed, where Lightning's own writer deletes it."""

    def rows(self) -> int:
        """Number of rows on disk, after everything logged so far has been written."""
        self.save()
        return len(self._read()[1])

    def keep(self, rows: int) -> None:
        """Leave out what was logged after the checkpoint: the resumed run logs it once more."""
        self.metrics_keys, written = self._read()
        self._write(self.metrics_keys, written[:rows])

    def _read(self) -> tuple[list[str], list[dict[str, str]]]:
        path = Path(self.metrics_file_path)
        if not path.is_file():
            return [], []
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            return list(reader.fieldnames or []), list(reader)

    def save(self) -> None:
        """Write what was logged since the last time."""
        with named(Path(self.metrics_file_path)):
            super().save()

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        """Lightning's own empties the file first: a run that is killed then has no log any more."""
        _, rows = self._read()
        self._write(fieldnames, rows)

    def _write(self, names: list[str], rows: list[dict[str, str]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(Path(self.metrics_file_path), text.getvalue())

    def log_hparams(self, params: dict[str, Any]) -> None:
        """Nothing: `config.yaml` has them, in a form that any YAML reader takes."""

    def _check_log_dir_exists(self) -> None:
        """The folder is the run's own, and what is in it stays."""


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints that are complete and on disk under their names, or not there.

    Lightning's own go by way of the folder for temporary files, and are copied where that is on another disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Lightning's hook.

        Raises:
            CheckpointError: the disk is full, or nothing may be written there.
        """
        content = io.BytesIO()
        torch.save(checkpoint, content)
        try:
            with atomic_file(Path(path)) as file:
                file.write(content.getbuffer())
        except OSError as error:
            raise CheckpointError(
                f"the checkpoint {path} cannot be written: {error}; what was saved before is still there: "
                f"make room, then go on with mmib fit --run {Path(path).parents[1]} --ckpt_path last"
            ) from error


class RunLogger(CSVLogger):
    """`metrics.csv` in the run's folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="")
        self._experiment: Any = ContinuedWriter(str(folder))


def make_loggers(folder: Path, name: str, wandb: WandbUse) -> list[Logger]:
    """CSV always; W&B as asked, `auto` being online where a key is there and offline elsewhere."""
    loggers: list[Logger] = [RunLogger(folder)]
    if wandb != "off":
        online = wandb == "online" or (wandb == "auto" and _has_wandb_key())
        logger = _wandb_logger(folder, name, online)
        if logger is not None:
            loggers.append(logger)
    return loggers


def _wandb_logger(folder: Path, name: str, online: bool) -> WandbLogger | None:
    """A started W&B run; offline where online fails, and None where that fails too: a run never depends on W&B."""
    import wandb  # noqa: PLC0415 - costs a second that runs without it need not spend

    for offline in [False, True] if online else [True]:
        try:
            logger = WandbLogger(
                save_dir=folder,
                project="mmib",
                group=name,
                name=folder.name,
                offline=offline,
                # Lightning asks for offline by the environment, which W&B reads once: the second try would be online.
                settings=wandb.Settings(
                    init_timeout=WANDB_TIMEOUT_S, silent=True, mode="offline" if offline else "online"
                ),
            )
            logger.experiment.define_metric("val/f1", summary="max")
        # The client raises errors of many kinds, from its own to those of its network stack.
        except Exception as error:
            log.warning("W&B could not be started %s (%s)", "offline" if offline else "online", error)
        else:
            return logger
    return None


def _has_wandb_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators(WANDB_HOST) is not None
    except (OSError, netrc.NetrcParseError):
        return False
