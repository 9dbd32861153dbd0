"""Comparison of configurations: a table of means over seeds, intervals and paired tests."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mmib.analysis.slices import SlicedPost, rated, sliced_posts
from mmib.base import resampling as statistics
from mmib.base.resampling import Array, Bootstrap, PairedTest
from mmib.datamodules.image_relevance import ImageRelevance
from mmib.labels import difference
from mmib.records import Record
from mmib.runs.reader import FinishedRun
from mmib.schema import RunError

if TYPE_CHECKING:
    from mmib.metrics import ExtractionScores

TESTS = {
    "bootstrap": "paired bootstrap over rows, with the error of the seeds",
    "randomisation": "approximate randomisation: outputs swapped by row, in all seeds at once",
}


# Columns of names, aligned left.
NAMES = ("slice", "configuration")


@dataclass(frozen=True)
class Row:
    """One configuration; scores and differences are fractions.

    Attributes:
        name: name of the configuration.
        seeds: seeds of its runs, in order.
        values: score of each seed.
        mean: mean over seeds.
        sd: standard deviation over seeds; None for a single seed.
        low: lower end of the 95 % interval of the mean.
        high: upper end of this interval.
        difference: score minus the baseline's, mean over the seeds that both have; None for the baseline itself,
            without a baseline, or without shared seeds.
        difference_low: lower end of the 95 % interval of the difference.
        difference_high: upper end of this interval.
        p: two-sided p-value, with Holm's adjustment if several configurations are compared with the baseline.
        part: part of the rows, in a table by slice; empty for a score of all rows.
        gold: number of gold items in the part.
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
    part: str = ""
    gold: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return all attributes except the name and, for a score of all rows, except `part` and `gold`."""
        left_out = ("name",) if self.part else ("name", "part", "gold")
        return {name: value for name, value in vars(self).items() if name not in left_out}

    def in_part(self, part: str, gold: int) -> Row:
        """Return a copy of the row for a part with this number of gold items."""
        return replace(self, part=part, gold=gold)


@dataclass(frozen=True)
class Comparison:
    """A table of configurations on one test set.

    Attributes:
        metric: name of the score.
        baseline: name of the configuration that the others are compared with.
        rows: the configurations, in the order of the input.
        notes: notes below the table, one sentence each.
    """

    metric: str
    baseline: str | None
    rows: list[Row]
    notes: list[str]

    def markdown(self) -> str:
        """Return a Markdown table in percent, with the notes as a list."""
        cells = [[cell.replace("|", r"\|") for cell in row] for row in self.cells()]
        rule = ["---" if heading in NAMES else "---:" for heading in cells[0]]
        lines = [f"| {' | '.join(row)} |" for row in [cells[0], rule, *cells[1:]]]
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes)]) + "\n"

    def latex(self) -> str:
        """Return a LaTeX table in percent for the package booktabs, with the notes as comments."""
        cells = self.cells()
        heading, *rows = (" & ".join(map(_escaped, row)) + r" \\" for row in cells)
        columns = "".join("l" if name in NAMES else "r" for name in cells[0])
        lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", heading, r"\midrule", *rows]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *(f"% {note}" for note in self.notes)]) + "\n"

    def csv(self) -> str:
        """Return one CSV line per configuration, with scores as fractions in full precision; without the notes."""
        text = io.StringIO()
        writer = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            writer.writerow({**vars(row), "seeds": _seeds(row.seeds), "values": " ".join(map(repr, row.values))})
        return text.getvalue()

    def cells(self) -> list[list[str]]:
        """Return headings and rows of the table as formatted text."""
        compared = [f"minus {self.baseline}", "95 % interval", "p"] if self.baseline is not None else []
        table = [["configuration", "seeds", f"{self.metric} (%)", "sd", "95 % interval", *compared]]
        for row in self.rows:
            cells = [row.name, _seeds(row.seeds), _percent(row.mean), _percent(row.sd), _interval(row.low, row.high)]
            if compared:
                cells += [_percent(row.difference, "+"), _interval(row.difference_low, row.difference_high, "+")]
                cells.append("" if row.p is None else "< 0.001" if row.p < 0.001 else f"{row.p:.3f}")
            table.append(cells)
        if any(row.part for row in self.rows):
            parts = [[row.part, f"{row.gold:,}"] for row in self.rows]
            table = [left + right for left, right in zip([["slice", "gold"], *parts], table, strict=True)]
        return table


def compare(
    groups: Mapping[str, Sequence[FinishedRun]],
    split: str = "test",
    metric: str = "f1",
    baseline: str | None = None,
    test: str = "bootstrap",
    resamples: int = statistics.RESAMPLES,
    scored: Mapping[Path, ScoredRun] | None = None,
) -> Comparison:
    """Compare configurations over their seeds, each against the baseline.

    Args:
        groups: the runs of each configuration.
        split: `val` or `test`.
        metric: one of the task's `ExtractionScores.micro_scores`.
        baseline: a name in `groups`; without a baseline, nothing is tested.
        test: one of `TESTS`.
        resamples: number of resamples of the rows, for intervals and tests.
        scored: the scored runs by folder, if their predictions have been read before.

    Raises:
        RunError: the runs have different tasks, labels or rows, a run has no predictions or no gold, a configuration
            has no run or two runs with the same seed, or the metric or the baseline is unknown.
        TaskError: their task is not registered.
    """
    grid = run_grid(groups, split, metric, baseline, scored)
    above, below = _row_parts(grid.scored, metric, shared_scores(grid.runs, metric))
    rows, tests = grid.rows(statistics.bootstrap(above, below, resamples), above, below, test)
    notes = [
        *provenance(grid.runs, split, above.shape[1]),
        *method_notes(rows, len(tests), test, resamples),
        *grid.notes(),
    ]
    return Comparison(metric, baseline, rows, notes)


@dataclass(frozen=True)
class RunGrid:
    """Comparable runs by configuration and seed.

    Attributes:
        scored: S runs with their labels, grouped by configuration, in order of seed.
        places: indices of each configuration's runs in `scored`.
        baseline: the configuration that the others are compared with.
    """

    scored: list[ScoredRun]
    places: dict[str, list[int]]
    baseline: str | None

    @property
    def runs(self) -> list[FinishedRun]:
        """The runs in the order of `scored`."""
        return [each.run for each in self.scored]

    def rows(
        self, sample: Bootstrap, above: Array, below: Array, test: str = "bootstrap"
    ) -> tuple[list[Row], dict[str, PairedTest]]:
        """Return a row for each configuration, and the tests of those that are compared.

        Args:
            sample: bootstrap of the scores of the S runs.
            above: (S, N) contribution of each row to the numerator of each run's score.
            below: (S, N) contribution of each row to the denominator.
            test: one of `TESTS`.
        """
        resamples = len(sample.resampled)
        tests = {
            name: _test(test, sample, above, below, *pair, resamples) for name, pair in self._pairs().items() if pair[0]
        }
        p_values = dict(zip(tests, statistics.holm([result.p for result in tests.values()]), strict=True))
        rows = []
        for name, members in self.places.items():
            scores = sample.scores[members]
            interval = statistics.mean_interval(sample.of(members))
            sd = float(scores.std(ddof=1)) if len(members) > 1 else None
            row = Row(name, self._seeds(name), scores.tolist(), interval.mean, sd, interval.low, interval.high)
            if name in tests:
                gain, low, high, _ = tests[name]
                row = replace(row, difference=gain, difference_low=low, difference_high=high, p=p_values[name])
            rows.append(row)
        return rows, tests

    def notes(self) -> list[str]:
        """Return notes on the configurations whose seeds differ from the baseline's, or that share one seed with it."""
        notes = []
        pairs = self._pairs()
        for name, (members, _) in pairs.items():
            if len(members) < max(len(self.places[name]), len(self.places[str(self.baseline)])):
                shared = _seeds([self.scored[place].run.seed for place in members])
                how = f"compared on their shared seeds {shared} only" if shared else "not compared: they share no seed"
                notes.append(f"{name} and {self.baseline} are {how}")
        if alone := [name for name, (members, _) in pairs.items() if len(members) == 1]:
            notes.append(
                f"one seed shared with {self.baseline}, so interval and p of the difference do not include the error "
                f"of the seeds: {', '.join(alone)}"
            )
        return notes

    def _seeds(self, name: str) -> list[int | None]:
        return [self.scored[place].run.seed for place in self.places[name]]

    def _pairs(self) -> dict[str, tuple[list[int], list[int]]]:
        """Return the indices of each configuration's runs, and of the baseline's runs with the same seeds."""
        if self.baseline is None:
            return {}
        theirs = dict(zip(self._seeds(self.baseline), self.places[self.baseline], strict=True))
        pairs = {}
        for name, members in self.places.items():
            if name != self.baseline:
                pairing = zip(self._seeds(name), members, strict=True)
                shared = [(place, theirs[seed]) for seed, place in pairing if seed in theirs]
                pairs[name] = [place for place, _ in shared], [place for _, place in shared]
        return pairs


