"""Loggers of a run: `metrics.csv` in its folder, W&B, and the loggers in `trainer.logger`."""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter

from mmib.base.files import named, write_text
from mmib.base.wandb_mode import wandb_mode
from mmib.schema import ConfigError

log = logging.getLogger(__name__)
WandbUse = Literal["auto", "online", "offline", "off"]
# Maximum time that a run waits for W&B before it continues offline.
WANDB_TIMEOUT_S = 30


class ContinuedWriter(ExperimentWriter):
    """A writer that appends to the `metrics.csv` of a resumed run; Lightning's writer would delete it."""

    def rows(self) -> int:
        """Write everything logged so far, and return the number of rows on disk."""
        self.save()
        return len(self._read()[1])

    def keep(self, rows: int) -> None:
        """Keep the first `rows` rows, and remove those after the checkpoint, which the resumed run logs again."""
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
        """Write what was logged since the last call."""
        with named(Path(self.metrics_file_path)):
            super().save()

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        """Rewrite the file atomically; Lightning's writer empties it first, so that a killed run loses its log."""
        _, rows = self._read()
        self._write(fieldnames, rows)

    def _write(self, names: list[str], rows: list[dict[str, str]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(Path(self.metrics_file_path), text.getvalue())

    def log_hparams(self, params: dict[str, Any]) -> None:
        """Do nothing: `config.yaml` holds the hyperparameters, in plain YAML."""

    def _check_log_dir_exists(self) -> None:
        """Do nothing: the folder belongs to the run, and its files are kept."""


class RunLogger(CSVLogger):
    """A logger that writes `metrics.csv` in the run's folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="")
        self._experiment: Any = ContinuedWriter(str(folder))


def started_loggers(chosen: Logger | Iterable[Logger] | bool | None) -> list[Logger]:
    """Start the loggers in `trainer.logger`.

    Raises:
        ConfigError: a logger cannot start.
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
    """Return the CSV logger and, unless `wandb` is `off`, a W&B logger; `auto` is the mode of `wandb_mode`."""
    loggers: list[Logger] = [RunLogger(folder)]
    mode = wandb_mode() if wandb == "auto" else wandb
    if mode not in ("off", "disabled"):
        logger = _wandb_logger(folder, name, online=mode == "online")
        if logger is not None:
            loggers.append(logger)
    return loggers


def _wandb_logger(folder: Path, name: str, online: bool) -> WandbLogger | None:
    """Start a W&B run, offline if online fails; None if both fail, because a run must not depend on W&B."""
    import wandb  # noqa: PLC0415 - costs a second that runs without it need not spend

    # Silence W&B before the run has its settings: it warns about an argument that Lightning always passes.
    wandb.termsetup(wandb.Settings(silent=True), None)
    mode = os.environ.get("WANDB_MODE")
    for offline in [False, True] if online else [True]:
        try:
            logger = WandbLogger(
                save_dir=folder,
                project="mmib",
                group=name,
                name=folder.name,
                offline=offline,
                # Lightning sets offline in the environment, which W&B reads only once: the second try would be online.
                settings=wandb.Settings(
                    init_timeout=WANDB_TIMEOUT_S, silent=True, mode="offline" if offline else "online"
                ),
            )
            logger.experiment.define_metric("val/f1", summary="max")
        # The client raises many types of errors, including those of its network stack.
        except Exception as error:
            log.warning("W&B could not be started %s (%s)", "offline" if offline else "online", error)
        else:
            return logger
        finally:
            _set_wandb_mode(mode)
    return None


def _set_wandb_mode(mode: str | None) -> None:
    """Restore the variable that Lightning's logger sets, as it would put all later runs of the process offline."""
    os.environ.pop("WANDB_MODE", None)
    if mode is not None:
        os.environ["WANDB_MODE"] = mode
