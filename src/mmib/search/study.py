"""The command `mmib study`: train every trial of a study file once, and compare the trials in tables and a report."""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from mmib import charts
from mmib.analysis import report
from mmib.analysis.comparison import Comparison, ScoredRun, compare, scored_run
from mmib.analysis.measures import MEASURES, mean_measures, measures, with_measures
from mmib.analysis.relevance import SIGNALS, Detection, area_texts, detections, mean_auc
from mmib.analysis.report.history import shortened, shown_command
from mmib.analysis.report.study import Study, chart, measure_texts, rate_chart
from mmib.analysis.slice_comparison import compare_slices
from mmib.analysis.slices import ERRORS, error_texts, errors
from mmib.base.argument_parser import CommandParser
from mmib.base.files import write_text
from mmib.base.wording import counted
from mmib.configs import expand_configs
from mmib.datamodules.image_relevance import ImageRelevance
from mmib.options.composition import check
from mmib.runs.reader import STUDY, FinishedRun
from mmib.schema import ConfigError
from mmib.search.study_file import StudyFile, Trial, check_options, read_study_file
from mmib.search.trials import TrialError, end_on_signals, finished_run, run_trial, share_cores

METRIC = "f1"
REST = "--"
PROTOCOLS = {
    "test": "Selected on validation, each run scored on test once.",
    "val": "Scores are on validation, which also selected checkpoints: they are optimistic. Not all runs have a test "
    "split.",
}
TABLE, FIGURE, RATES = "table.md", "figure.svg", "rates.svg"
# Folder of the runs of all studies. Version 0.1 named it so, and its runs are reused.
TRIALS = "points"


@dataclass
class Progress:
    """Progress of a study.

    Attributes:
        total: number of runs to train, without those that were finished before.
        done: number of runs that have ended.
        started: start time, in seconds of the monotonic clock.
    """

    total: int
    done: int
    started: float

    def report(self, outcome: str) -> None:
        """Count and report one more ended run."""
        self.done += 1
        rest = (time.monotonic() - self.started) / self.done * (self.total - self.done)
        left = f"about {timedelta(seconds=round(rest))} left" if self.done < self.total else "done"
        print(f"[{self.done}/{self.total}] {outcome}; {left}", flush=True)  # noqa: T201


@dataclass(frozen=True)
class Choice:
    """Result of the search for a trial's setting.

    Attributes:
        trial: the trial with the chosen setting; None while the search is unfinished.
        scores: {setting: validation score} of the settings that were tried; empty without a search.
        setting: name of the chosen setting; None without a search, or while it is unfinished.
    """

    trial: Trial | None
    scores: dict[str, float]
    setting: str | None = None


@dataclass(frozen=True)
class MeasuredRun:
    """The results of a finished run for the tables; its predictions are read only once.

    Attributes:
        scored: the run with its labels.
        errors: number of errors by kind; see `mmib.analysis.slices.errors`.
        detections: how well each signal separates relevant from irrelevant images, if the corpus knows them.
        measures: rates, loss, calibration and similar measures.
    """

    scored: ScoredRun
    errors: dict[str, int]
    detections: list[Detection]
    measures: dict[str, float | None]

    @property
    def run(self) -> FinishedRun:
        """The run."""
        return self.scored.run


def measure(run: FinishedRun, split: str, relevance: ImageRelevance | None = None) -> MeasuredRun:
    """Read a run's predictions of a split.

    Args:
        run: the run.
        split: the split.
        relevance: relevance of the posts' images, by which scores are split.

    Raises:
        RunError: the predictions are missing or damaged.
        DataError: the relevance file is about other images.
    """
    records = run.predictions(split)
    with run.interpreting(split):
        detected = detections(records)
    scored = scored_run(run, split, records, relevance)
    return MeasuredRun(scored, errors(scored.posts, run.labels), detected, measures(run, split, records))


