"""The best expected micro-F1 of any model, computed from the true posteriors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmib.datamodules.released import NO_RELATION


def expected_best_f1(posteriors: Sequence[dict[str, float]]) -> float:
    """Return the expected micro-F1 of the F1-optimal decision rule, given p(label) of each row or entity.

    The negative class, `None`, does not count. F1 is 2 tp / (predicted + gold). The best prediction for i is its most
    likely label, which is correct with probability p_i; whether to predict it at all depends on all rows together. For
    k predictions, the expected number of hits is largest for the k largest p_i, so the optimal rule uses the k that
    maximises `2 sum_{i<=k} p_i / (k + E[gold])`. (This is a ratio of expectations; the expectation of the ratio differs
    by O(1/n).) Predicting the most likely label, `None` included, scores less; without `None`, as for entities whose
    spans are certain, so does predicting every label.
    """
    labels = [{label: p for label, p in row.items() if label != NO_RELATION} for row in posteriors]
    best = np.array([max(row.values(), default=0.0) for row in labels])
    gold = sum(sum(row.values()) for row in labels)
    if gold == 0.0:
        return 0.0
    hits = np.cumsum(np.sort(best)[::-1])
    answers = np.arange(1, len(best) + 1)
    return float(np.max(2.0 * hits / (answers + gold)))
