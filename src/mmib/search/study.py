"""The command `mmib study`: trains every point of a plan once, and compares them in tables, a figure and a page."""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from mmib import charts
from mmib.analysis import report
from mmib.analysis.aggregate import Comparison, compare
from mmib.analysis.report.study import Study, chart
from mmib.base.argument_parser import CommandParser
from mmib.base.files import write_text
from mmib.runs.reader import STUDY, FinishedRun
from mmib.schema import ConfigError
from mmib.search.study_file import Plan, Point, read_plan
from mmib.search.trials import PointError, end_on_sigterm, finished_run, run_point, share_cores

SPLIT, METRIC = "test", "f1"
TABLE, FIGURE = "table.md", "figure.svg"


@dataclass
class Progress:
    """Says how far a study has come.

    Attributes:
        total: runs to make, those made before left out.
        done: runs made.
        started: when, in seconds of the monotonic clock.
    """

    total: int
    done: int
    started: float

    def say(self, what: str) -> None:
        """One more is done."""
        self.done += 1
        rest = (time.monotonic() - self.started) / self.done * (self.total - self.done)
        left = f"about {timedelta(seconds=round(rest))} left" if self.done < self.total else "done"
        print(f"[{self.done}/{self.total}] {what}; {left}", flush=True)  # noqa: T201


@dataclass(frozen=True)
class Measured:
    """A point with its finished runs, one a seed."""

    point: Point
    runs: list[FinishedRun]

    @property
    def ceilings(self) -> dict[str, float] | None:
        """The best possible score by what is read, where the corpus tells."""
        ceiling = self.runs[0].summary.get("ceiling")
        return {view: ceiling[view] for view in ("text", "multimodal")} if ceiling else None


class Compared(NamedTuple):
    """Points on the same test rows, and their table."""

    points: list[Measured]
    table: Comparison


def run(arguments: list[str]) -> int:
    """Train what is not trained yet, and write what follows from it; status 1 where a point failed.

    Raises:
        ConfigError: the study file, or an option, cannot work.
    """
    parser = CommandParser(
        prog="mmib study",
        description="Train every combination of named settings and seeds, and compare them. Finished runs are never "
        "repeated, and the same command goes on with a study that was interrupted.",
    )
    parser.add_argument("file", type=Path, help="study file, such as experiments/ablations/study.yaml")
    parser.add_argument("--experiment", nargs="+", help="only these of the file's experiments")
    parser.add_argument("--seeds", nargs="+", type=int, help="in place of the file's")
    parser.add_argument("--runs", type=Path, default=Path("runs/study"), help="folder of all studies (%(default)s)")
    parser.add_argument("--parallel", type=int, default=1, help="runs at a time, each with its share of the cores")
    parser.add_argument("--results", type=Path, help="copy tables and figures into this folder, named after the study")
    parser.add_argument("--only-tables", action="store_true", help="train nothing: tables of what is there")
    chosen = parser.parse_args(arguments)
    if chosen.parallel < 1:
        parser.error("--parallel must be at least 1")
    end_on_sigterm()
    plan = read_plan(chosen.file)
    plan = replace(plan, seeds=tuple(dict.fromkeys(chosen.seeds or plan.seeds)))
    if chosen.experiment:
        unknown = set(chosen.experiment) - set(plan.experiments)
        if unknown:
            choices = ", ".join(plan.experiments)
            raise ConfigError(f"{chosen.file} has no experiment {', '.join(sorted(unknown))}: choose from {choices}")
        plan = replace(plan, experiments=tuple(chosen.experiment))
    reasons = {} if chosen.only_tables else train(plan, chosen.runs, chosen.parallel)
    command = shlex.join(["mmib", "study", *arguments])
    for experiment in plan.experiments:
        folder = chosen.runs / plan.name / experiment
        if conclude(plan, experiment, chosen.runs, folder, reasons, command) and chosen.results is not None:
            keep_results(folder, chosen.results, f"{plan.name}-{experiment}")
    return int(bool(reasons))


def folder_of(runs: Path, point: Point, experiment: str, seed: int) -> Path:
    """The folder of a point's run; studies that share a point share it."""
    return runs / "points" / point.key(experiment, seed)


def train(plan: Plan, runs: Path, parallel: int) -> dict[tuple[str, str, int], str]:
    """Make the runs that are missing, seed by seed, so that a part of a study is a whole one of fewer seeds.

    Returns:
        {(experiment, point, seed): reason} of those that failed.
    """
    share_cores(parallel)
    wanted = [
        (experiment, point, seed) for seed in plan.seeds for experiment in plan.experiments for point in plan.points()
    ]
    missing = [job for job in wanted if finished_run(folder_of(runs, job[1], job[0], job[2])) is None]
    print(f"{plan.name}: {len(wanted)} runs, {len(wanted) - len(missing)} there already", flush=True)  # noqa: T201
    progress = Progress(len(missing), 0, time.monotonic())
    reasons: dict[tuple[str, str, int], str] = {}
    ending = threading.Event()
    with ThreadPoolExecutor(parallel) as pool:
        jobs = {pool.submit(_train_one, runs, *job, ending): job for job in missing}
        try:
            for job in as_completed(jobs):
                experiment, point, seed = jobs[job]
                said = f"{experiment}, {point}, seed {seed}"
                try:
                    done = job.result()
                    progress.say(f"{said}: {SPLIT} {METRIC} {100 * done.summary[SPLIT][METRIC]:.1f}")
                except PointError as error:
                    reasons[experiment, str(point), seed] = str(error)
                    progress.say(f"{said} failed: {error}")
        except BaseException:
            # The runs save what they have, for the next time.
            ending.set()
            pool.shutdown(cancel_futures=True)
            raise
    return reasons