@dataclass(frozen=True)
class MeasuredTrial:
    """A trial with its finished runs, one per seed.

    Attributes:
        trial: the trial.
        runs: its finished runs.
        choice: result of the search for its setting.
        split: the compared split; see `compared_split`.
    """

    trial: Trial
    runs: list[MeasuredRun]
    choice: Choice
    split: str

    @property
    def ceilings(self) -> dict[str, float] | None:
        """The best possible score from text, and from text and image, if the corpus knows it."""
        ceiling = self.runs[0].run.summary.get("ceiling")
        return {view: ceiling[view] for view in ("text", "multimodal")} if ceiling else None

    @property
    def auc(self) -> dict[str, float | None]:
        """AUC of each signal for relevant against irrelevant images, if the corpus knows them; see `mean_auc`."""
        return mean_auc([run.detections for run in self.runs])

    @property
    def errors(self) -> dict[str, float]:
        """Number of errors by kind, mean over the seeds."""
        return {name: fmean(run.errors[name] for run in self.runs) for name in self.runs[0].errors}

    @property
    def measures(self) -> dict[str, float | None]:
        """Rates, loss, calibration and similar measures, mean over the seeds."""
        return mean_measures([run.measures for run in self.runs])


class Compared(NamedTuple):
    """Trials on the same test rows, the table that compares them, and the table of their slices."""

    trials: list[MeasuredTrial]
    table: Comparison
    slices: Comparison


