"""Scores by slice: parts of the predictions, defined by properties of their posts and of the training data."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmib.analysis.calibration import calibration, risk_coverage
from mmib.base.ranking import mean_ranks
from mmib.base.resampling import bootstrap
from mmib.datamodules.image_relevance import ImageRelevance
from mmib.labels import LabelSet
from mmib.records import Item, Record, TrainingItems
from mmib.runs.reader import FinishedRun
from mmib.schema import Task
from mmib.scores import RATIOS, Counts, Scores

# Upper ends of the bands; the last band has no upper end.
WORDS = (12, 18)
TRAINING_ROWS = (50, 200)
RESAMPLES = 1000

FORM, IMAGE, FREQUENCY, LENGTH = "surface form", "image", "label frequency", "length"
SEEN, UNSEEN = "seen in training", "never seen"
# Parts of the image slice, by the source of the relevance; the better part comes first.
RELEVANT = ("relevant", "irrelevant")
BY_RELEVANCE = ("more relevant half", "less relevant half")
BY_ALIGNMENT = ("more aligned half", "less aligned half")

# Kinds of errors, with their names in tables.
ERRORS = {
    "exact": "exact",
    "wrong_label": "right span, wrong label",
    "other_span": "overlapping span",
    "missed": "missed",
    "spurious": "spurious",
}


class SlicedPost(NamedTuple):
    """The parts of a prediction that slices need.

    Attributes:
        row: row id of the post.
        gold: the gold items, including those of the negative label.
        predicted: the predicted items.
        words: number of the post's words; None if the file does not hold them.
        relevance: relevance of the post's image, from a file of relevance scores.
        relevant: whether the post's image is relevant; None if the data set does not know.
        similarity: similarity of text and image, as the model's alignment measures it.
    """

    row: int
    gold: list[Item]
    predicted: list[Item]
    words: int | None = None
    relevance: float | None = None
    relevant: bool | None = None
    similarity: float | None = None


def sliced_posts(task: Task, labels: LabelSet, records: Sequence[Record], own_images: bool = True) -> list[SlicedPost]:
    """Convert records of predictions to the form that slices need, in order of row.

    Args:
        task: the task.
        labels: the label set.
        records: predictions with gold.
        own_images: whether the model saw the posts' own images; the similarity to another image is not informative.

    Raises:
        ValueError, KeyError, TypeError, IndexError: a record is damaged.
    """
    posts = []
    for record in sorted(records, key=lambda record: int(record["id"])):
        words = record.get("words")
        posts.append(
            SlicedPost(
                record["id"],
                *task.items(record, labels),
                None if words is None else len(words),
                **(_evidence(record) if own_images else {}),
            )
        )
    return posts


def _evidence(record: Record) -> dict[str, Any]:
    """Return what the record of a post with its own image contains about the image's relevance."""
    known = record.get("relevance_posterior") is not None
    scores = {name: record.get(name) for name in ("relevance", "similarity")}
    return {
        "relevant": record["noise"] is None if known else None,
        **{name: None if value is None else float(value) for name, value in scores.items()},
    }


def rated(run: FinishedRun, records: Sequence[Record], relevance: ImageRelevance | None) -> Sequence[Record]:
    """Add the relevance of their images to records, if a file is given and the run saw the posts' own images.

    Raises:
        DataError: the file has the relevance of none of the images.
    """
    if relevance is None or not run.own_images:
        return records
    paths = {record["image"]: PurePosixPath(record["image"]).name for record in records if record.get("image")}
    relevance.check_common([*paths, *paths.values()], f"the run {run.folder}")
    scores = {
        path: relevance.of(path) if (score := relevance.of(name)) is None else score for path, name in paths.items()
    }
    return [{**record, "relevance": scores.get(record.get("image"))} for record in records]


class Match(NamedTuple):
    """How well images fit their texts.

    Attributes:
        scores: score by row, for the rows for which it is known; only their order matters.
        source: source of the scores, in words.
        groups: names of the upper and the lower half of the rows.
    """

    scores: Mapping[int, float]
    source: str
    groups: tuple[str, str]


