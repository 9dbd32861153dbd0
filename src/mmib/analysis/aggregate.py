"""The command `mmib aggregate`: runs grouped by configuration, as a table of means over seeds and paired tests."""

from __future__ import annotations

import csv
import io
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmib.base import resampling as statistics
from mmib.base.argument_parser import CommandParser
from mmib.base.files import check_output, write_text
from mmib.base.resampling import Array, Bootstrap, PairedTest
from mmib.labels import difference
from mmib.metrics import ExtractionScores, label_tensor
from mmib.records import Record
from mmib.runs.reader import INCIDENTAL, FinishedRun, dotted, find_runs
from mmib.schema import RunError

TESTS = {
    "bootstrap": "paired bootstrap over rows, with the error of the seeds",
    "randomisation": "approximate randomisation: outputs swapped by row, in all seeds at once",
}


@dataclass(frozen=True)
class Row:
    """One configuration; scores and differences are fractions.

    Attributes:
        name: of the configuration.
        seeds: of its runs, in order.
        values: score of each seed.
        mean: over seeds.
        sd: standard deviation over seeds; None with one.
        low: lower end of the 95 % interval of the mean.
        high: upper end.
        difference: mean over the seeds shared with the baseline of this configuration minus the baseline; None for
            the baseline itself, without one, and where no seed is shared.
        difference_low: lower end of its 95 % interval.
        difference_high: upper end.
        p: two-sided p-value, adjusted (Holm) where several configurations are compared with the baseline.
    """

    name: str
    seeds: list[int | None]
    values: list[float]
    mean: float
    sd: float | None
    low: float
    high: float
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p: float | None = None


@dataclass(frozen=True)
class Comparison:
    """A table of configurations on one test set.

    Attributes:
        metric: what was scored.
        baseline: name of the configuration that the others are compared with.
        rows: the configurations, in the order that they were given in.
        notes: what stands below the table, a sentence each.
    """

    metric: str
    baseline: str | None
    rows: list[Row]
    notes: list[str]

    def markdown(self) -> str:
        """A table in percent, and the notes as a list."""
        cells = [[cell.replace("|", r"\|") for cell in row] for row in self._cells()]
        rule = ["---", *["---:"] * (len(cells[0]) - 1)]
        lines = [f"| {' | '.join(row)} |" for row in [cells[0], rule, *cells[1:]]]
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes)]) + "\n"

    def latex(self) -> str:
        """A table in percent for the package booktabs, and the notes as comments."""
        heading, *rows = (" & ".join(map(_escaped, row)) + r" \\" for row in self._cells())
        columns = "l" + "r" * heading.count(" & ")
        lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", heading, r"\midrule", *rows]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *(f"% {note}" for note in self.notes)]) + "\n"

    def csv(self) -> str:
        """A line a configuration, scores as fractions with all digits; without the notes."""
        text = io.StringIO()
        writer = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            writer.writerow({**vars(row), "seeds": _seeds(row.seeds), "values": " ".join(map(repr, row.values))})
        return text.getvalue()

    def _cells(self) -> list[list[str]]:
        """Headings and rows of the table for people."""
        compared = [f"minus {self.baseline}", "95 % interval", "p"] if self.baseline is not None else []
        table = [["configuration", "seeds", f"{self.metric} (%)", "sd", "95 % interval", *compared]]
        for row in self.rows:
            cells = [row.name, _seeds(row.seeds), _percent(row.mean), _percent(row.sd), _interval(row.low, row.high)]
            if compared:
                cells += [_percent(row.difference, "+"), _interval(row.difference_low, row.difference_high, "+")]
                cells.append("" if row.p is None else "< 0.001" if row.p < 0.001 else f"{row.p:.3f}")
            table.append(cells)
        return table


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "markdown": Comparison.markdown,
    "latex": Comparison.latex,
    "csv": Comparison.csv,
}


