"""Files of a sweep: a table of its trials, and a summary."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmib.analysis.measures import MEASURES, validation_measures
from mmib.base.files import write_text
from mmib.runs.reader import read_run
from mmib.search.sweep.file import SweepFile

SUMMARY, TABLE, PAGE = "sweep.json", "trials.csv", "table.md"


@dataclass(frozen=True)
class TrialRecord:
    """A trial that has been started.

    Attributes:
        number: number of the trial, from 1.
        state: `running`, `finished`, `stopped` (early, by the sweep) or `failed`.
        values: value of each parameter by name.
        metric: the best logged value of the metric, or None.
        seconds: duration of the trial in the process that ended it.
        run: folder of its run.
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


def best_trial(file: SweepFile, trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """Return the finished trial with the best value, the first one if tied; None without any."""
    finished = [trial for trial in trials if trial.state == "finished" and trial.metric is not None]
    costs = [file.metric.costs([trial.metric or 0.0])[0] for trial in finished]
    return finished[costs.index(min(costs))] if finished else None


def write_records(file: SweepFile, trials: Sequence[TrialRecord], total: int, folder: Path) -> None:
    """Write `sweep.json` and `trials.csv` into a sweep's folder."""
    best = best_trial(file, trials)
    summary = {
        "name": file.name,
        "file": str(file.path),
        "method": file.method,
        "metric": {"name": file.metric.name, "goal": file.metric.goal, "target": file.metric.target},
        "points": total,  # the key of version 0.1
        "states": Counter(sorted(trial.state for trial in trials)),
        "best": None if best is None else vars(best),
        "content": file.content,
    }
    table = io.StringIO()
    names = [parameter.name for parameter in file.parameters]
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["number", "state", *names, file.metric.name, "seconds", "run", "reason"])
    for trial in trials:
        values = [trial.values.get(name, "") for name in names]
        writer.writerow([trial.number, trial.state, *values, trial.metric, trial.seconds, trial.run, trial.reason])
    write_text(folder / TABLE, table.getvalue())
    write_text(folder / SUMMARY, json.dumps(summary, indent=2, default=str) + "\n")


def trial_table(file: SweepFile, trials: Sequence[TrialRecord], command: str) -> str:
    """Return a Markdown table of the finished trials, the best first, with the measures that their runs have.

    Args:
        file: the sweep file.
        trials: the trials.
        command: the command that ran the sweep.

    Raises:
        RunError: a file of a run is damaged.
    """
    finished = [trial for trial in trials if trial.state == "finished" and trial.metric is not None]
    finished.sort(key=lambda trial: file.metric.costs([trial.metric or 0.0])[0])
    measured = [validation_measures(read_run(Path(trial.run))) if trial.run else {} for trial in finished]
    shown = [name for name in MEASURES if any(each.get(name) is not None for each in measured)]
    names = [parameter.name for parameter in file.parameters]
    lines = [
        "| trial | " + " | ".join([*names, file.metric.name, *(MEASURES[name] for name in shown)]) + " |",
        "| ---: |" + " ---: |" * (len(names) + 1 + len(shown)),
    ]
    for trial, each in zip(finished, measured, strict=True):
        values = [_short(trial.values.get(name, "")) for name in names]
        numbers = ["" if (value := each.get(name)) is None else f"{value:.3g}" for name in shown]
        lines.append(f"| {' | '.join([str(trial.number), *values, f'{trial.metric:.4f}', *numbers])} |")
    others = Counter(trial.state for trial in trials if trial.state != "finished")
    rest = "".join(f", {number} {state}" for state, number in others.items())
    heading = f"# {file.name}\n\n`{command}`: {len(finished)} finished trials{rest}, the best first.\n"
    return "\n".join([heading, *lines]) + "\n"


def metric_history(folder: Path, metric: str) -> list[float] | None:
    """Return the finite values of a metric that a trial's newest run has logged, in order; None if never logged.

    The run may still be writing: an incomplete last line is left out.
    """
    logs = sorted(folder.glob("*/*/metrics.csv"))
    if not logs:
        return None
    complete = logs[-1].read_text(encoding="utf-8", errors="replace").rpartition("\n")[0]
    rows = list(csv.DictReader(io.StringIO(complete)))
    values = [float(row[metric]) for row in rows if row.get(metric)]
    return [value for value in values if math.isfinite(value)] if values else None


def logged_metrics(folder: Path) -> list[str]:
    """Return the names of all scalars that the newest run of a trial has logged."""
    logs = sorted(folder.glob("*/*/metrics.csv"))
    header = logs[-1].read_text(encoding="utf-8", errors="replace").partition("\n")[0] if logs else ""
    return [name for name in header.split(",") if name and name not in ("step", "epoch")]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
