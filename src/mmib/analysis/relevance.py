"""How far what a model makes of an image tells if it is relevant, where the data set knows: AUC of three signals."""

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
        noise: what the irrelevant images are: one of the kinds, or `all` of them.
        relevant: number of rows whose image is relevant.
        irrelevant: number of rows whose image is not.
        auc: area under the ROC curve of each of `SIGNALS` and of the best possible one, by name; None for a signal that
            the rows do not have.
    """

    noise: str
    relevant: int
    irrelevant: int
    auc: dict[str, float | None]


def auc(positive: Array, negative: Array) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, where a tie counts one half.

    It is the Mann-Whitney statistic over the number of pairs, from the mean ranks of tied scores.

    Args:
        positive: (P,) scores, P > 0.
        negative: (N,) scores, N > 0.
    """
    ranks = mean_ranks(np.concatenate([positive, negative]))[: len(positive)]
    pairs_won = ranks.sum() - len(positive) * (len(positive) + 1) / 2
    return float(pairs_won / (len(positive) * len(negative)))


def image_nats(record: Record) -> float | None:
    """Nats of a region, mean over the image's regions."""
    nats = [value for value in record["kl_image"] if value is not None]
    return float(np.mean(nats)) if nats else None


def similarity(record: Record) -> float | None:
    """Similarity of text and image, as the alignment measures it."""
    value = record.get("similarity")
    return None if value is None else float(value)


def concentration(record: Record) -> float | None:
    """How far attention is from even: 1 minus its entropy over log R, mean over the positions; None for one region."""
    rows = [weights for weights in record.get("attention") or () if weights is not None]
    if not rows or len(rows[0]) < 2:
        return None
    weights = np.asarray(rows, dtype=np.float64)
    entropy = -(weights * np.log(np.maximum(weights, 1e-12))).sum(axis=1)
    return float(1 - entropy.mean() / math.log(weights.shape[1]))


# Of a prediction: what should be higher where the image is relevant.
SIGNALS: dict[str, Callable[[Record], float | None]] = {
    "KL of the image": image_nats,
    "similarity": similarity,
    "attention": concentration,
    BEST: lambda record: record["relevance_posterior"],
}


def detections(records: Sequence[Record]) -> list[Detection]:
    """How well each signal tells relevant from irrelevant images: of all kinds, then of each where there are several.

    Empty where the data set does not know, or all images are relevant, or none is.

    Args:
        records: predictions, as docs/reference/predictions.md describes them.

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
    """The areas of the signals as a table shows them; empty for a signal that the rows do not have."""
    return ["" if area is None else f"{area:.3f}" for area in areas.values()]


def mean_auc(found: Sequence[Sequence[Detection]]) -> dict[str, float | None]:
    """AUC of each signal over irrelevant images of all kinds, mean over runs; empty where one does not know it.

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