def run(arguments: list[str]) -> int:
    """Print or write the table of the runs that the command line names."""
    parser = CommandParser(prog="mmib aggregate", description="Mean, spread and paired tests over runs.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, or folders that hold runs")
    parser.add_argument("--split", choices=("val", "test"), default="test", help="default: %(default)s")
    parser.add_argument(
        "--by",
        default=["name"],
        nargs="+",
        metavar="KEY",
        help="what tells configurations apart: name, or keys of config.yaml such as model.init_args.gamma "
        "(default: name)",
    )
    parser.add_argument("--baseline", help="the configuration that the others are compared with")
    parser.add_argument(
        "--metric", default="f1", help="f1, precision, recall, accuracy, or another score of the task (default: f1)"
    )
    parser.add_argument("--test", choices=TESTS, default="bootstrap", help="default: %(default)s; docs/statistics.md")
    parser.add_argument("--resamples", type=int, default=statistics.RESAMPLES, help="default: %(default)s")
    parser.add_argument("--format", choices=FORMATS, default="markdown", help="default: %(default)s")
    parser.add_argument("--output", type=Path, help="file to write instead of printing")
    chosen = parser.parse_args(arguments)
    if chosen.resamples < 100:
        parser.error(f"--resamples {chosen.resamples} is too few: at least 100")
    runs = find_runs(chosen.runs)
    if chosen.output is not None:
        check_output(chosen.output, [run.folder for run in runs])
    groups = group(runs, chosen.by)
    table = compare(groups, chosen.split, chosen.metric, chosen.baseline, chosen.test, chosen.resamples)
    command = shlex.join(["mmib", "aggregate", *arguments])
    notes = [*table.notes, *_mixed(groups), *_unfinished(chosen.runs), f"command: {command}"]
    text = FORMATS[chosen.format](replace(table, notes=notes))
    if chosen.format == "csv":  # which has no place for them
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
    """Runs by name of their experiment, by the values of dotted keys of their configurations, or by both.

    The groups are in order of the values, the first key's first.

    Raises:
        RunError: a run's configuration has no such key.
    """
    values = [tuple(run.name if key == "name" else _setting(run, key) for key in by) for run in runs]
    names = [", ".join(map(_text, levels)) for levels in values]
    order = sorted(zip(values, names, strict=True), key=lambda pair: tuple(map(_order, pair[0])))
    groups: dict[str, list[FinishedRun]] = {name: [] for _, name in order}
    for name, run in zip(names, runs, strict=True):
        groups[name].append(run)
    return groups


def compare(
    groups: Mapping[str, Sequence[FinishedRun]],
    split: str = "test",
    metric: str = "f1",
    baseline: str | None = None,
    test: str = "bootstrap",
    resamples: int = statistics.RESAMPLES,
    scored: Mapping[Path, ScoredRun] | None = None,
) -> Comparison:
    """Configurations over their seeds, and each against the baseline.

    Args:
        groups: the runs of each configuration.
        split: `val` or `test`.
        metric: one of the task's `ExtractionScores.micro_scores`.
        baseline: a name in `groups`; without one nothing is tested.
        test: one of `TESTS`.
        resamples: of rows, for intervals and tests.
        scored: what is known of the runs by folder, where their predictions have been read before.

    Raises:
        RunError: the runs are of different tasks, labels or rows, one has no predictions or no gold, a configuration
            has no run or two of one seed, or the metric or the baseline is unknown.
        TaskError: their task is not registered.
    """
    if baseline is not None and baseline not in groups:
        raise RunError(f"there is no configuration {baseline!r} to compare with: choose from {', '.join(groups)}")
    ordered = {name: _by_seed(name, runs) for name, runs in groups.items()}
    runs = [run for members in ordered.values() for run in members]
    if not runs:
        raise RunError("there are no runs to compare")
    counter = _shared_scores(runs, metric)
    known = {run.folder: read_scored(run, split) for run in runs} if scored is None else scored
    above, below = _row_parts([known[run.folder] for run in runs], split, metric, counter)
    sample = statistics.bootstrap(above, below, resamples)
    numbers = iter(range(len(runs)))
    places = {name: [next(numbers) for _ in members] for name, members in ordered.items()}
    seeds = {name: [run.seed for run in members] for name, members in ordered.items()}
    pairs = {} if baseline is None else _pairs(seeds, places, baseline)
    tests = {name: _test(test, sample, above, below, *pair, resamples) for name, pair in pairs.items() if pair[0]}
    p_values = dict(zip(tests, statistics.holm([result.p for result in tests.values()]), strict=True))

    rows = []
    for name, members in places.items():
        scores = sample.scores[members]
        interval = statistics.mean_interval(sample.of(members))
        sd = float(scores.std(ddof=1)) if len(members) > 1 else None
        row = Row(name, seeds[name], scores.tolist(), interval.mean, sd, interval.low, interval.high)
        if name in tests:
            gain, low, high, _ = tests[name]
            row = replace(row, difference=gain, difference_low=low, difference_high=high, p=p_values[name])
        rows.append(row)
    notes = [*_provenance(runs, split, above.shape[1]), *_method(rows, tests, test, resamples)]
    for name, (members, _) in pairs.items():
        if len(members) < max(len(seeds[name]), len(seeds[str(baseline)])):
            shared = _seeds([runs[place].seed for place in members])
            how = f"compared on their shared seeds {shared} only" if shared else "not compared: they share no seed"
            notes.append(f"{name} and {baseline} are {how}")
    return Comparison(metric, baseline, rows, notes)