def match_of(runs: Sequence[Sequence[SlicedPost]]) -> Match | None:
    """Return how well the images of rows fit their texts; None if unknown.

    Use the relevance scores, or else the relevance in the data set if it has both relevant and irrelevant images, or
    else the alignment scores of the runs. With several runs, the score of a row is its mean rank over the runs.

    Args:
        runs: posts of runs on the same rows, which saw the posts' own images.
    """
    for name, source, groups in (
        ("relevance", "the relevance file", BY_RELEVANCE),
        ("relevant", "what the data set knows", RELEVANT),
        ("similarity", "the alignment score", BY_ALIGNMENT),
    ):
        ranks: dict[int, list[float]] = {}
        for posts in runs:
            known = [(post.row, value) for post in posts if (value := getattr(post, name)) is not None]
            values = mean_ranks(np.array([value for _, value in known], dtype=np.float64)) / max(1, len(known))
            for (row, _), rank in zip(known, values.tolist(), strict=True):
                ranks.setdefault(row, []).append(rank)
        scores = {row: float(np.mean(found)) for row, found in ranks.items()}
        if scores and (name != "relevant" or len(set(scores.values())) > 1):
            return Match(scores, source, groups)
    return None


@dataclass(frozen=True)
class Slice:
    """One way to divide predictions into parts.

    Attributes:
        name: the property by which predictions are divided.
        groups: names of the parts, in order.
        group_of: function that returns the part that an item of a post belongs to, or None. Called without an item,
            it returns the part of the post itself, and None in a slice by items.
    """

    name: str
    groups: tuple[str, ...]
    group_of: Callable[[SlicedPost, Item | None], str | None]


def slices_of(
    posts: Sequence[SlicedPost], training: TrainingItems | None, match: Match | None
) -> tuple[list[Slice], dict[str, str]]:
    """Return the available slices, and {slice: reason} for those that are unavailable.

    Args:
        posts: predictions.
        training: the items that the model was trained on, if known.
        match: how well images fit, if known.
    """
    items = [item for post in posts for item in (*post.gold, *post.predicted)]
    unavailable = {}
    found = []
    if training is None:
        unavailable[FORM] = unavailable[FREQUENCY] = "the run has no training.json"
    elif not any(item.form for item in items):
        unavailable[FORM] = "the predictions name no entities"
    else:
        found.append(_by_form(training))
    if match is None:
        unavailable[IMAGE] = "no row has a relevance or an alignment score of its image"
    else:
        found.append(_by_image(match))
    if training is not None:
        found.append(_by_frequency(training))
    if all(post.words is None for post in posts):
        unavailable[LENGTH] = "the predictions hold no words"
    else:
        found.append(_by_length())
    return found, unavailable


def _by_form(training: TrainingItems) -> Slice:
    def group_of(post: SlicedPost, item: Item | None) -> str | None:
        return None if item is None or not item.form else SEEN if item.form in training.forms else UNSEEN

    return Slice(FORM, (SEEN, UNSEEN), group_of)


def _by_image(match: Match) -> Slice:
    rows = list(match.scores)
    ranks = mean_ranks(np.array([match.scores[row] for row in rows]))
    upper = dict(zip(rows, (ranks > (len(rows) + 1) / 2).tolist(), strict=True))

    def group_of(post: SlicedPost, item: Item | None) -> str | None:
        return None if post.row not in upper else match.groups[not upper[post.row]]

    return Slice(IMAGE, match.groups, group_of)


def _by_frequency(training: TrainingItems) -> Slice:
    names = _bands(TRAINING_ROWS, "in training")

    def group_of(post: SlicedPost, item: Item | None) -> str | None:
        return None if item is None else _band(training.labels.get(item.label, 0), TRAINING_ROWS, names)

    return Slice(FREQUENCY, names, group_of)


def _by_length() -> Slice:
    names = _bands(WORDS, "words")

    def group_of(post: SlicedPost, item: Item | None) -> str | None:
        return None if post.words is None else _band(post.words, WORDS, names)

    return Slice(LENGTH, names, group_of)


def _bands(ends: Sequence[int], unit: str) -> tuple[str, ...]:
    between = (f"{low + 1} to {high} {unit}" for low, high in itertools.pairwise(ends))
    return (f"up to {ends[0]} {unit}", *between, f"over {ends[-1]} {unit}")


def _band(value: int, ends: Sequence[int], names: Sequence[str]) -> str:
    return names[sum(value > end for end in ends)]


class Group(NamedTuple):
    """A part of a slice.

    Attributes:
        slice: name of the slice.
        name: name of the part.
        rows: number of rows that belong to the part or have an item in it.
    """

    slice: str
    name: str
    rows: int

    @property
    def title(self) -> str:
        """Names of slice and part."""
        return f"{self.slice}: {self.name}"


