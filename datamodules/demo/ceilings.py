"""The best micro-F1 that any model can expect where the true posteriors are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmib.datamodules.released import NO_RELATION


def expected_best_f1(posteriors: Sequence[dict[str, float]]) -> float:
    """Expected micro-F1 of the F1-optimal rule, given p(label) of each row or entity. A None does not count.

    F1 is 2 tp / (predicted + gold). The best answer to i is its likeliest label, right with probability p_i; whether
    to give it at all is decided over all of them together. For k answers the expected hits are largest on the k
    largest p_i, so the best of all rules is the best k of `2 sum_{i<=k} p_i / (k + E[gold])`. (A ratio of
    expectations; the expectation of the ratio differs by O(1/n).) Giving the likeliest label, None included, scores
    less; where there is no None, as for entities whose spans are certain, so does giving every label.
    """
    labels = [{label: p for label, p in row.items() if label != NO_RELATION} for row in posteriors]
    best = np.array([max(row.values(), default=0.0) for row in labels])
    gold = sum(sum(row.values()) for row in labels)
    if gold == 0.0:
        return 0.0
    hits = np.cumsum(np.sort(best)[::-1])
    answers = np.arange(1, len(best) + 1)
    return float(np.max(2.0 * hits / (answers + gold)))