def run_grid(
    groups: Mapping[str, Sequence[FinishedRun]],
    split: str,
    metric: str,
    baseline: str | None,
    scored: Mapping[Path, ScoredRun] | None = None,
    relevance: ImageRelevance | None = None,
) -> RunGrid:
    """Arrange runs by configuration and seed; see `compare` and, for `relevance`, `scored_run`.

    Raises:
        RunError: see `compare`.
        TaskError: see `compare`.
    """
    if baseline is not None and baseline not in groups:
        raise RunError(f"there is no configuration {baseline!r} to compare with: choose from {', '.join(groups)}")
    ordered = {name: _by_seed(name, runs) for name, runs in groups.items()}
    runs = [run for members in ordered.values() for run in members]
    if not runs:
        raise RunError("there are no runs to compare: name at least one finished run")
    shared_scores(runs, metric)
    known = {run.folder: read_scored(run, split, relevance) for run in runs} if scored is None else scored
    numbers = iter(range(len(runs)))
    places = {name: [next(numbers) for _ in members] for name, members in ordered.items()}
    grid = RunGrid([known[run.folder] for run in runs], places, baseline)
    _check_rows(grid.scored, split)
    return grid


def _by_seed(name: str, runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """Return a configuration's runs in order of seed."""
    if not runs:
        raise RunError(f"the configuration {name!r} has no finished run: train it first")
    seen: dict[int | None, FinishedRun] = {}
    for run in runs:
        if run.seed in seen:
            raise RunError(
                f"the configuration {name!r} has two runs of seed {run.seed}: {seen[run.seed].folder} and "
                f"{run.folder}; leave one out, or tell configurations apart by a setting (--by)"
            )
        seen[run.seed] = run
    return sorted(runs, key=lambda run: -1 if run.seed is None else run.seed)


def shared_scores(runs: Sequence[FinishedRun], metric: str) -> ExtractionScores:
    """Return the scores object for the runs' common task and labels.

    Raises:
        RunError: the runs have different tasks or labels, or the metric is not a sum over rows.
        TaskError: their task is not registered.
    """
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
    """A run with the parts of its predictions that a comparison needs.

    Attributes:
        run: the run.
        gold: label id of each row, or a list with one label id per word, by row id and in order of row id.
        predicted: the same for the predictions.
        posts: the rows in the form that slices need.
    """

    run: FinishedRun
    gold: dict[int, Any]
    predicted: dict[int, Any]
    posts: list[SlicedPost]


def scored_run(
    run: FinishedRun, split: str, records: Sequence[Record], relevance: ImageRelevance | None = None
) -> ScoredRun:
    """Prepare a run for comparison, from the records of its predictions of a split.

    Args:
        run: the run.
        split: the predicted split.
        records: the run's predictions.
        relevance: see `mmib.analysis.slices.rated`.

    Raises:
        RunError: a record is damaged, there are no rows, a row occurs twice, or a label is not in the run's label set.
        DataError: the relevance file is about other images.
    """
    gold, predicted = (_labels(run, split, records, field) for field in ("gold", "predicted"))
    if any(np.shape(predicted[row]) != np.shape(gold[row]) for row in gold):
        raise RunError(f"{run.predictions_file(split)} is damaged: a row has more or fewer predictions than labels")
    rated_records = rated(run, records, relevance)
    # Only similarities depend on whose images the run saw; without them, config.yaml may be missing.
    own_images = all(record.get("similarity") is None for record in records) or run.own_images
    with run.interpreting(split):
        posts = sliced_posts(run.registered_task(), run.labels, rated_records, own_images)
    return ScoredRun(run, gold, predicted, posts)


def read_scored(run: FinishedRun, split: str, relevance: ImageRelevance | None = None) -> ScoredRun:
    """Prepare a run for comparison, from its prediction file; see `scored_run`."""
    return scored_run(run, split, run.predictions(split), relevance)


def _check_rows(scored: Sequence[ScoredRun], split: str) -> None:
    """Raise a `RunError` if the runs were scored on different rows."""
    first = scored[0]
    for each in scored:
        if each.run.fingerprint(split) != first.run.fingerprint(split) or each.gold != first.gold:
            folders = f"{first.run.folder} and {each.run.folder}"
            raise RunError(f"{folders} were scored on different {split} rows: compare them apart")


def _row_parts(scored: Sequence[ScoredRun], metric: str, scores: ExtractionScores) -> tuple[Array, Array]:
    """Return the (S, N) contributions of rows to numerator and denominator of the score, in the same order for all."""
    from mmib.metrics import label_tensor  # noqa: PLC0415 - the report compares without torch

    above, below = [], []
    for each in scored:
        ids = [label_tensor([by_row[row] for row in each.gold]) for by_row in (each.predicted, each.gold)]
        parts = scores.row_parts(ids[0], ids[1], metric)
        above.append(parts[0].numpy())
        below.append(parts[1].numpy())
    return np.stack(above), np.stack(below)


def _labels(run: FinishedRun, split: str, records: Sequence[Record], field: str) -> dict[int, Any]:
    """Return the label id of each row, or a list with one label id per word, by row id and in order of row id."""
    numbers = {name: number for number, name in enumerate(run.registered_task().outputs(run.labels))}
    found: dict[int, Any] = {}
    for record in records:
        names: Any = record.get(field)
        try:
            labels = [numbers[name] for name in names] if isinstance(names, list) else numbers[names]
        except (KeyError, TypeError) as error:
            wrong = f"no {field} label" if names is None else f"{names!r} as {field}, which is no label of the run"
            raise RunError(f"{run.predictions_file(split)}: the row {record['id']} has {wrong}") from error
        found[record["id"]] = labels
    if not found:
        raise RunError(f"{run.predictions_file(split)} holds no rows: score the run again")
    return dict(sorted(found.items()))


def _test(
    test: str, sample: Bootstrap, above: Array, below: Array, ours: list[int], theirs: list[int], resamples: int
) -> PairedTest:
    """Test runs against others, in pairs."""
    if test == "bootstrap":
        return statistics.paired_bootstrap(sample.of(ours), sample.of(theirs))
    parts = [(values[ours], values[theirs]) for values in (above, below)]
    return statistics.approximate_randomisation(parts[0], parts[1], resamples)


def provenance(runs: Sequence[FinishedRun], split: str, rows: int) -> list[str]:
    """Return notes on the data of the scores, and on the versions used."""
    data = (runs[0].summary.get("data") or {}).get(split) or {}
    fingerprint = f", sha256 {data['sha256'][:12]}" if "sha256" in data else ""
    corpora = sorted({str(run.summary.get("corpus", "unknown corpus")) for run in runs})
    versions: dict[str, set[str]] = {}
    for run in runs:
        for name, version in run.summary.get("versions", {}).items():
            versions.setdefault(name, set()).add(str(version))
    used = ", ".join(f"{name} {' / '.join(sorted(found))}" for name, found in versions.items())
    return [
        f"{runs[0].task} on {', '.join(corpora)}: {rows:,} rows of {split}{fingerprint}",
        f"versions: {used or 'unknown'}; intervals by numpy {metadata.version('numpy')}",
    ]


def method_notes(rows: Sequence[Row], compared: int, test: str, resamples: int, within: str = "") -> list[str]:
    """Return notes on how intervals and p-values were computed."""
    notes = [f"95 % intervals of means: bootstrap over rows, with the error of the seeds; {resamples:,} resamples"]
    alone = dict.fromkeys(row.name for row in rows if len(row.seeds) == 1)
    if alone:
        notes.append(f"one seed, so the interval does not include the error of the seeds: {', '.join(alone)}")
    if compared:
        adjusted = f", Holm-adjusted for {compared} comparisons{within} (intervals are not)" if compared > 1 else ""
        notes.append(f"differences: {TESTS[test]}; p two-sided{adjusted}")
    return notes


def _seeds(seeds: Sequence[int | None]) -> str:
    return " ".join("none" if seed is None else str(seed) for seed in seeds)


def _percent(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{100 * value:{sign}.1f}"


def _interval(low: float | None, high: float | None, sign: str = "") -> str:
    return "" if low is None else f"{_percent(low, sign)} to {_percent(high, sign)}"


def _escaped(text: str) -> str:
    """Escape a text for LaTeX."""
    return "".join(LATEX.get(character, character) for character in text)


# After a line break, [ begins an optional argument and * a variant of the command.
LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"$<$", ">": r"$>$", "|": r"\textbar{}", "[": "{[}", "*": "{*}"},
}
