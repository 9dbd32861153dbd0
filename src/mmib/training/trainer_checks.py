"""Checks of the trainer's options, before weights and data are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from types import TracebackType
from typing import Any

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Trainer
from pytorch_lightning.accelerators import Accelerator, CUDAAccelerator, MPSAccelerator
from pytorch_lightning.callbacks import Timer

from mmib.base.devices import has_bf16
from mmib.base.lightning_internals import callbacks_of, forks_ranks
from mmib.schema import ConfigError

REFUSED = "invalid trainer options: "
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true")
BF16_MIXED = ("bf16-mixed", "bf16")
LIGHTNING = ("pytorch_lightning", "lightning_fabric")
# Packages of each logger class, of which one is required.
PACKAGES = {
    "CometLogger": ("comet_ml",),
    "LitLogger": ("litlogger",),
    "MLFlowLogger": ("mlflow",),
    "NeptuneLogger": ("neptune",),
    "TensorBoardLogger": ("tensorboard", "tensorboardX"),
    "WandbLogger": ("wandb",),
}


def rehearsed_trainer(trainer_class: Callable[..., Trainer], options: Mapping[str, Any], fits: bool) -> Trainer:
    """Build the trainer of a configuration, without loggers, to check its options.

    Args:
        trainer_class: class of the trainer.
        options: its arguments.
        fits: whether it will train, or only score.

    Raises:
        ConfigError: If options are invalid or not supported.
    """
    _check_options(options)
    try:
        trainer = trainer_class(**{**options, "logger": False})
    except (ImportError, MisconfigurationException, TypeError, ValueError) as error:
        raise ConfigError(f"{REFUSED}{error}") from error
    if trainer.precision not in PRECISIONS:
        raise ConfigError(
            f"{REFUSED}precision {trainer.precision} keeps the weights themselves in half precision, which rounds most "
            "steps to 0 at these learning rates; rates and losses must be computed in float32: choose from "
            f"{', '.join(PRECISIONS)}"
        )
    if forks_ranks(trainer):
        raise ConfigError(
            f"{REFUSED}the strategy {options['strategy']} starts processes from this one, which breaks run folders "
            "and their logs: choose ddp"
        )
    if trainer.world_size > 1 and options["use_distributed_sampler"]:
        raise ConfigError(
            f"{REFUSED}use_distributed_sampler would share out batches that the data module has shared out over the "
            "ranks already: set it to false, as base.yaml does"
        )
    if fits:
        _check_end(trainer)
    return trainer


def _check_options(options: Mapping[str, Any]) -> None:
    if options["barebones"]:
        raise ConfigError(
            f"{REFUSED}barebones disables the log and the checkpoints, which every run needs: leave it out, "
            "or look at a few batches with --trainer.fast_dev_run 5"
        )
    if options["default_root_dir"] is not None:
        raise ConfigError(f"{REFUSED}everything is written into the run folder, RUNS/NAME/…: choose --runs and --name")
    if options["accumulate_grad_batches"] < 1:
        batches = options["accumulate_grad_batches"]
        raise ConfigError(f"{REFUSED}accumulate_grad_batches is {batches}: a step takes at least one batch")


def _check_end(trainer: Trainer) -> None:
    timed = any(isinstance(each, Timer) and each.time_remaining() is not None for each in callbacks_of(trainer))
    if trainer.max_epochs == -1 and trainer.max_steps == -1 and not timed:
        raise ConfigError(
            f"{REFUSED}learning rates decay to 0 at the end of training, but this training has no end: set max_epochs, "
            "max_steps or max_time"
        )


def supported_precision(precision: str | int | None, accelerator: str | Accelerator) -> str | int | None:
    """Return the precision to train in: the configured one, but `32-true` for bf16 on a CPU that only emulates it.

    Products in emulated bf16 take up to a hundred times as long as in float32.

    Args:
        precision: value of `trainer.precision`.
        accelerator: value of `trainer.accelerator`.
    """
    on_cpu = accelerator == "cpu" or (
        accelerator == "auto" and not CUDAAccelerator.is_available() and not MPSAccelerator.is_available()
    )
    return "32-true" if on_cpu and precision in BF16_MIXED and not has_bf16(torch.device("cpu")) else precision


def check_loggers(chosen: Any, wandb: str) -> None:
    """Check that the packages of the configured loggers are installed.

    Args:
        chosen: value of `trainer.logger`.
        wandb: value of `wandb`.

    Raises:
        ConfigError: If a package is not installed, or W&B is enabled while logging is disabled.
    """
    if chosen is False and wandb in ("online", "offline"):
        raise ConfigError(f"trainer.logger is false, so that nothing is logged, and wandb is {wandb}: choose one")
    for logger in chosen if isinstance(chosen, list) else [chosen]:
        name = str(logger.get("class_path")).rpartition(".")[2] if isinstance(logger, Mapping) else ""
        if packages := missing_packages(PACKAGES.get(name, ())):
            raise ConfigError(
                f"trainer.logger: {name} needs a missing package: install it with `pip install {packages[0]}`"
            )


def missing_packages(choice: Iterable[str]) -> list[str]:
    """Return all packages of a choice if none of them is installed, else an empty list."""
    packages = list(choice)
    return [] if any(find_spec(package) for package in packages) else packages


def refused_by_lightning(error: BaseException) -> bool:
    """Whether Lightning itself raised an error, for example because options do not fit the number of batches."""
    return _innermost(error.__traceback__).partition(".")[0] in LIGHTNING


def _innermost(traceback: TracebackType | None) -> str:
    """Return the name of the module that raised an exception."""
    name = ""
    while traceback is not None:
        name = traceback.tb_frame.f_globals.get("__name__", "")
        traceback = traceback.tb_next
    return name