def run(arguments: list[str]) -> int:
    """Train the missing runs, and write tables and report; return status 1 if a trial failed.

    Raises:
        ConfigError: the study file or an option is invalid.
    """
    parser = CommandParser(
        prog="mmib study",
        description="Train all combinations of named settings and seeds, and compare them. Finished runs are not "
        "repeated, and the same command resumes an interrupted study. Options after -- are passed to mmib fit for all "
        "runs, such as -- --data.root FOLDER; options in the study file take precedence.",
    )
    parser.add_argument("file", type=Path, help="study file, such as experiments/ablations/study.yaml")
    parser.add_argument("--experiment", nargs="+", help="experiments of the file to run (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, help="seeds, instead of those in the file")
    parser.add_argument(
        "--level",
        action="append",
        default=[],
        metavar="FACTOR=LEVEL",
        help="only this level of a factor; its results are in a separate folder; may be repeated",
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/study"), help="folder of all studies (%(default)s)")
    parser.add_argument("--parallel", type=int, default=1, help="number of runs at a time; they share the cores")
    parser.add_argument("--results", type=Path, help="folder to copy tables and figures to, named after the study")
    parser.add_argument(
        "--relevance",
        type=Path,
        metavar="FILE",
        help="JSON lines of image relevance, to split scores by (default: the alignment score)",
    )
    parser.add_argument(
        "--only-tables", action="store_true", help="train nothing; write the tables of the existing runs"
    )
    end = arguments.index(REST) if REST in arguments else len(arguments)
    chosen = parser.parse_args(arguments[:end])
    if chosen.parallel < 1:
        parser.error("--parallel must be at least 1")
    end_on_signals()
    relevance = None if chosen.relevance is None else ImageRelevance(chosen.relevance)
    study = read_study_file(chosen.file)
    common = check_options(arguments[end + 1 :], f"what follows {REST}")
    study = replace(study, seeds=tuple(dict.fromkeys(chosen.seeds or study.seeds)), options=common)
    if chosen.experiment:
        unknown = set(chosen.experiment) - set(study.experiments)
        if unknown:
            choices = ", ".join(study.experiments)
            raise ConfigError(f"{chosen.file} has no experiment {', '.join(sorted(unknown))}: choose from {choices}")
        study = replace(study, experiments=tuple(chosen.experiment))
    study = study.restricted(chosen.level)
    if not chosen.only_tables:
        check_trials(study)
    reasons = {} if chosen.only_tables else train(study, chosen.runs, chosen.parallel)
    command = shown_command(shlex.join(["mmib", "study", *arguments]))  # tables are shared
    for experiment in study.experiments:
        name = Path(experiment).stem  # an experiment may be a file in another folder
        folder = chosen.runs / study.name / name
        if conclude(study, experiment, chosen.runs, folder, reasons, command, relevance) and chosen.results is not None:
            keep_results(folder, chosen.results, f"{study.name}-{name}")
    return int(bool(reasons))


def check_trials(study: StudyFile) -> None:
    """Check the options of all runs of a study, so that a misspelt one is found before the first run.

    Raises:
        ConfigError: `mmib fit` would refuse the options of a run; the message names the experiment and the trial.
    """
    for experiment in study.experiments:
        for trial in study.trials():
            tried = study.candidates(trial) or {"": study.complete(trial)}
            for setting, candidate in tried.items():
                try:
                    check("fit", expand_configs(["fit", *study.searched(candidate).command(experiment, 0)])[1:])
                except ConfigError as error:
                    named = f"{experiment}, {trial}{f', setting {setting}' if setting else ''}"
                    raise ConfigError(f"{named}: {error}") from error


def folder_of(runs: Path, trial: Trial, experiment: str, seed: int) -> Path:
    """Return the folder of a trial's run; all studies with the same trial share it."""
    return runs / TRIALS / trial.key(experiment, seed)


Job = tuple[str, Trial, int]


def train(study: StudyFile, runs: Path, parallel: int) -> dict[tuple[str, str, int], str]:
    """Train the missing runs: first those of the search, then those of the study.

    Runs are trained seed by seed, so that an interrupted study is a study with fewer seeds.

    Returns:
        {(experiment, trial, seed): reason} of the failed runs.
    """
    share_cores(parallel)
    reasons: dict[tuple[str, str, int], str] = {}
    pairs = [(experiment, trial) for experiment in study.experiments for trial in study.trials()]
    if study.search is not None:
        seed = study.search.seed
        tried = [
            (experiment, study.searched(each), seed)
            for experiment, trial in pairs
            for each in study.candidates(trial).values()
        ]
        reasons |= _train_all(f"{study.name}, search", tried, runs, parallel)
    chosen = [(experiment, choose(study, runs, experiment, trial).trial) for experiment, trial in pairs]
    wanted = [(experiment, trial, seed) for seed in study.seeds for experiment, trial in chosen if trial is not None]
    return reasons | _train_all(study.name, wanted, runs, parallel)


def choose(study: StudyFile, runs: Path, experiment: str, trial: Trial) -> Choice:
    """Return the trial with the best setting on validation, the first if tied; the trial itself without a search."""
    if study.search is None:
        return Choice(study.complete(trial), {})
    candidates = study.candidates(trial)
    scores: dict[str, float] = {}
    for name, each in candidates.items():
        run = finished_run(folder_of(runs, study.searched(each), experiment, study.search.seed))
        if run is not None and run.summary.get("val"):
            scores[name] = float(run.summary["val"][METRIC])
    if len(scores) < len(candidates):
        return Choice(None, scores)
    best = max(scores, key=lambda name: scores[name])
    return Choice(candidates[best], scores, best)


def _train_all(title: str, wanted: Sequence[Job], runs: Path, parallel: int) -> dict[tuple[str, str, int], str]:
    """Train the missing runs in order, and return the reasons of failed runs."""
    missing = [job for job in wanted if finished_run(folder_of(runs, job[1], job[0], job[2])) is None]
    print(f"{title}: {counted(len(wanted), 'runs')}, {len(wanted) - len(missing)} there already", flush=True)  # noqa: T201
    progress = Progress(len(missing), 0, time.monotonic())
    reasons: dict[tuple[str, str, int], str] = {}
    ending = threading.Event()
    with ThreadPoolExecutor(parallel) as pool:
        jobs = {pool.submit(_train_one, runs, *job, ending): job for job in missing}
        try:
            for job in as_completed(jobs):
                experiment, trial, seed = jobs[job]
                name = f"{experiment}, {trial}, seed {seed}"
                try:
                    finished = job.result()
                    split = compared_split([finished])
                    note = ", as there is no test split" if trial.tested and split == "val" else ""
                    progress.report(f"{name}: {split} {METRIC} {100 * finished.summary[split][METRIC]:.1f}{note}")
                except TrialError as error:
                    reasons[experiment, str(trial), seed] = str(error)
                    progress.report(f"{name} failed: {error}")
        except BaseException:
            # The running trainings save a checkpoint, from which the next call resumes them.
            ending.set()
            pool.shutdown(cancel_futures=True)
            raise
    return reasons


def _train_one(runs: Path, experiment: str, trial: Trial, seed: int, ending: threading.Event) -> FinishedRun:
    options = [*trial.command(experiment, seed), "--trainer.enable_progress_bar", "false"]
    run = run_trial(options, folder_of(runs, trial, experiment, seed), lambda _: ending.is_set())
    if run is None or not run.summary.get("val"):
        raise TrialError("it was not scored: a study needs a validation split, and `evaluate` in its configuration")
    # The analysis needs only the predictions.
    shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)
    return run


def compared_split(runs: Sequence[FinishedRun]) -> str:
    """Return `test` if all runs were scored on it, and `val` otherwise."""
    return "test" if all(run.summary.get("test") for run in runs) else "val"


def conclude(
    study: StudyFile,
    experiment: str,
    runs: Path,
    folder: Path,
    reasons: dict[tuple[str, str, int], str],
    command: str,
    relevance: ImageRelevance | None = None,
) -> bool:
    """Write record, table, figures and report of one experiment's runs, and print the table.

    Returns:
        Whether there are finished runs.
    """
    chosen = [(trial, choose(study, runs, experiment, trial)) for trial in study.trials()]
    finished = [_finished(study, experiment, runs, choice) for _, choice in chosen]
    split = compared_split([run for found in finished for run in found])
    found = [
        MeasuredTrial(choice.trial or trial, [measure(run, split, relevance) for run in done], choice, split)
        for (trial, choice), done in zip(chosen, finished, strict=True)
    ]
    measured = [trial for trial in found if trial.runs]
    if not measured:
        print(f"{study.name}, {experiment}: nothing was measured")  # noqa: T201
        return False
    tables = list(_comparisons(study, measured))
    failed: dict[str, list[dict[str, Any]]] = {}
    for (name, trial, seed), reason in reasons.items():
        if name == experiment:
            failed.setdefault(trial, []).append({"seed": seed, "reason": shortened(reason)})  # tables are shared
    record = _record(study, experiment, found, tables, failed, command)
    write_text(folder / STUDY, json.dumps(record, indent=2) + "\n")
    text = _page(record, tables)
    write_text(folder / TABLE, text)
    for name, figure in ((FIGURE, chart(Study(folder, record))), (RATES, rate_chart(Study(folder, record)))):
        if figure is not None:
            charts.save([figure], folder / name)
    print(text)  # noqa: T201
    print("report: ", end="", flush=True)  # noqa: T201
    report.run([str(folder)])
    return True


def _finished(study: StudyFile, experiment: str, runs: Path, choice: Choice) -> list[FinishedRun]:
    if choice.trial is None:
        return []
    folders = (folder_of(runs, choice.trial, experiment, seed) for seed in study.seeds)
    return [run for folder in folders if (run := finished_run(folder))]


def keep_results(folder: Path, results: Path, name: str) -> None:
    """Copy the table, the figures and the record to another folder, to keep them when the runs are deleted."""
    results.mkdir(parents=True, exist_ok=True)
    for file, target in (
        (TABLE, f"{name}.md"),
        (FIGURE, f"{name}.svg"),
        (RATES, f"{name}-rates.svg"),
        (STUDY, f"{name}.json"),
    ):
        if (folder / file).is_file():
            shutil.copyfile(folder / file, results / target)
            print(f"kept: {results / target}")  # noqa: T201


def _comparisons(study: StudyFile, measured: Sequence[MeasuredTrial]) -> Iterator[Compared]:
    """Compare trials with the baseline, separately for each test set and each level of factors that it does not name.

    Test sets are distinguished by their text alone: trials with the same text may have different images and ceilings.
    """
    comparable: dict[str, list[MeasuredTrial]] = {}
    for each in measured:
        within = {factor: level for factor, level in each.trial.levels.items() if factor not in study.baseline}
        key = json.dumps([each.runs[0].run.summary["data"].get(each.split), within], sort_keys=True)
        comparable.setdefault(key, []).append(each)
    for trials in comparable.values():
        baselines = [str(each.trial) for each in trials if study.baseline.items() <= each.trial.levels.items()]
        groups = {str(each.trial): [measured.run for measured in each.runs] for each in trials}
        scored = {measured.run.folder: measured.scored for each in trials for measured in each.runs}
        baseline = baselines[0] if baselines else None
        options = groups, trials[0].split, METRIC, baseline
        table, sliced = compare(*options, scored=scored), compare_slices(*options, scored=scored)
        yield Compared(trials, table, replace(sliced, notes=[note for note in sliced.notes if note not in table.notes]))


def _record(
    study: StudyFile,
    experiment: str,
    found: Sequence[MeasuredTrial],
    tables: Sequence[Compared],
    failed: dict[str, list[dict[str, Any]]],
    command: str,
) -> dict[str, Any]:
    """Return the content of `study.json`: scores are fractions, the levels of a trial are under the key `point`.

    Failed runs are under `failed`, with seed and reason; the `reason` of a trial is why it has no score at all.
    """
    first = next(each for each in found if each.runs).runs[0].run
    rows: list[dict[str, Any]] = []
    compared = {row.name: row for each in tables for row in each.table.rows}
    parts = [row for each in tables for row in each.slices.rows]
    for each in found:
        name = str(each.trial)
        row: dict[str, Any] = {"point": each.trial.levels, "failed": failed.get(name, [])}
        if each.runs:
            known = {"ceilings": each.ceilings, "auc": each.auc, "measures": each.measures, "errors": each.errors}
            sliced = {"slices": [row.to_dict() for row in parts if row.name == name]}
            search = {"search": {"scores": each.choice.scores, "setting": each.choice.setting}} if study.search else {}
            rows.append({**row, **compared[name].to_dict(), **known, **sliced, **search})
        else:
            reason = row["failed"][0]["reason"] if row["failed"] else _not_trained(study, each)
            rows.append({**row, "mean": None, "reason": reason})
    return {
        "name": f"{study.name}: {experiment}",
        "task": first.task,
        "plugins": first.summary.get("plugins", []),
        "corpus": first.summary["corpus"],
        "split": found[0].split,
        "metric": METRIC,
        "baseline": study.baseline,
        "factors": {name: list(levels) for name, levels in study.factors.items()},
        "search": vars(study.search) if study.search else None,
        "rows": rows,
        "notes": list(dict.fromkeys(note for compared in tables for note in compared.table.notes)),
        "command": command,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "versions": first.summary["versions"],
    }


def _not_trained(study: StudyFile, trial: MeasuredTrial) -> str:
    if study.search is None or trial.choice.trial is not None:
        return "not trained yet"
    done = f"{len(trial.choice.scores)} of the {len(study.search.settings)} settings of its search"
    return f"not compared: only {done} were tried"


def _page(record: dict[str, Any], tables: Sequence[Compared]) -> str:
    """Return the content of `table.md`."""
    lines = [
        f"# {record['name']}",
        "",
        f"Corpus: {record['corpus']}. Command: `{record['command']}`. Machine: {record['machine']}. "
        + PROTOCOLS[record["split"]],
        "",
    ]
    for trials, table, sliced in tables:
        levels = [each.trial.levels for each in trials]
        shared = {factor: level for factor, level in levels[0].items() if all(row[factor] == level for row in levels)}
        if len(tables) > 1:
            lines += [f"## {Trial(shared, ())}", ""]
        ceilings = trials[0].ceilings
        if ceilings:
            best = f"with text {100 * ceilings['text']:.1f}, with text and image {100 * ceilings['multimodal']:.1f}"
            lines += [f"Best possible F1 in percent: {best}.", ""]
        lines += [table.markdown(), "", *(["By slice:", "", sliced.markdown(), ""] if sliced.rows else [])]
    for row in record["rows"]:
        name = Trial(row["point"], ())
        lines += [f"- {name}, seed {run['seed']} failed: {run['reason']}" for run in row["failed"]]
        if row["mean"] is None and not row["failed"]:
            lines.append(f"- {name}: {row['reason']}")
    parts = (_errors_table(record), _auc_table(record), _measures_table(record), _search_table(record))
    return "\n".join([*lines, *(line for part in parts for line in part)]).rstrip() + "\n"


def _errors_table(record: dict[str, Any]) -> list[str]:
    """Return the table of errors by kind, in Markdown."""
    caption = (
        f"Kinds of errors on {record['split']}, gold and predicted items, mean over the seeds (docs/how-to/report.md)"
    )
    rows = [(row["point"], error_texts(row["errors"])) for row in record["rows"] if row.get("errors")]
    return _table(caption, ERRORS.values(), rows)


def _auc_table(record: dict[str, Any]) -> list[str]:
    """Return the AUC of signals for relevant images as a Markdown table; empty if no trial has them."""
    caption = f"AUC of signals, relevant against irrelevant images of {record['split']}, mean over the seeds"
    rows = [(row["point"], area_texts(row["auc"])) for row in record["rows"] if row.get("auc")]
    return _table(caption, SIGNALS, rows) if rows else []


def _measures_table(record: dict[str, Any]) -> list[str]:
    """Return the measures of bottleneck and alignment as a Markdown table, without those that no trial has."""
    found, names = with_measures(record["rows"])
    if not names:
        return []
    caption = (
        "Mean over the seeds; rate, loss, gap and rank on validation, calibration error on "
        f"{record['split']} (docs/how-to/studies.md)"
    )
    rows = [(row["point"], measure_texts(row["measures"], names)) for row in found]
    return _table(caption, [MEASURES[name] for name in names], rows)


def _search_table(record: dict[str, Any]) -> list[str]:
    """Return the settings that were tried, with the chosen one, as a Markdown table; empty without a search."""
    search = record["search"]
    if search is None:
        return []
    names = list(search["settings"])
    caption = f"{METRIC} on validation (%) of the settings tried, at seed {search['seed']}; the chosen one in bold"
    rows = []
    for row in (row for row in record["rows"] if row.get("search")):
        scores = {name: f"{100 * score:.1f}" for name, score in row["search"]["scores"].items()}
        scores[row["search"]["setting"]] = f"**{scores[row['search']['setting']]}**"
        rows.append((row["point"], [scores[name] for name in names]))
    described = [f"- {name}: `{shlex.join(options)}`" for name, options in search["settings"].items()]
    if search["options"]:
        described.append(f"- all of them in the search alone: `{shlex.join(search['options'])}`")
    return [*_table(caption, names, rows), "", *described]


def _table(caption: str, columns: Iterable[str], rows: Iterable[tuple[Any, Iterable[str]]]) -> list[str]:
    """Return a Markdown table, with the texts of each point of the grid as a row."""
    names = list(columns)
    lines = ["", f"{caption}:", "", f"| configuration | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    return lines + [f"| {Trial(point, ())} | {' | '.join(texts)} |" for point, texts in rows]