def _train_one(runs: Path, experiment: str, point: Point, seed: int, ending: threading.Event) -> FinishedRun:
    options = [*point.command(experiment, seed), "--trainer.enable_progress_bar", "false"]
    done = run_point(options, folder_of(runs, point, experiment, seed), lambda _: ending.is_set())
    if done is None or not done.summary.get(SPLIT):
        raise PointError(f"it was not scored on {SPLIT}: a study needs that split, and --evaluate true")
    # Everything that follows comes out of the predictions.
    shutil.rmtree(done.folder / "checkpoints", ignore_errors=True)
    return done


def conclude(
    plan: Plan,
    experiment: str,
    runs: Path,
    folder: Path,
    reasons: dict[tuple[str, str, int], str],
    command: str,
) -> bool:
    """Write record, table, figure and page of one experiment's runs, and print the table.

    Returns:
        Whether there are any.
    """
    found = [
        Measured(point, [run for seed in plan.seeds if (run := finished_run(folder_of(runs, point, experiment, seed)))])
        for point in plan.points()
    ]
    measured = [own for own in found if own.runs]
    if not measured:
        print(f"{plan.name}, {experiment}: nothing was measured")  # noqa: T201
        return False
    tables = list(_comparisons(plan, measured))
    failed = {str(point): reason for (of, point, _), reason in reasons.items() if of == experiment}
    record = _record(plan, experiment, found, tables, failed, command)
    write_text(folder / STUDY, json.dumps(record, indent=2) + "\n")
    text = _page(record, tables)
    write_text(folder / TABLE, text)
    figure = chart(Study(folder, record))
    if figure is not None:
        charts.save([figure], folder / FIGURE)
    print(text)  # noqa: T201
    print("report: ", end="", flush=True)  # noqa: T201
    report.run([str(folder)])
    return True


def keep_results(folder: Path, results: Path, name: str) -> None:
    """Copies of what is worth keeping when the runs are gone."""
    results.mkdir(parents=True, exist_ok=True)
    for file in (TABLE, FIGURE, STUDY):
        target = results / f"{name}{Path(file).suffix}"
        shutil.copyfile(folder / file, target)
        print(f"kept: {target}")  # noqa: T201


def _comparisons(plan: Plan, measured: Sequence[Measured]) -> Iterator[Compared]:
    """Points on the same test rows, of the same levels of what the baseline leaves open, each against the baseline.

    Test rows are told apart by their text alone: under one text the images may differ, and the ceilings with them.
    """
    alike: dict[str, list[Measured]] = {}
    for own in measured:
        within = {factor: level for factor, level in own.point.levels.items() if factor not in plan.baseline}
        key = json.dumps([own.runs[0].summary["data"].get(SPLIT), within], sort_keys=True)
        alike.setdefault(key, []).append(own)
    for points in alike.values():
        baselines = [str(own.point) for own in points if plan.baseline.items() <= own.point.levels.items()]
        groups = {str(own.point): own.runs for own in points}
        yield Compared(points, compare(groups, SPLIT, METRIC, baselines[0] if baselines else None))


def _record(
    plan: Plan,
    experiment: str,
    found: Sequence[Measured],
    tables: Sequence[Compared],
    failed: dict[str, str],
    command: str,
) -> dict[str, Any]:
    """What `study.json` holds; scores are fractions."""
    first = next(own for own in found if own.runs).runs[0]
    rows: list[dict[str, Any]] = []
    compared = {row.name: vars(row) for compared in tables for row in compared.table.rows}
    for own in found:
        if own.runs:
            scores = {name: value for name, value in compared[str(own.point)].items() if name != "name"}
            rows.append({"point": own.point.levels, **scores, "ceilings": own.ceilings})
        else:
            reason = failed.get(str(own.point), "not trained yet")
            rows.append({"point": own.point.levels, "mean": None, "reason": reason})
    return {
        "name": f"{plan.name}: {experiment}",
        "task": first.task,
        "corpus": first.summary["corpus"],
        "split": SPLIT,
        "metric": METRIC,
        "baseline": plan.baseline,
        "factors": {name: list(levels) for name, levels in plan.factors.items()},
        "rows": rows,
        "notes": list(dict.fromkeys(note for compared in tables for note in compared.table.notes)),
        "command": command,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "versions": first.summary["versions"],
    }


def _page(record: dict[str, Any], tables: Sequence[Compared]) -> str:
    """`table.md`."""
    lines = [
        f"# {record['name']}",
        "",
        f"Corpus: {record['corpus']}. Command: `{record['command']}`. Machine: {record['machine']}. Selected on "
        f"validation, each run scored on {SPLIT} once.",
        "",
    ]
    for points, table in tables:
        levels = [own.point.levels for own in points]
        shared = {factor: level for factor, level in levels[0].items() if all(own[factor] == level for own in levels)}
        if len(tables) > 1:
            lines += [f"## {Point(shared, ())}", ""]
        ceilings = points[0].ceilings
        if ceilings:
            best = f"with text {100 * ceilings['text']:.1f}, with text and image {100 * ceilings['multimodal']:.1f}"
            lines += [f"Best possible F1 in percent: {best}.", ""]
        lines += [table.markdown(), ""]
    lines += [f"- {Point(row['point'], ())}: {row['reason']}" for row in record["rows"] if row["mean"] is None]
    return "\n".join(lines).rstrip() + "\n"
