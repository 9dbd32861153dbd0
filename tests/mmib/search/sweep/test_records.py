"""Reading runs that are being written."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmib.search.sweep.records import logged_metrics, metric_history


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The `metrics.csv` of a trial's run."""
    path = tmp_path / "mre-study" / "2026" / "metrics.csv"
    path.parent.mkdir(parents=True)
    return path


def test_values_are_read_in_order_without_an_incomplete_line(tmp_path: Path, log: Path) -> None:
    log.write_text("step,train/loss,val/f1\n1,0.5,\n2,,0.25\n3,nan,nan\n4,,0.5\n5,,0.7")
    assert metric_history(tmp_path, "val/f1") == [0.25, 0.5]


def test_a_metric_without_finite_values_is_distinguished_from_a_missing_one(tmp_path: Path, log: Path) -> None:
    assert metric_history(tmp_path, "val/f1") is None
    log.write_text("step,val/f1\n1,nan\n")
    assert metric_history(tmp_path, "val/f1") == []
    assert metric_history(tmp_path, "val/fi") is None
    assert logged_metrics(tmp_path) == ["val/f1"]


def test_the_newest_run_of_a_trial_is_used(tmp_path: Path, log: Path) -> None:
    log.write_text("step,val/f1\n1,0.9\n")
    later = log.parents[1] / "2027" / "metrics.csv"
    later.parent.mkdir()
    later.write_text("step,val/f1\n1,0.1\n")
    assert metric_history(tmp_path, "val/f1") == [0.1]
