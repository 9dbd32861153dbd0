"""The best micro-F1 that any model can expect on rows whose true posteriors are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmib.schema import NO_RELATION


def expected_best_f1(posteriors: Sequence[dict[str, float]]) -> float:
    """Expected micro-F1 (None does not count) of the F1-optimal rule.

    F1 is 2 tp / (predicted + gold). A row's best answer is its likeliest relation, right with probability p_i; whether
    to give it at all is decided over all rows together. For k answers the expected hits are largest on the k largest
    p_i, so the best of all rules is the best k of `2 sum_{i<=k} p_i / (k + E[gold])`. (A ratio of expectations; the
    expectation of the ratio differs by O(1/n).) Predicting the likeliest class, None included, scores less.
    """
    relations = [{label: p for label, p in row.items() if label != NO_RELATION} for row in posteriors]
    best = np.array([max(row.values(), default=0.0) for row in relations])
    gold = sum(sum(row.values()) for row in relations)
    if gold == 0.0:
        return 0.0
    hits = np.cumsum(np.sort(best)[::-1])
    answers = np.arange(1, len(best) + 1)
    return float(np.max(2.0 * hits / (answers + gold)))
