"""The report on several runs, side by side."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmib.analysis.report.history import Curves, differing, settings, shortened
from mmib.analysis.report.page import Section, grid, note, table
from mmib.analysis.report.posts import Post, read_post, verdict
from mmib.analysis.report.single import SPLITS, heading, headings, percent
from mmib.analysis.report.training import TrainingCharts
from mmib.analysis.slice_comparison import compare_slices
from mmib.charts import Mark, Series, dot_plot, key, line_chart
from mmib.charts.markup import Html, element, join
from mmib.datamodules.image_relevance import ImageRelevance
from mmib.labels import difference
from mmib.runs.reader import FinishedRun
from mmib.schema import RunError

# Maximum number of runs to compare post by post, and of posts shown.
MOST_RUNS, MOST_POSTS = 6, 25
# What distinguishes runs with the same settings, from the number of a run among them and the run.
TRAINING_DATA = "training data"
ORIGINS: dict[str, Callable[[int, FinishedRun], str]] = {
    TRAINING_DATA: lambda _, run: run.training_data[:12],
    "code": lambda _, run: str((run.summary.get("versions") or {}).get("code", "unknown"))[:12],
    "run": lambda number, run: f"{number} ({run.folder.resolve().name})",
}
# Number of distinguishable colours.
COLOURS = 8
CURVES = {
    "val/f1": "F1, validation",
    "val/loss": "Loss, validation",
    "val/ib/kl_text": "KL of text, nats a word piece",
    "val/ib/kl_image": "KL of image, nats a region",
    "val/align/mi_bound": "Bound on I(text; image), nats",
    "val/align/gap": "Modality gap",
    "val/latent/effective_rank_image": "Effective rank of the image latents",
    "val/latent/own_image_share": "Rank of the own image, share of the candidates",
}


@dataclass(frozen=True)
class Group:
    """Repetitions: runs of distinct seeds with the same settings and training data.

    Attributes:
        name: name of the experiment, with what distinguishes it from others of the same name.
        runs: one or more runs.
        options: settings of the first run.
        style: CSS class of the group's colour.
    """

    name: str
    runs: list[FinishedRun]
    options: dict[str, str]
    style: str

    def mean(self, split: str, score: str) -> tuple[float, float | None]:
        """Return mean and sample standard deviation of a score in percent; no deviation for a single run."""
        values = [100 * float(run.summary[split][score]) for run in self.runs]
        return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def sections(runs: Sequence[FinishedRun], relevance: ImageRelevance | None = None) -> list[Section]:
    """Return all sections of the report on several runs.

    Args:
        runs: the runs.
        relevance: relevance of the posts' images, by which scores are split.

    Raises:
        DataError: the relevance file is about other images.
        RunError: the runs have different tasks or labels, or were scored on different data.
        TaskError: their task is not registered.
    """
    split = _common_split(runs)
    options = [settings(run.config()) for run in runs]
    groups = _groups(runs, options, split)
    disagreements = _disagreements(runs, split)
    return [
        Section("scores", "Scores", "", _scores(groups, split)),
        Section("slices", "Slices", *_slices(groups, split, relevance)),
        Section("curves", "Curves", "One line per run, one colour per experiment.", _curves(groups)),
        Section("differences", "Settings that differ", "", _differences(groups)),
        *([] if disagreements is None else [Section("posts", "Posts on which they disagree", *disagreements)]),
    ]


def _common_split(runs: Sequence[FinishedRun]) -> str:
    first = runs[0]
    for run in runs:
        if run.task != first.task:
            tasks = f"{first.folder} is {first.task}, {run.folder} is {run.task}"
            raise RunError(f"runs of different tasks cannot be compared: {tasks}; name runs of one task")
        if differing := difference(first.labels, run.labels):
            raise RunError(
                f"runs of different labels cannot be compared: {first.folder} and {run.folder} have {differing}; name "
                "runs of one label set"
            )
    split = next((split for split in SPLITS if all(run.summary.get(split) for run in runs)), None)
    if split is None:
        raise RunError("the runs share no split that all of them were scored on: score them with mmib test or validate")
    for run in runs:
        if run.fingerprint(split) != first.fingerprint(split):
            raise _other_data(first, run, split)
    return split


def _other_data(first: FinishedRun, other: FinishedRun, split: str) -> RunError:
    return RunError(
        f"{first.folder} and {other.folder} were scored on different {SPLITS[split]} sets: compare them apart"
    )


def _groups(runs: Sequence[FinishedRun], options: Sequence[dict[str, str]], split: str) -> list[Group]:
    """Group repetitions; experiments with the same name are distinguished by the settings in which they differ."""
    names = []
    for run in runs:
        namesakes = [other for other, namesake in zip(options, runs, strict=True) if namesake.name == run.name]
        chosen = options[runs.index(run)]
        parts = [f"{name.rpartition('.')[2]} {chosen.get(name, 'unset')}" for name in differing(namesakes)]
        # A name that all runs share does not distinguish them.
        names.append(", ".join([run.name, *parts] if len(namesakes) < len(runs) or not parts else parts))
    names = _distinguished(names, runs)
    together = _together(names, runs)
    order = list(together)
    if len(order) > COLOURS:
        # The best experiments get a colour each; all others share the last colour.
        best = {name: max(run.summary[split]["f1"] for run in members) for name, members in together.items()}
        order.sort(key=lambda name: -best[name])
    styles = {name: f"c{min(place, COLOURS - 1)}" for place, name in enumerate(order)}
    own_options = dict(zip(reversed(names), reversed(options), strict=True))
    return [Group(name, members, own_options[name], styles[name]) for name, members in together.items()]


def _distinguished(names: list[str], runs: Sequence[FinishedRun]) -> list[str]:
    """Extend the names of runs that are no repetitions: by training data, and for a repeated seed by code or folder."""
    for origin, value_of in ORIGINS.items():
        extended: dict[Path, str] = {}
        for name, members in _together(names, runs).items():
            repeated = len({run.seed for run in members}) < len(members)
            values = [value_of(number, run) for number, run in enumerate(members, 1)]
            if (repeated or origin == TRAINING_DATA) and len(set(values)) > 1:
                extended |= {
                    run.folder: f"{name}, {origin} {value}" for run, value in zip(members, values, strict=True)
                }
        names = [extended.get(run.folder, name) for name, run in zip(names, runs, strict=True)]
    return names


def _together(names: Sequence[str], runs: Sequence[FinishedRun]) -> dict[str, list[FinishedRun]]:
    """Group runs by name."""
    together: dict[str, list[FinishedRun]] = {}
    for name, run in zip(names, runs, strict=True):
        together.setdefault(name, []).append(run)
    return together


def _scores(groups: Sequence[Group], split: str) -> Html:
    marks = []
    for group in groups:
        mean, deviation = group.mean(split, "f1")
        error = deviation if deviation is not None else 100 * float(group.runs[0].summary[split].get("f1_se", 0.0))
        marks.append(Mark(group.name, mean, max(0.0, mean - error), min(100.0, mean + error), style=group.style))
    bars = (
        "Bars: one standard deviation over the seeds to each side; of an experiment with a single seed, one bootstrap "
        "standard error. mmib aggregate tests whether differences are significant."
    )
    names = [
        name
        for name in headings(groups[0].runs[0].summary[split])
        if all(name in run.summary[split] for group in groups for run in group.runs)
    ]
    rows = [
        [group.name, str(len(group.runs)), *(_mean(*group.mean(split, name)) for name in names)] for group in groups
    ]
    runs = [
        [
            element("span", f"{group.name}, seed {run.seed}", title=run.folder.resolve().name),
            *(percent(float(run.summary[split][name])) for name in names),
        ]
        for group in groups
        for run in group.runs
    ]
    columns = [heading(name) for name in names]
    return join(
        [
            dot_plot(f"F1, {SPLITS[split]}", marks, note=bars).html,
            table(["experiment", "runs", *columns], rows, f"{SPLITS[split].capitalize()} scores in percent, mean ± sd"),
            element(
                "details",
                element("summary", f"All {len(runs)} runs"),
                table(["run", *columns], runs, "Scores of each run in percent"),
            ),
        ]
    )


def _mean(mean: float, deviation: float | None) -> str:
    return f"{mean:.1f}" if deviation is None else f"{mean:.1f} ± {deviation:.1f}"


def _slices(groups: Sequence[Group], split: str, relevance: ImageRelevance | None) -> tuple[str, Html]:
    """Return scores by slice; of several experiments, each is tested against the first."""
    baseline = groups[0].name if len(groups) > 1 else None
    try:
        by_name = {group.name: group.runs for group in groups}
        compared = compare_slices(by_name, split, baseline=baseline, relevance=relevance)
    except RunError as error:
        return "", note(f"Slices cannot be compared: {shortened(str(error))}.")
    headings, *rows = compared.cells()
    shown = table(headings, rows, "Scores by slice") if rows else Html()
    notes = element("ul", [element("li", line) for line in compared.notes])
    reading = f"F1 on the parts of the {SPLITS[split]} split defined by properties of training data and posts" + (
        f"; each experiment is tested against {baseline} within each part." if baseline is not None else "."
    )
    return reading, join([shown, notes])


def _curves(groups: Sequence[Group]) -> Html:
    shared = f"c{COLOURS - 1}" if len(groups) > COLOURS else None
    logged = [
        ("the others" if group.style == shared else group.name, group.style, Curves(run))
        for group in groups
        for run in group.runs
    ]
    drawn = [
        line_chart(
            title,
            [Series(label, curves[name], style, dots=False) for label, style, curves in logged],
            "optimiser steps",
            keyed=False,
        )
        for name, title in (CURVES | _further([curves for _, _, curves in logged])).items()
    ]
    shown = grid(*drawn)
    if shown is None:
        return note("None of these runs logged a curve.")
    return join([key({label: style for label, style, _ in logged}) or Html(), shown])


def _further(logged: Sequence[Curves]) -> dict[str, str]:
    """Return the validation curves that the method itself does not log, such as scalars of a custom fusion."""
    names = {name for curves in logged for name in TrainingCharts(curves).rest}
    return {f"val/{name}": f"{name}, validation" for name in sorted(names)}


def _differences(groups: Sequence[Group]) -> Html:
    names = differing([group.options for group in groups])
    if not names:
        return note("The settings of these runs differ in their seeds only.")
    rows = [[name, *(group.options.get(name, "unset") for group in groups)] for name in names]
    return table(["setting", *(group.name for group in groups)], rows, "Settings by experiment", numbers=False)


def _disagreements(runs: Sequence[FinishedRun], split: str) -> tuple[str, Html] | None:
    """Return the posts that some runs get right and others wrong; None if that is unknown."""
    if len(runs) > MOST_RUNS or not all(run.has_predictions(split) for run in runs):
        return None
    by_run = [{record["id"]: record for record in run.predictions(split)} for run in runs]
    if any(not {"gold", "words"} <= record.keys() for records in by_run for record in records.values()):
        return None
    gold = [{row: record["gold"] for row, record in records.items()} for records in by_run]
    for run, found in zip(runs, gold, strict=True):
        if found != gold[0]:
            raise _other_data(runs[0], run, split)
    task, labels = runs[0].registered_task(), runs[0].labels
    divided = _most_divided([read_post(task, labels, records[row]) for records in by_run] for row in sorted(by_run[0]))
    if not divided:
        return "", note("Every post is right in all of these runs, or wrong in all.")
    shown = [
        [
            str(posts[0].record["id"]),
            element("span", element("bdi", " ".join(map(str, posts[0].record["words"]))), class_="post-text"),
            posts[0].answer.gold,
            *(element("span", post.answer.predicted, class_=f"label {verdict(post.answer.right)}") for post in posts),
        ]
        for posts in divided[:MOST_POSTS]
    ]
    heads = [f"{run.name}, seed {run.seed}" for run in runs]
    reading = (
        f"{len(shown)} of the {len(divided):,} posts that some runs get right and others wrong, the most divided first."
    )
    return reading, table(["row", "post", "gold", *heads], shown, "Answers by run", numbers=False)


def _most_divided(rows: Iterable[list[Post]]) -> list[list[Post]]:
    """Return the rows that some runs get right and others wrong, the most divided first.

    Each row has one post per run.
    """
    counted = [(sum(post.answer.right for post in posts), posts) for posts in rows]
    divided = [(right, posts) for right, posts in counted if 0 < right < len(posts)]
    return [posts for _, posts in sorted(divided, key=lambda row: abs(row[0] - len(row[1]) / 2))]
