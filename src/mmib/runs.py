"""A folder of its own for every run, and the loggers that write into it."""

from __future__ import annotations

import logging
import netrc
import os
import time
from pathlib import Path
from typing import Literal

from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger

from mmib.schema import ConfigError

log = logging.getLogger(__name__)

WandbUse = Literal["auto", "online", "offline", "off"]
WANDB_HOST = "api.wandb.ai"
# A run must not wait longer than this for W&B to answer before it goes on offline.
WANDB_TIMEOUT_S = 30


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
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        except OSError as error:
            raise ConfigError(f"the run folder {folder} cannot be made: {error}; choose another with --runs") from error
        else:
            return folder


def make_loggers(folder: Path, name: str, wandb: WandbUse) -> list[Logger]:
    """CSV always; W&B as asked, `auto` being online where a key is there and offline elsewhere."""
    loggers: list[Logger] = [CSVLogger(folder, name="", version="")]
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
                settings=wandb.Settings(init_timeout=WANDB_TIMEOUT_S, silent=True),
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