def count(posts: Sequence[SlicedPost], slices: Sequence[Slice], labels: LabelSet) -> tuple[list[Group], Counts]:
    """Return the parts of slices, and each row's numbers of correct, predicted and gold items in them, (G, N) each.

    The slice assigns each item to a part, predicted items by their own surface form and label. Items of the negative
    label are not counted.
    """
    places = {pair: place for place, pair in enumerate((each.name, name) for each in slices for name in each.groups)}
    rows = [0] * len(places)
    counts = Counts(*(np.zeros((len(places), len(posts)), dtype=np.int64) for _ in Counts._fields))
    for column, post in enumerate(posts):
        parts = {"gold": set(post.gold), "predicted": set(post.predicted)}
        parts["correct"] = parts["gold"] & parts["predicted"]
        for each in slices:
            found = {each.group_of(post, None)}
            for name, items in parts.items():
                for item in items:
                    group = each.group_of(post, item)
                    found.add(group)
                    if group is not None and item.label != labels.negative:
                        getattr(counts, name)[places[each.name, group], column] += 1
            for group in found:
                if group is not None:
                    rows[places[each.name, group]] += 1
    return [Group(*pair, rows[place]) for pair, place in places.items()], counts


def telling(groups: Sequence[Group], gold: NDArray[np.int64]) -> tuple[NDArray[np.intp], dict[str, str]]:
    """Return the indices of the parts to show, and {slice: reason} for slices whose items are all in one part.

    Parts without gold items and parts of such slices are not shown.

    Args:
        groups: the parts.
        gold: (G,) number of gold items of each part.
    """
    filled = [place for place in range(len(groups)) if gold[place]]
    parts = Counter(groups[place].slice for place in filled)
    alone = {
        groups[place].slice: f"all belong to one part, {groups[place].name!r}"
        for place in filled
        if parts[groups[place].slice] == 1
    }
    return np.array([place for place in filled if groups[place].slice not in alone], dtype=np.intp), alone


def errors(posts: Sequence[SlicedPost], labels: LabelSet) -> dict[str, int]:
    """Count gold items by how they were predicted, and spurious predictions.

    Returns:
        The `ERRORS`: gold items that are `exact`, have the `wrong_label` at the right span, were predicted with an
        overlapping `other_span`, or were `missed`; and `spurious`, predicted items that overlap no gold one.
    """
    found = dict.fromkeys(ERRORS, 0)
    for post in posts:
        gold, predicted = (
            [item for item in items if item.label != labels.negative] for items in (post.gold, post.predicted)
        )
        spans = {item.span for item in predicted}
        for item in gold:
            if item in predicted:
                found["exact"] += 1
            elif item.span in spans:
                found["wrong_label"] += 1
            else:
                found["other_span" if any(item.overlaps(other) for other in predicted) else "missed"] += 1
        found["spurious"] += sum(not any(item.overlaps(other) for other in gold) for item in predicted)
    return found


def error_texts(found: Mapping[str, float]) -> list[str]:
    """Format means of `errors` over runs for a table, in the order of `ERRORS`."""
    return [f"{found[name]:,.1f}".removesuffix(".0") for name in ERRORS]


def breakdown(
    task: Task, labels: LabelSet, records: Sequence[Record], training: TrainingItems | None, own_images: bool = True
) -> dict[str, Any]:
    """Return scores by slice, kinds of errors and calibration, in the form of `summary.json`.

    Args:
        task: the task.
        labels: the label set.
        records: predictions of a split, with gold.
        training: the items that the model was trained on, if known.
        own_images: see `sliced_posts`.

    Raises:
        ValueError, KeyError, TypeError, IndexError: a record is damaged.
    """
    posts = sliced_posts(task, labels, records, own_images)
    match = match_of([posts])
    slices, unavailable = slices_of(posts, training, match)
    groups, counts = count(posts, slices, labels)
    chosen, alone = telling(groups, counts.gold.sum(axis=1))
    counts = Counts(*(part[chosen] for part in counts))
    above, below = RATIOS["f1"](counts)
    spread = bootstrap(above, below, RESAMPLES).resampled.std(axis=0, ddof=1) if len(chosen) else []
    judged = task.judge(records, labels)
    trust, risk = calibration(judged), risk_coverage(judged)
    return {
        "groups": [
            {
                "slice": group.slice,
                "group": group.name,
                "rows": group.rows,
                **dict(zip(Counts._fields, sums, strict=True)),
                **asdict(Scores.from_counts(*sums)),
                "f1_se": float(error),
            }
            for group, sums, error in zip(
                (groups[place] for place in chosen),
                zip(*(part.sum(axis=1).tolist() for part in counts), strict=True),
                spread,
                strict=True,
            )
        ],
        "image_by": match.source if match is not None else None,
        "unavailable": unavailable | alone,
        "errors": errors(posts, labels),
        "calibration_error": trust.error if trust is not None else None,
        "risk_coverage": {"area": risk.area, "curve": risk.curve} if risk is not None else None,
    }
