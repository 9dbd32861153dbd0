"""The command `mmib export`: export trained models to a self-contained folder."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any, NamedTuple

from mmib.base.argument_parser import CommandParser
from mmib.plugins import task_of
from mmib.runs.reader import FinishedRun, newest_first, read_run, single_runs
from mmib.schema import ExportError, Task

log = logging.getLogger(__name__)
RUNS = Path("runs")


class Choice(NamedTuple):
    """The run of a task that is exported by default.

    Attributes:
        run: the run.
        among: number of candidate runs, including this one.
        equal: number of candidates with the same F1, including this one.
    """

    run: FinishedRun
    among: int
    equal: int = 1

    def __str__(self) -> str:
        """Describe the run and why it was chosen."""
        chosen = f"{_task(self.run).title}: {self.run.folder}"
        shared = f"on {self.run.summary.get('corpus', 'its data')}, the data of the newest run"
        if self.among == 1:
            return f"{chosen}, the one {shared}"
        newest = f" (the newest of {self.equal} that have it)" if self.equal > 1 else ""
        return f"{chosen}, the best by validation F1, {_f1(self.run):.4f}{newest}, of {self.among} {shared}"


def run(arguments: list[str]) -> int:
    """Export the models and print the folder.

    Raises:
        ExportError: there is no run to export, or the folder cannot be written.
        RunError: a run has not finished.
        TaskError: a run's task is not registered.
        PluginError: a plugin cannot be imported.
    """
    parser = CommandParser(
        prog="mmib export",
        description="Export the selected model of a run, or of one run per task, to a folder that works without a "
        "network. It contains weights, labels, tokenizer, image preprocessing, calibration and model card.",
    )
    parser.add_argument(
        "runs",
        nargs="*",
        type=Path,
        metavar="RUN",
        help="run folders (default: for each task, the run in runs/ with the best validation F1 among those on the "
        "data of the task's newest run, without sweeps and studies)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("exports"), help="output folder (default: %(default)s)"
    )
    parser.add_argument(
        "--onnx",
        action="store_true",
        help="also write model.onnx, from word pieces and pixels to scores, for other runtimes",
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="also write model.int8.onnx, faster and smaller, and the F1 of both files on the run's validation rows",
    )
    chosen = parser.parse_args(arguments)
    folders = chosen.runs
    if not folders:
        for choice in (choices := best_runs(RUNS)):
            print(f"mmib: {choice}", file=sys.stderr)  # noqa: T201
        folders = [choice.run.folder for choice in choices]

    from mmib.export.folder import write_export  # noqa: PLC0415 - help needs no torch
    from mmib.export.model import model_of_run  # noqa: PLC0415
    from mmib.export.onnx_model import require_packages  # noqa: PLC0415

    models = [model_of_run(folder) for folder in folders]
    int8 = {}
    if chosen.int8:
        from mmib.export.int8 import validation_data  # noqa: PLC0415

        require_packages()
        int8 = {
            model.task: validation_data(read_run(folder), model) for folder, model in zip(folders, models, strict=True)
        }
    write_export(models, chosen.output, chosen.onnx, int8)
    print(chosen.output)  # noqa: T201
    return 0


def best_runs(folder: Path) -> list[Choice]:
    """For each task, choose the run with the best validation F1 on its newest run's data; the newest among equals.

    A model of relations that fits no entities of the other model cannot be used with it: the older of the two is left
    out.

    Raises:
        ExportError: there is no finished run.
    """
    by_task: dict[str, list[FinishedRun]] = {}
    for run in newest_first(single_runs(folder)):
        chosen = by_task.setdefault(run.task, [])
        if not chosen or _data(run) == _data(chosen[0]):
            chosen.append(run)
    if not by_task:
        raise ExportError(
            f"there is no finished run below {folder}/, those of sweeps and studies aside: name one, or make one with "
            "mmib fit"
        )
    choices: list[Choice] = []
    finds: dict[str, FinishedRun] = {}
    for runs in by_task.values():
        best = max(runs, key=_f1)
        finds[_task(best).finds] = best
        entities, relations = finds.get("entities"), finds.get("relations")
        if (
            entities
            and relations
            and best in (entities, relations)
            and not relations.labels.relates(entities.labels.names)
        ):
            log.warning(
                "%s: %s is left out, because no relation fits the entities of both models; name it to export it",
                _task(best).title,
                best.folder,
            )
            continue
        choices.append(Choice(best, len(runs), sum(_f1(run) == _f1(best) for run in runs)))
    return sorted(choices, key=lambda choice: choice.run.task)


def _task(run: FinishedRun) -> Task:
    return task_of(run.task, run.folder, run.summary.get("plugins") or ())


def _f1(run: FinishedRun) -> float:
    """F1 on the validation split; -1 if the run was not scored on it."""
    return float((run.summary["val"] or {}).get("f1", -1.0))


def _data(run: FinishedRun) -> tuple[Any, ...]:
    """What two runs must share for their scores to be comparable."""
    return run.summary.get("corpus"), run.fingerprint("val"), run.labels
