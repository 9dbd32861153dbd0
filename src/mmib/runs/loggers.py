"""Loggers of a run: `metrics.csv` in its folder, W&B, and those that a configuration names."""

from __future__ import annotations

import csv
import io
import logging
import netrc
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter

from mmib.base.files import named, write_text
from mmib.schema import ConfigError

log = logging.getLogger(__name__)
WandbUse = Literal["auto", "online", "offline", "off"]
WANDB_HOST = "api.wandb.ai"
# A run waits no longer than this for W&B before it continues offline.
WANDB_TIMEOUT_S = 30


class ContinuedWriter(ExperimentWriter):
    """Appends to the `metrics.csv` of a run that is resumed, which Lightning's writer would delete."""

    def rows(self) -> int:
        """Number of rows on disk, after everything logged so far has been written."""
        self.save()
        return len(self._read()[1])

    def keep(self, rows: int) -> None:
        """Remove what was logged after the checkpoint: the resumed run logs it again."""
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
        """Lightning's writer empties the file first: a run that is killed in between loses its log."""
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
        """Nothing: the folder belongs to the run, and what is in it stays."""


class RunLogger(CSVLogger):
    """`metrics.csv` in the run's folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="")
        self._experiment: Any = ContinuedWriter(str(folder))


def started_loggers(chosen: Logger | Iterable[Logger] | bool | None) -> list[Logger]:
    """The loggers that `trainer.logger` names, which can write.

    Raises:
        ConfigError: one cannot start.
    """
    if chosen is None or isinstance(chosen, bool):
        return []
    loggers = list(chosen) if isinstance(chosen, Iterable) else [chosen]
    for logger in loggers:
        try:
            _ = logger.experiment  # type: ignore[attr-defined]  # which all have, and the base class does not declare
        # Each logger, and the client behind it, raises its own types of errors.
        except Exception as error:
            raise ConfigError(
                f"the logger {type(logger).__name__} cannot start: {error}; see its arguments below trainer.logger"
            ) from error
    return loggers


def make_loggers(folder: Path, name: str, wandb: WandbUse) -> list[Logger]:
    """CSV always; W&B as `wandb` says, where `auto` is online with a key and offline without."""
    loggers: list[Logger] = [RunLogger(folder)]
    if wandb != "off":
        online = wandb == "online" or (wandb == "auto" and has_wandb_key())
        logger = _wandb_logger(folder, name, online)
        if logger is not None:
            loggers.append(logger)
    return loggers


def _wandb_logger(folder: Path, name: str, online: bool) -> WandbLogger | None:
    """A started W&B run; offline where online fails, and None where that fails too: a run never depends on W&B."""
    import wandb  # noqa: PLC0415 - costs a second that runs without it need not spend

    # Before the run has its settings: it warns of an argument that Lightning always passes.
    wandb.termsetup(wandb.Settings(silent=True), None)
    for offline in [False, True] if online else [True]:
        try:
            logger = WandbLogger(
                save_dir=folder,
                project="mmib",
                group=name,
                name=folder.name,
                offline=offline,
                # Lightning sets offline in the environment, which W&B reads once: the second try would be online.
                settings=wandb.Settings(
                    init_timeout=WANDB_TIMEOUT_S, silent=True, mode="offline" if offline else "online"
                ),
            )
            logger.experiment.define_metric("val/f1", summary="max")
        # The client raises many types of errors, those of its network stack included.
        except Exception as error:
            log.warning("W&B could not be started %s (%s)", "offline" if offline else "online", error)
        else:
            return logger
    return None


def has_wandb_key() -> bool:
    """Whether the environment or `~/.netrc` holds a key of W&B."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators(WANDB_HOST) is not None
    except (OSError, netrc.NetrcParseError):
        return False
