"""Measures of a run besides its scores: rates, held-out loss, calibration, and the quality of its latents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmib.analysis.calibration import calibration, risk_coverage
from mmib.records import Record
from mmib.runs.reader import FinishedRun
from mmib.schema import RunError

# Keys in records, and table headings with units. Each measure is one number per run.
MEASURES = {
    "rate_text": "rate, nats per piece",
    "rate_image": "rate, nats per region",
    "task_loss": "task loss, nats per post",
    "calibration_error": "calibration error, %",
    "risk_area": "area under the risk-coverage curve, %",
    "gap": "gap",
    "own_image": "own image's rank, %",
}
# Measures read from the validation log: name of the logged scalar, and the factor to multiply it by.
LOGGED = {
    "task_loss": ("val/task", 1.0),
    "gap": ("val/align/gap", 1.0),
    "own_image": ("val/latent/own_image_share", 100.0),
}


def measures(run: FinishedRun, split: str, records: Sequence[Record]) -> dict[str, float | None]:
    """Return the `MEASURES` of a run; None for those that it does not have.

    Rates, loss, gap and rank are from validation, with the selected checkpoint if validation ran after the fit.
    Latents without noise have no rate. Calibration error and area are computed from the predictions.

    Args:
        run: the run.
        split: the predicted split.
        records: the run's predictions for the split.

    Raises:
        RunError: a file of the run is damaged.
    """
    found = validation_measures(run)
    with run.interpreting(split):
        judged = run.registered_task().judge(records, run.labels)
        trust, risk = calibration(judged), risk_coverage(judged)
    found["calibration_error"] = None if trust is None else 100.0 * trust.error
    found["risk_area"] = None if risk is None else 100.0 * risk.area
    return {name: found[name] for name in MEASURES}


def validation_measures(run: FinishedRun) -> dict[str, float | None]:
    """Return the `MEASURES` of a run that come from its summary and its validation log.

    Raises:
        RunError: a file of the run is damaged.
    """
    bottleneck = run.summary.get("bottleneck") or {}
    sampled = _sampled(run)
    found: dict[str, float | None] = {
        f"rate_{modality}": float(bottleneck[modality]["rate"]["end"]) if sampled and modality in bottleneck else None
        for modality in ("text", "image")
    }
    last = _last_validation(run)
    for name, (logged, factor) in LOGGED.items():
        found[name] = factor * last[logged] if logged in last else None
    return found


def mean_measures(each: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Return the mean of each measure over runs; None if a run does not have it."""
    means: dict[str, float | None] = {}
    for name in MEASURES:
        values = [found for one in each if (found := one[name]) is not None]
        means[name] = float(np.mean(values)) if values and len(values) == len(each) else None
    return means


def with_measures(rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the rows of a study that have `measures`, and the names of the measures that at least one row has."""
    found = [row for row in rows if row.get("measures")]
    return found, [name for name in MEASURES if any(row["measures"][name] is not None for row in found)]


def _sampled(run: FinishedRun) -> bool:
    """Return whether the run's latents were sampled with noise in training."""
    backbone = ((run.config().get("model") or {}).get("init_args") or {}).get("backbone") or {}
    return bool((backbone.get("init_args") or {}).get("sampling", True))


def _last_validation(run: FinishedRun) -> dict[str, float]:
    rows = [row for row in run.metrics() if row.get("val/task")]
    try:
        return {name: float(value) for name, value in rows[-1].items() if value} if rows else {}
    except (TypeError, ValueError) as error:
        raise RunError(f"{run.folder / 'metrics.csv'} is damaged ({error}): copy the run again") from error
