"""Detection of irrelevant images from a model's predictions, if the data set knows them: AUC of three signals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmib.base.ranking import mean_ranks
from mmib.records import Array, Record

ALL = "all"
BEST = "best possible"


@dataclass(frozen=True)
class Detection:
    """How well relevant images are distinguished from irrelevant ones.

    Attributes:
        noise: kind of the irrelevant images, or `all`.
        relevant: number of rows whose image is relevant.
        irrelevant: number of rows whose image is irrelevant.
        auc: area under the ROC curve of each of `SIGNALS`, which include the best possible one, by name; None for a
            signal that the rows do not have.
    """

    noise: str
    relevant: int
    irrelevant: int
    auc: dict[str, float | None]


def auc(positive: Array, negative: Array) -> float:
    """Compute the area under the ROC curve: the probability that a positive scores above a negative.

    A tie counts one half. The area is the Mann-Whitney statistic, with mean ranks for ties, over the number of pairs.

    Args:
        positive: (P,) scores, P > 0.
        negative: (N,) scores, N > 0.
    """
    ranks = mean_ranks(np.concatenate([positive, negative]))[: len(positive)]
    pairs_won = ranks.sum() - len(positive) * (len(positive) + 1) / 2
    return float(pairs_won / (len(positive) * len(negative)))


def image_nats(record: Record) -> float | None:
    """Return the nats per region, averaged over the image's regions; None without any."""
    nats = [value for value in record["kl_image"] if value is not None]
    return float(np.mean(nats)) if nats else None


def similarity(record: Record) -> float | None:
    """Return the similarity of text and image, as the alignment measures it."""
    value = record.get("similarity")
    return None if value is None else float(value)


def concentration(record: Record) -> float | None:
    """Return how far attention is from uniform: 1 minus its entropy over log R, averaged over the positions.

    None without attention, or for a single region.
    """
    rows = [weights for weights in record.get("attention") or () if weights is not None]
    if not rows or len(rows[0]) < 2:
        return None
    weights = np.asarray(rows, dtype=np.float64)
    entropy = -(weights * np.log(np.maximum(weights, 1e-12))).sum(axis=1)
    return float(1 - entropy.mean() / math.log(weights.shape[1]))


# Functions of a prediction that should be higher if the image is relevant.
SIGNALS: dict[str, Callable[[Record], float | None]] = {
    "KL of the image": image_nats,
    "similarity": similarity,
    "attention": concentration,
    BEST: lambda record: record["relevance_posterior"],
}


def detections(records: Sequence[Record]) -> list[Detection]:
    """Measure how well each signal separates relevant from irrelevant images.

    The first result is for irrelevant images of all kinds; if there are several kinds, one result for each follows.
    The list is empty if the data set does not know the relevance, or if all images are relevant or all are irrelevant.

    Args:
        records: predictions, as described in docs/reference/predictions.md.

    Raises:
        KeyError, TypeError, ValueError: a prediction is damaged.
    """
    known = [record for record in records if record.get("relevance_posterior") is not None]
    relevant = [record for record in known if record["noise"] is None]
    kinds: dict[str, list[Record]] = {}
    for record in known:
        if record["noise"] is not None:
            kinds.setdefault(str(record["noise"]), []).append(record)
    if not relevant or not kinds:
        return []
    everything = [record for kind in kinds.values() for record in kind]
    groups = {ALL: everything} | (dict(sorted(kinds.items())) if len(kinds) > 1 else {})
    return [_detection(name, relevant, irrelevant) for name, irrelevant in groups.items()]


def _detection(name: str, relevant: Sequence[Record], irrelevant: Sequence[Record]) -> Detection:
    areas: dict[str, float | None] = {}
    for signal, measure in SIGNALS.items():
        positive, negative = (
            np.array([value for record in records if (value := measure(record)) is not None], dtype=np.float64)
            for records in (relevant, irrelevant)
        )
        areas[signal] = auc(positive, negative) if len(positive) and len(negative) else None
    return Detection(name, len(relevant), len(irrelevant), areas)


def area_texts(areas: Mapping[str, float | None]) -> list[str]:
    """Format the areas of the signals for a table; empty for a signal that the rows do not have."""
    return ["" if area is None else f"{area:.3f}" for area in areas.values()]


def mean_auc(found: Sequence[Sequence[Detection]]) -> dict[str, float | None]:
    """Return the AUC of each signal over irrelevant images of all kinds, averaged over runs; empty if a run has none.

    Args:
        found: the `detections` of each run.
    """
    if not all(found):
        return {}
    means: dict[str, float | None] = {}
    for signal in SIGNALS:
        areas = [each[0].auc[signal] for each in found]
        known = [area for area in areas if area is not None]
        means[signal] = float(np.mean(known)) if len(known) == len(areas) else None
    return means
