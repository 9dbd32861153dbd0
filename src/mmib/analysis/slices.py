"""Scores by slice: parts of the predictions that are set apart by what is known of their posts and of the training."""

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

# Upper ends of the bands; the last band is open.
WORDS = (12, 18)
TRAINING_ROWS = (50, 200)
RESAMPLES = 1000

FORM, IMAGE, FREQUENCY, LENGTH = "surface form", "image", "label frequency", "length"
SEEN, UNSEEN = "seen in training", "never seen"
# Parts by the image, the better one first, by what is known of how well it fits.
RELEVANT = ("relevant", "irrelevant")
BY_RELEVANCE = ("more relevant half", "less relevant half")
BY_ALIGNMENT = ("more aligned half", "less aligned half")

# Kinds of errors, as tables name them.
ERRORS = {
    "exact": "exact",
    "wrong_label": "right span, wrong label",
    "other_span": "overlapping span",
    "missed": "missed",
    "spurious": "spurious",
}


class SlicedPost(NamedTuple):
    """What slices have to know of a prediction.

    Attributes:
        row: its row.
        gold: what is gold, the negative label included.
        predicted: what was predicted.
        words: number of the post's words; None where the file does not tell.
        relevance: of the post's image, by a file of relevance scores.
        relevant: whether the post's image is, where the data set knows.
        similarity: of text and image, as the model's alignment measures it.
    """

    row: int
    gold: list[Item]
    predicted: list[Item]
    words: int | None = None
    relevance: float | None = None
    relevant: bool | None = None
    similarity: float | None = None


def sliced_posts(task: Task, labels: LabelSet, records: Sequence[Record], own_images: bool = True) -> list[SlicedPost]:
    """Records of predictions as slices need them, in order of row.

    Args:
        task: the task.
        labels: the label set.
        records: predictions with gold.
        own_images: whether the model saw the posts' own images; of others the similarity says nothing of the post.

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
    """What a record of a post that was read with its own image tells of how well the image fits."""
    known = record.get("relevance_posterior") is not None
    scores = {name: record.get(name) for name in ("relevance", "similarity")}
    return {
        "relevant": record["noise"] is None if known else None,
        **{name: None if value is None else float(value) for name, value in scores.items()},
    }


def rated(run: FinishedRun, records: Sequence[Record], relevance: ImageRelevance | None) -> Sequence[Record]:
    """Records with the relevance of their images, where a file is given and the run saw the posts' own images.

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
        scores: by row, of the rows for which it is known; only their order matters.
        source: where they are from, for people.
        groups: names of the upper and the lower half of the rows by them.
    """

    scores: Mapping[int, float]
    source: str
    groups: tuple[str, str]


def match_of(runs: Sequence[Sequence[SlicedPost]]) -> Match | None:
    """How well the images of rows fit; None where nothing tells.

    By the relevance scores, or else by what the data set knows, where it has relevant and irrelevant ones, or else by
    the alignment of the runs. Over several runs it is the mean of a row's ranks in each of them.

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
    """One way to set predictions apart.

    Attributes:
        name: what by.
        groups: names of the parts, in order.
        group_of: the part that an item of a post belongs to; None for none. Asked for the post itself, without an
            item, a slice of items answers None.
    """

    name: str
    groups: tuple[str, ...]
    group_of: Callable[[SlicedPost, Item | None], str | None]


def slices_of(
    posts: Sequence[SlicedPost], training: TrainingItems | None, match: Match | None
) -> tuple[list[Slice], dict[str, str]]:
    """The slices that can be made, and {slice: reason} of those that cannot.

    Args:
        posts: predictions.
        training: what the model was trained on, where that is known.
        match: how well images fit, where that is known.
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
        rows: number of rows that belong to it, or that have an item that does.
    """

    slice: str
    name: str
    rows: int

    @property
    def title(self) -> str:
        """Both names."""
        return f"{self.slice}: {self.name}"


def count(posts: Sequence[SlicedPost], slices: Sequence[Slice], labels: LabelSet) -> tuple[list[Group], Counts]:
    """The parts of slices, and what each row adds to their correct, predicted and gold items, (G, N) each.

    An item belongs where the slice says, a predicted one by its own surface form and label; the negative label counts
    in no score.
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
    """Places of the parts that are not empty, and {slice: reason} of the slices that set nothing apart.

    Args:
        groups: the parts.
        gold: (G,) number of gold items of each.
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
    """How many gold items were found, and in which ways others were not.

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
    """Means of `errors` over runs as a table shows them, in the order of `ERRORS`."""
    return [f"{found[name]:,.1f}".removesuffix(".0") for name in ERRORS]


def breakdown(
    task: Task, labels: LabelSet, records: Sequence[Record], training: TrainingItems | None, own_images: bool = True
) -> dict[str, Any]:
    """Scores by slice, kinds of errors and what confidence is worth, as `summary.json` holds them.

    Args:
        task: the task.
        labels: the label set.
        records: predictions of a split, with gold.
        training: what the model was trained on, where that is known.
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
