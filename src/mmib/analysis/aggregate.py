"""The command `mmib aggregate`: a table of runs by configuration, with means over seeds and paired tests."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmib.analysis.comparison import TESTS, Comparison, compare
from mmib.analysis.slice_comparison import compare_slices
from mmib.base import resampling as statistics
from mmib.base.argument_parser import CommandParser
from mmib.base.files import check_output, write_text
from mmib.datamodules.image_relevance import ImageRelevance
from mmib.runs.reader import INCIDENTAL, FinishedRun, dotted, find_runs
from mmib.schema import RunError

FORMATS: dict[str, Callable[[Comparison], str]] = {
    "markdown": Comparison.markdown,
    "latex": Comparison.latex,
    "csv": Comparison.csv,
}


def run(arguments: list[str]) -> int:
    """Print or write the table of the runs named on the command line."""
    parser = CommandParser(prog="mmib aggregate", description="Mean, standard deviation and paired tests over runs.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, or folders that contain runs")
    parser.add_argument(
        "--split", choices=("val", "test"), default="test", help="split to compare (default: %(default)s)"
    )
    parser.add_argument(
        "--by",
        default=["name"],
        nargs="+",
        metavar="KEY",
        help="what defines a configuration: name, or keys of config.yaml such as model.gamma (default: name)",
    )
    parser.add_argument("--baseline", help="configuration to compare the others with")
    parser.add_argument(
        "--metric", default="f1", help="f1, precision, recall, accuracy, or another score of the task (default: f1)"
    )
    parser.add_argument(
        "--test",
        choices=TESTS,
        default="bootstrap",
        help="significance test (default: %(default)s); see docs/explanation/statistics.md",
    )
    parser.add_argument(
        "--slices", action="store_true", help="also score slices of the rows; see docs/explanation/statistics.md"
    )
    parser.add_argument(
        "--relevance",
        type=Path,
        metavar="FILE",
        help="JSON lines of image relevance, used by --slices (default: the alignment score)",
    )
    parser.add_argument(
        "--resamples", type=int, default=statistics.RESAMPLES, help="number of resamples (default: %(default)s)"
    )
    parser.add_argument("--format", choices=FORMATS, default="markdown", help="output format (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="output file (default: standard output)")
    chosen = parser.parse_args(arguments)
    if chosen.resamples < 100:
        parser.error(f"--resamples {chosen.resamples} is too few: at least 100")
    if chosen.relevance is not None and not chosen.slices:
        parser.error("--relevance splits the rows of --slices: add --slices")
    relevance = None if chosen.relevance is None else ImageRelevance(chosen.relevance)
    runs = find_runs(chosen.runs)
    if chosen.output is not None:
        check_output(chosen.output, [*(run.folder for run in runs), *filter(None, [chosen.relevance])])
    groups = group(runs, chosen.by)
    options = chosen.split, chosen.metric, chosen.baseline, chosen.test, chosen.resamples
    table = compare_slices(groups, *options, relevance=relevance) if chosen.slices else compare(groups, *options)
    command = shlex.join(["mmib", "aggregate", *arguments])
    notes = [*table.notes, *_mixed(groups), *_unfinished(chosen.runs), f"command: {command}"]
    text = FORMATS[chosen.format](replace(table, notes=notes))
    if chosen.format == "csv":  # a CSV file has no place for notes
        print("\n".join(notes), file=sys.stderr)  # noqa: T201
    if chosen.output is None:
        print(text, end="")  # noqa: T201
    else:
        try:
            write_text(chosen.output, text)
        except OSError as error:
            raise RunError(
                f"{chosen.output} cannot be written: {error.strerror}; choose another place with --output"
            ) from error
        print(f"table: {chosen.output}")  # noqa: T201
    return 0


def group(runs: Sequence[FinishedRun], by: Sequence[str] = ("name",)) -> dict[str, list[FinishedRun]]:
    """Group runs by experiment name, by the values of dotted keys of their configurations, or by both.

    The groups are sorted by these values, starting with the first key.

    Raises:
        RunError: a run's configuration lacks a key.
    """
    values = [tuple(run.name if key == "name" else _setting(run, key) for key in by) for run in runs]
    names = [", ".join(map(_text, levels)) for levels in values]
    order = sorted(zip(values, names, strict=True), key=lambda pair: tuple(map(_order, pair[0])))
    groups: dict[str, list[FinishedRun]] = {name: [] for _, name in order}
    for name, run in zip(names, runs, strict=True):
        groups[name].append(run)
    return groups


def _setting(run: FinishedRun, key: str) -> Any:
    """Return the value of a dotted key in a run's configuration; `init_args` can be omitted, as for `mmib fit`."""
    value: Any = run.config()
    for part in key.split("."):
        if isinstance(value, dict) and part not in value:
            value = value.get("init_args", value)
        if not isinstance(value, dict) or part not in value:
            choices = ", ".join(value) if isinstance(value, dict) else "none below it"
            raise RunError(f"the configuration of {run.folder} has no {key!r}: {part!r} is none of {choices}")
        value = value[part]
    return value


def _text(value: Any) -> str:
    """Return a value as text, the same for 0 and 0.0."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value)


def _order(value: Any) -> tuple[bool, float, str]:
    """Return a sort key: numbers by size, then everything else by name."""
    number = isinstance(value, int | float)
    return not number, value if number else 0.0, _text(value)


def _mixed(groups: Mapping[str, Sequence[FinishedRun]]) -> list[str]:
    """Return notes on configurations whose runs differ in more than their seed: in settings or training data."""
    notes = []
    for name, runs in groups.items():
        settings = [dict(dotted(run.config())) for run in runs]
        keys = {key for first in settings for key in first if any(other.get(key) != first[key] for other in settings)}
        keys = {key for key in keys if key.replace(".init_args", "") not in INCIDENTAL}
        if keys:
            notes.append(f"the runs of {name} differ in {', '.join(sorted(keys))}: to tell them apart use --by")
        files = sorted({run.training_data for run in runs})
        if len(files) > 1:
            shown = ", ".join(file[:12] for file in files)
            notes.append(f"the runs of {name} were trained on different data (sha256 {shown}): their mean mixes them")
    return notes


def _unfinished(folders: Sequence[Path]) -> list[str]:
    """Return a note on the unfinished runs below the folders, if there are any."""
    begun = {path.parent for folder in folders for path in folder.rglob("config.yaml")}
    left = sorted(path for path in begun if not (path / "summary.json").is_file() and not begun & set(path.parents))
    return [f"left out, not finished: {', '.join(map(str, left))}"] if left else []
