"""Intervals and paired tests, against scipy, by enumeration and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mmib.metrics import RelationScores
from mmib.statistics import (
    Array,
    standard_error,
)

Parts = tuple[Array, Array]


def parts(seed: int, rows: int, runs: int = 1, skill: float = 0.7) -> Parts:
    """F1 parts of runs that find a share of 0 to 3 gold items a row and predict some that are none."""
    random = np.random.default_rng(seed)
    gold = np.broadcast_to(np.random.default_rng(0).integers(0, 4, size=rows), (runs, rows))
    correct = random.binomial(gold, skill)
    predicted = correct + random.binomial(2, 0.2, size=(runs, rows))
    return 2.0 * correct, (predicted + gold).astype(float)


def f1(above: Array, below: Array, axis: int = -1) -> Array:
    """Micro-F1, in the form that scipy asks for."""
    return np.sum(above, axis=axis) / np.sum(below, axis=axis)


def test_the_standard_error_of_one_relation_is_near_its_analytic_value() -> None:
    """Where every row is of one relation, F1 is 2 p / (1 + p) of the share p found (delta method)."""
    size, share = 2000, 0.7
    truth = torch.full((size,), 5)
    found = torch.where(torch.arange(size) < share * size, 5, 0)
    analytic = 2 / (1 + share) ** 2 * math.sqrt(share * (1 - share) / size)
    error, none = (
        standard_error(*(part.numpy() for part in RelationScores().row_parts(predicted, truth, "f1")))
        for predicted in (found, truth)
    )
    assert error == pytest.approx(analytic, rel=0.1)
    assert none == 0


def test_the_bootstrap_draws_whole_posts() -> None:
    """Posts of many entities weigh more, and all of theirs come or go together."""
    gold = np.full(100, 10)
    assert standard_error(2 * np.array([10, 0] * 50), 2 * gold) == pytest.approx(0.05, rel=0.1)
    assert standard_error(2 * np.full(100, 5), 2 * gold) == 0