def _pairs(
    seeds: Mapping[str, list[int | None]], places: Mapping[str, list[int]], baseline: str
) -> dict[str, tuple[list[int], list[int]]]:
    """Places of each configuration's runs, and those of the baseline's runs of the same seeds, where there are any."""
    pairs = {}
    theirs = dict(zip(seeds[baseline], places[baseline], strict=True))
    for name, members in seeds.items():
        if name != baseline:
            pairing = zip(members, places[name], strict=True)
            shared = [(place, theirs[seed]) for seed, place in pairing if seed in theirs]
            pairs[name] = [place for place, _ in shared], [place for _, place in shared]
    return pairs


def _by_seed(name: str, runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """A configuration's runs in order of seed."""
    if not runs:
        raise RunError(f"the configuration {name!r} has no finished run")
    seen: dict[int | None, FinishedRun] = {}
    for run in runs:
        if run.seed in seen:
            raise RunError(
                f"the configuration {name!r} has two runs of seed {run.seed}: {seen[run.seed].folder} and "
                f"{run.folder}; leave one out, or tell configurations apart by a setting (--by)"
            )
        seen[run.seed] = run
    return sorted(runs, key=lambda run: -1 if run.seed is None else run.seed)


def _shared_scores(runs: Sequence[FinishedRun], metric: str) -> ExtractionScores:
    """The scores of the task and the labels that all runs have."""
    first = runs[0]
    for run in runs:
        if run.task != first.task:
            raise RunError(f"{first.folder} is of {first.task}, {run.folder} of {run.task}: name runs of one task")
        if differing := difference(first.labels, run.labels):
            raise RunError(
                f"{first.folder} and {run.folder} have different labels, {differing}: name runs of one label set"
            )
    scores = first.registered_task().metric(first.labels, sync_on_compute=False)
    known = scores.micro_scores()
    if metric not in known:
        raise RunError(f"{first.task} has no metric {metric!r} that is counted by row: choose from {', '.join(known)}")
    return scores


class ScoredRun(NamedTuple):
    """A run, and what a comparison has to know of its predictions of a split.

    Attributes:
        run: the run.
        gold: label id of each row, or a list of one a word, by the row's id and in order of it.
        predicted: the same of the prediction.
    """

    run: FinishedRun
    gold: dict[int, Any]
    predicted: dict[int, Any]


def scored_run(run: FinishedRun, split: str, records: Sequence[Record]) -> ScoredRun:
    """A run by the records of its predictions of a split.

    Raises:
        RunError: there is no row, one is there twice, or has a label that is none of the run's.
    """
    gold, predicted = (_labels(run, split, records, field) for field in ("gold", "predicted"))
    return ScoredRun(run, gold, predicted)


def read_scored(run: FinishedRun, split: str) -> ScoredRun:
    """A run by its prediction file; see `scored_run`."""
    return scored_run(run, split, run.predictions(split))


def _row_parts(scored: Sequence[ScoredRun], split: str, metric: str, scores: ExtractionScores) -> tuple[Array, Array]:
    """(S, N) parts of the score's numerator and denominator, rows in one order for all runs."""
    first, gold, _ = scored[0]
    above, below = [], []
    for run, labels, predicted in scored:
        if _data(run, split) != _data(first, split) or labels != gold:
            raise RunError(f"{first.folder} and {run.folder} were scored on different {split} rows: compare them apart")
        if any(np.shape(predicted[row]) != np.shape(gold[row]) for row in gold):
            raise RunError(f"{run.predictions_file(split)} is damaged: a row has more or fewer predictions than labels")
        ids = [label_tensor([by_row[row] for row in gold]) for by_row in (predicted, gold)]
        parts = scores.row_parts(ids[0], ids[1], metric)
        above.append(parts[0].numpy())
        below.append(parts[1].numpy())
    return np.stack(above), np.stack(below)


def _labels(run: FinishedRun, split: str, records: Sequence[Record], field: str) -> dict[int, Any]:
    """Label ids of each row, by its id and in order of it: one, or a list with one a word."""
    numbers = {name: number for number, name in enumerate(run.registered_task().outputs(run.labels))}
    found: dict[int, Any] = {}
    for record in records:
        names: Any = record.get(field)
        try:
            labels = [numbers[name] for name in names] if isinstance(names, list) else numbers[names]
        except (KeyError, TypeError) as error:
            wrong = f"no {field} label" if names is None else f"{names!r} as {field}, which is no label of the run"
            raise RunError(f"{run.predictions_file(split)}: the row {record['id']} has {wrong}") from error
        if record["id"] in found:
            raise RunError(f"{run.predictions_file(split)}: the row {record['id']} is there twice")
        found[record["id"]] = labels
    if not found:
        raise RunError(f"{run.predictions_file(split)} holds no rows")
    return dict(sorted(found.items()))


def _data(run: FinishedRun, split: str) -> Any:
    """Fingerprint of the rows that a run was scored on; None where its summary has none."""
    return run.summary.get("data", {}).get(split)


def _test(
    test: str, sample: Bootstrap, above: Array, below: Array, ours: list[int], theirs: list[int], resamples: int
) -> PairedTest:
    """Runs against others, in pairs."""
    if test == "bootstrap":
        return statistics.paired_bootstrap(sample.of(ours), sample.of(theirs))
    parts = [(values[ours], values[theirs]) for values in (above, below)]
    return statistics.approximate_randomisation(parts[0], parts[1], resamples)


def _provenance(runs: Sequence[FinishedRun], split: str, rows: int) -> list[str]:
    """What the scores were measured on, and with which versions."""
    data = _data(runs[0], split) or {}
    fingerprint = f", sha256 {data['sha256'][:12]}" if "sha256" in data else ""
    corpora = sorted({str(run.summary.get("corpus", "unknown corpus")) for run in runs})
    versions = {json.dumps(run.summary.get("versions", {}), sort_keys=True) for run in runs}
    used = [", ".join(f"{name} {version}" for name, version in json.loads(text).items()) for text in sorted(versions)]
    return [
        f"{runs[0].task} on {', '.join(corpora)}: {rows:,} rows of {split}{fingerprint}",
        f"versions: {' / '.join(used) or 'unknown'}; intervals by numpy {metadata.version('numpy')}",
    ]


def _method(rows: Sequence[Row], tests: Mapping[str, PairedTest], test: str, resamples: int) -> list[str]:
    """How intervals and p-values were made."""
    notes = [f"95 % intervals of means: bootstrap over rows, with the error of the seeds; {resamples:,} resamples"]
    alone = [row.name for row in rows if len(row.seeds) == 1]
    if alone:
        notes.append(f"one seed, so that the interval is of the rows alone: {', '.join(alone)}")
    if tests:
        adjusted = f", Holm-adjusted for {len(tests)} comparisons (intervals are not)" if len(tests) > 1 else ""
        notes.append(f"differences: {TESTS[test]}; p two-sided{adjusted}")
    return notes


def _setting(run: FinishedRun, key: str) -> Any:
    """The value of a dotted key in a run's configuration."""
    value: Any = run.config()
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            choices = ", ".join(value) if isinstance(value, dict) else "none below it"
            raise RunError(f"the configuration of {run.folder} has no {key!r}: {part!r} is none of {choices}")
        value = value[part]
    return value


def _text(value: Any) -> str:
    """A value's name, the same for 0 and 0.0."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value)


def _order(value: Any) -> tuple[bool, float, str]:
    """Numbers by size, then everything else by name."""
    number = isinstance(value, int | float)
    return not number, value if number else 0.0, _text(value)


def _mixed(groups: Mapping[str, Sequence[FinishedRun]]) -> list[str]:
    """Warns of configurations whose runs differ in more than their seed."""
    notes = []
    for name, runs in groups.items():
        settings = [dict(dotted(run.config())) for run in runs]
        keys = {key for first in settings for key in first if any(other.get(key) != first[key] for other in settings)}
        keys = {key for key in keys if key.replace(".init_args", "") not in INCIDENTAL}
        if keys:
            notes.append(f"the runs of {name} differ in {', '.join(sorted(keys))}: to tell them apart use --by")
    return notes


def _unfinished(folders: Sequence[Path]) -> list[str]:
    """Names the half-written runs below folders that hold finished ones too."""
    begun = {path.parent for folder in folders for path in folder.rglob("config.yaml")}
    left = sorted(path for path in begun if not (path / "summary.json").is_file() and not begun & set(path.parents))
    return [f"left out, not finished: {', '.join(map(str, left))}"] if left else []


def _seeds(seeds: Sequence[int | None]) -> str:
    return " ".join("none" if seed is None else str(seed) for seed in seeds)


def _percent(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{100 * value:{sign}.1f}"


def _interval(low: float | None, high: float | None, sign: str = "") -> str:
    return "" if low is None else f"{_percent(low, sign)} to {_percent(high, sign)}"


def _escaped(text: str) -> str:
    """Text that LaTeX prints as it stands."""
    return "".join(LATEX.get(character, character) for character in text)


LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"$<$", ">": r"$>$"},
}
