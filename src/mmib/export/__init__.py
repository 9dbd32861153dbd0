"""The command `mmib export`: makes a folder out of runs that is all that is needed to use their models."""

from __future__ import annotations

from pathlib import Path

from mmib.finished import FinishedRun, trained_runs
from mmib.options import CommandParser
from mmib.schema import ExportError

RUNS = Path("runs")


def run(arguments: list[str]) -> int:
    """Export and print the folder.

    Raises:
        ExportError: there is no run to export, or the folder cannot be written.
        RunError: a run has not finished.
    """
    parser = CommandParser(
        prog="mmib export",
        description="Export the selected model of a run, or of one run a task, into one folder that is used without "
        "a network: weights, labels, tokenizer, image preprocessing, calibration, model card.",
    )
    parser.add_argument(
        "runs", nargs="*", type=Path, metavar="RUN", help="run folders (default: the newest run of each task in runs/)"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("exports"), help="the folder (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    folders = chosen.runs or [run.folder for run in newest_runs(RUNS)]

    from mmib.export.folder import write_export  # noqa: PLC0415 - help needs no torch
    from mmib.export.model import model_of_run  # noqa: PLC0415

    write_export([model_of_run(folder) for folder in folders], chosen.output)
    print(chosen.output)  # noqa: T201
    return 0


def newest_runs(folder: Path) -> list[FinishedRun]:
    """Of each task the run that finished last.

    Raises:
        ExportError: there is none.
    """
    newest: dict[str, FinishedRun] = {}
    for run in sorted(trained_runs(folder), key=lambda run: (run.folder / "summary.json").stat().st_mtime):
        newest[run.task] = run
    if not newest:
        raise ExportError(f"there is no finished run below {folder}/: name one, or make one with mmib fit")
    return [newest[task] for task in sorted(newest)]
