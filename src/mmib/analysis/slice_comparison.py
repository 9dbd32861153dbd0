"""Comparison of configurations within slices of their test rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmib.analysis.comparison import Comparison, RunGrid, ScoredRun, method_notes, provenance, run_grid
from mmib.analysis.slices import FORM, FREQUENCY, IMAGE, Slice, count, match_of, slices_of, telling
from mmib.base import resampling as statistics
from mmib.base.resampling import Array
from mmib.datamodules.image_relevance import ImageRelevance
from mmib.records import TrainingItems
from mmib.runs.reader import FinishedRun
from mmib.schema import RunError
from mmib.scores import RATIOS


def compare_slices(
    groups: Mapping[str, Sequence[FinishedRun]],
    split: str = "test",
    metric: str = "f1",
    baseline: str | None = None,
    test: str = "bootstrap",
    resamples: int = statistics.RESAMPLES,
    scored: Mapping[Path, ScoredRun] | None = None,
    relevance: ImageRelevance | None = None,
) -> Comparison:
    """Compare configurations over their seeds, each against the baseline, within each part of each slice.

    All runs are sliced in the same way. Slices by training data use the first run that recorded its training rows,
    starting with the baseline. Slices by image use the relevance file, or else the relevance in the data set, or else
    the mean rank of the alignment scores of the runs that saw the posts' own images.

    Args:
        groups, split, baseline, test, resamples, scored: see `mmib.analysis.comparison.compare`.
        metric: `f1`, `precision` or `recall`.
        relevance: relevance of the posts' images, by which rows are sliced; unused if `scored` is given.

    Returns:
        A comparison with a row for each part and configuration; without rows if no slice separates the rows.

    Raises:
        RunError, TaskError: see `mmib.analysis.comparison.compare`.
        DataError: the relevance file is about other images.
    """
    if metric not in RATIOS:
        raise RunError(f"slices are not scored by {metric!r}: choose from {', '.join(RATIOS)}")
    grid = run_grid(groups, split, metric, baseline, scored, relevance)
    slices, notes = _shared_slices(grid)
    labels = grid.runs[0].labels
    counted = [count(each.posts, slices, labels) for each in grid.scored]
    parts = counted[0][0]
    kept, alone = telling(parts, counted[0][1].gold.sum(axis=1))
    above, below = (
        np.stack([RATIOS[metric](counts)[side][kept] for _, counts in counted], axis=1).astype(np.float64)
        for side in (0, 1)
    )  # (G, S, N)
    rows = []
    compared = 0
    for part, sample, ours, whole in zip(kept, _samples(above, below, resamples), above, below, strict=True):
        found, tests = grid.rows(sample, ours, whole, test)
        compared = len(tests)
        gold = int(counted[0][1].gold[part].sum())
        rows += [row.in_part(parts[part].title, gold) for row in found]
    described = [*provenance(grid.runs, split, above.shape[2])]
    described += method_notes(rows, compared, test, resamples, " within a part")
    notes += [f"no slices by {name}: {reason}" for name, reason in alone.items()]
    return Comparison(metric, baseline, rows, [*described, *grid.notes(), *notes])


def _samples(above: Array, below: Array, resamples: int) -> list[statistics.Bootstrap]:
    """Bootstrap each of G parts from (G, S, N) contributions, with the same resampled rows for all."""
    parts, runs, columns = above.shape
    if not parts:
        return []
    sample = statistics.bootstrap(above.reshape(-1, columns), below.reshape(-1, columns), resamples)
    return [sample.of(range(part * runs, (part + 1) * runs)) for part in range(parts)]


def _shared_slices(grid: RunGrid) -> tuple[list[Slice], list[str]]:
    """Return slices that apply to all runs in the same way, and notes on them."""
    training, notes = _shared_training(grid)
    match = match_of([each.posts for each in grid.scored])
    if match is not None:
        notes.append(f"{IMAGE}: rows by {match.source}")
    slices, unavailable = slices_of(grid.scored[0].posts, training, match)
    return slices, [*notes, *(f"no slices by {name}: {reason}" for name, reason in unavailable.items())]


def _shared_training(grid: RunGrid) -> tuple[TrainingItems | None, list[str]]:
    """Return the training items of the baseline, or else of the first configuration that recorded them.

    A note is added if other runs had different training items.
    """
    names = sorted(grid.places, key=lambda name: name != grid.baseline)
    runs = [(name, grid.runs[place]) for name in names for place in grid.places[name]]
    known = [(name, run.seed, training) for name, run in runs if (training := run.training()) is not None]
    if not known:
        return None, []
    name, seed, training = known[0]
    if all(other == training for _, _, other in known):
        return training, []
    return training, [f"{FORM}, {FREQUENCY}: by the training rows of {name}, seed {seed}; other runs had others"]
