"""Measures of a run: read from its files, missing without them, and errors for damaged files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmib.analysis.measures import mean_measures, measures
from mmib.datamodules.released import MNRE
from mmib.runs.reader import FinishedRun, read_run
from mmib.schema import RunError

LOG = "step,val/task,val/align/gap,val/latent/own_image_share,train/task\n"
LOG += "9,1.5,0.8,0.4,1\n19,,,,0.9\n20,1.2,0.5,0.25,\n"


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., FinishedRun]:
    def make(name: str, rate: float = 40.0, sampling: bool = True, log: str = LOG) -> FinishedRun:
        folder = tmp_path / name
        (folder / "predictions").mkdir(parents=True)
        # Two predictions with probability 0.5 for each of two labels, one of them right: perfectly calibrated.
        logits = [50.0, 50.0, *[0.0] * (len(MNRE.names) - 2)]
        golds = [MNRE.names[0], MNRE.names[1]]
        records = [
            {"id": i, "gold": gold, "predicted": MNRE.names[0], "scores": logits} for i, gold in enumerate(golds)
        ]
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (folder / "predictions" / "test.jsonl").write_text(lines)
        summary: dict[str, Any] = {
            "task": "mre",
            "plugins": [],
            "experiment": name,
            "seed": 1,
            "val": None,
            "test": None,
        }
        summary["bottleneck"] = {"text": {"rate": {"end": rate}}, "image": {"rate": {"end": 2 * rate}}}
        (folder / "summary.json").write_text(json.dumps(summary))
        backbone = f"{{class_path: mmib.backbone.MultimodalIB, init_args: {{sampling: {str(sampling).lower()}}}}}"
        (folder / "config.yaml").write_text(f"name: {name}\nmodel: {{init_args: {{backbone: {backbone}}}}}\n")
        (folder / "metrics.csv").write_text(log)
        return read_run(folder)

    return make


def scored(run: FinishedRun) -> dict[str, float | None]:
    return measures(run, "test", run.predictions("test"))


def test_measures_come_from_the_last_validation_and_the_predictions(make_run: Callable[..., FinishedRun]) -> None:
    found = scored(make_run("a"))
    assert found == {
        "rate_text": 40.0,
        "rate_image": 80.0,
        "task_loss": 1.2,
        "calibration_error": pytest.approx(0.0, abs=1e-6),
        "risk_area": 50.0,  # equal confidence in both, so that each counts as half wrong
        "gap": 0.5,
        "own_image": 25.0,
    }


def test_latents_without_noise_have_no_rate(make_run: Callable[..., FinishedRun]) -> None:
    found = scored(make_run("a", sampling=False))
    assert found["rate_text"] is found["rate_image"] is None
    assert found["task_loss"] == 1.2


def test_means_require_the_measure_in_all_runs(make_run: Callable[..., FinishedRun]) -> None:
    runs = [make_run("a", rate=40.0), make_run("b", rate=60.0, log="")]
    means = mean_measures([scored(run) for run in runs])
    assert means["rate_text"] == 50.0
    assert means["task_loss"] is None


def test_a_damaged_log_is_named(make_run: Callable[..., FinishedRun]) -> None:
    with pytest.raises(RunError, match=r"metrics\.csv is damaged .*copy the run again"):
        scored(make_run("a", log="step,val/task\n1,much\n"))
