"""A damaged journal is named with its line; an incomplete last line is repaired."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from mmib.schema import ConfigError
from mmib.search.sweep.journal import open_study, reading


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """The journal of a sweep with a finished trial, a diverged one, and a running one."""
    path = tmp_path / "journal.log"
    study = open_study(path, "sweep", "maximize")
    for value in (0.5, float("inf")):
        trial = study.ask()
        trial.suggest_float("beta", 0, 1)
        trial.set_user_attr("record", {"values": {"beta": 0.5}})
        study.tell(trial, value)
    study.ask()
    return path


def opened(journal: Path) -> optuna.Study:
    with reading(journal):
        study = open_study(journal, "sweep", "maximize")
        assert len(study.trials) == 3
        return study


def test_a_journal_can_be_reopened(journal: Path) -> None:
    assert opened(journal).best_value == float("inf")


@pytest.mark.parametrize("rest", [b'{"op_code":4,"worker', b"\xff\xfe", b"\0"])
def test_an_incomplete_last_line_is_removed(journal: Path, rest: bytes) -> None:
    whole = journal.read_bytes()
    journal.write_bytes(whole + rest)
    opened(journal)
    assert journal.read_bytes().startswith(whole + b"{")


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"\0\0\0", b"\xff\xfe", b"5", b"null", b"[]", b"{}", b"not JSON", b'"text"', b'{"op_code": 4}'),
        *(b"[" * 10_000, b"9" * 5_000),
    ],
    ids=lambda line: repr(line[:10]),
)
def test_a_malformed_line_is_named(journal: Path, line: bytes) -> None:
    lines = journal.read_bytes().splitlines()
    journal.write_bytes(b"\n".join([*lines[:2], line, *lines[2:], b""]))
    with pytest.raises(
        ConfigError, match=r"journal\.log of this sweep is damaged, line 3 is no .*start the sweep anew"
    ):
        opened(journal)


@pytest.mark.parametrize(
    "line",
    [
        b'{"op_code": 99, "worker_id": "x"}',
        b'{"op_code": "4", "worker_id": "x"}',
        b'{"op_code": 4, "worker_id": "x"}',
        b'{"op_code": 0, "worker_id": "x", "study_name": 5, "directions": 7}',
        b'{"op_code": 4, "worker_id": "x", "study_id": 0, "state": 55, "datetime_start": "yesterday"}',
    ],
)
def test_inconsistent_entries_are_refused(journal: Path, line: bytes) -> None:
    journal.write_bytes(journal.read_bytes() + line + b"\n")
    with pytest.raises(ConfigError, match=r"journal\.log of this sweep is damaged, its lines do not go together"):
        opened(journal)
