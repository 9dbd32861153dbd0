"""What a sweep leaves on disk: a table of its points, and what it was."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmib.base.files import write_text
from mmib.search.sweep.file import SweepFile

SUMMARY, TABLE = "sweep.json", "points.csv"


@dataclass(frozen=True)
class Point:
    """One point that has been started.

    Attributes:
        number: counted from 1.
        state: `running`, `finished`, `stopped` (early, by the sweep) or `failed`.
        values: value of each parameter by its name.
        metric: the best that it logged, or None.
        seconds: how long the process ran that ended it.
        run: its run folder.
        reason: why it failed.
    """

    number: int
    state: str
    values: dict[str, Any]
    metric: float | None = None
    seconds: float | None = None
    run: str | None = None
    reason: str | None = None

    def __str__(self) -> str:
        return ", ".join(f"{name} {_short(value)}" for name, value in self.values.items())


def best_point(file: SweepFile, points: Sequence[Point]) -> Point | None:
    """The finished point with the best value; the first of several."""
    finished = [point for point in points if point.state == "finished" and point.metric is not None]
    costs = [file.metric.costs([point.metric or 0.0])[0] for point in finished]
    return finished[costs.index(min(costs))] if finished else None


def write_records(file: SweepFile, points: Sequence[Point], total: int, folder: Path) -> None:
    """Write `sweep.json` and `points.csv` into a sweep's folder."""
    best = best_point(file, points)
    summary = {
        "name": file.name,
        "file": str(file.path),
        "method": file.method,
        "metric": {"name": file.metric.name, "goal": file.metric.goal, "target": file.metric.target},
        "points": total,
        "states": {state: sum(p.state == state for p in points) for state in sorted({p.state for p in points})},
        "best": None if best is None else vars(best),
        "content": file.content,
    }
    table = io.StringIO()
    names = [parameter.name for parameter in file.parameters]
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["number", "state", *names, file.metric.name, "seconds", "run", "reason"])
    for p in points:
        writer.writerow(
            [p.number, p.state, *(p.values.get(name, "") for name in names), p.metric, p.seconds, p.run, p.reason]
        )
    write_text(folder / TABLE, table.getvalue())
    write_text(folder / SUMMARY, json.dumps(summary, indent=2, default=str) + "\n")


def metric_history(folder: Path, metric: str) -> list[float] | None:
    """Finite values of a metric that the newest run of a point has logged so far, in order; None where it never was.

    The run may be writing at this moment: a line that is not complete yet is left out.
    """
    logs = sorted(folder.glob("*/*/metrics.csv"))
    if not logs:
        return None
    complete = logs[-1].read_text(encoding="utf-8", errors="replace").rpartition("\n")[0]
    rows = list(csv.DictReader(io.StringIO(complete)))
    values = [float(row[metric]) for row in rows if row.get(metric)]
    return [value for value in values if math.isfinite(value)] if values else None


def logged_metrics(folder: Path) -> list[str]:
    """Names of all that the newest run of a point has logged."""
    logs = sorted(folder.glob("*/*/metrics.csv"))
    header = logs[-1].read_text(encoding="utf-8", errors="replace").partition("\n")[0] if logs else ""
    return [name for name in header.split(",") if name and name not in ("step", "epoch")]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
