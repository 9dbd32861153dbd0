"""The journal in which Optuna stores the trials of a sweep: one JSON object per line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from mmib.base.files import parse_json, write_text
from mmib.schema import ConfigError, MMIBError

# Fields that Optuna writes into every line, among others.
FIELDS = {"op_code", "worker_id"}


def open_study(journal: Path, name: str, direction: Literal["minimize", "maximize"]) -> optuna.Study:
    """Open the study in a journal, or create it.

    Raises:
        ConfigError: a line of the journal was not written by Optuna.
    """
    if journal.is_file():
        _check_lines(journal)
    return optuna.create_study(
        study_name=name,
        storage=JournalStorage(JournalFileBackend(str(journal))),
        direction=direction,
        load_if_exists=True,
    )


@contextmanager
def reading(journal: Path) -> Iterator[None]:
    """Turn errors of Optuna, or of code that interprets its trials, into errors that name the journal.

    Raises:
        ConfigError: the lines of the journal are inconsistent.
    """
    try:
        yield
    except (MMIBError, OSError):
        raise
    # Optuna does not check the journal, so a damaged one can cause any type of error.
    except Exception as error:
        raise _damaged(journal, f"its lines do not go together ({type(error).__name__}: {error})") from error


def _check_lines(journal: Path) -> None:
    """Check each line, and remove an incomplete last line, so that the next entry starts a new line."""
    *lines, rest = journal.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            entry = parse_json(line.decode(), allow_nan=True)  # a trial that diverged has NaN
        except ValueError as error:
            raise _damaged(journal, f"line {number} is no JSON ({error})") from error
        if not isinstance(entry, dict) or not entry.keys() >= FIELDS:
            raise _damaged(journal, f"line {number} is no entry of Optuna")
    if rest:
        write_text(journal, "".join(f"{line.decode()}\n" for line in lines))


def _damaged(journal: Path, what: str) -> ConfigError:
    return ConfigError(
        f"the journal {journal} of this sweep is damaged, {what}: put a copy of it back; or move the folder "
        f"{journal.parent} away and start the sweep anew"
    )
