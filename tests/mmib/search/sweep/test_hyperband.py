"""Early termination according to W&B's rule."""

from __future__ import annotations

from typing import Any

import pytest

from mmib.schema import ConfigError
from mmib.search.sweep.hyperband import Hyperband, read_hyperband

# The example in the documentation of W&B's open-source engine, where lower is better; it stops b and c.
HISTORIES = {"a": [10, 9], "b": [10, 10], "c": [10, 8, 8], "d": [10, 7, 7], "e": [10, 6, 6]}


def test_the_documented_example_is_reproduced() -> None:
    rule = read_hyperband({"type": "hyperband", "max_iter": 5, "eta": 2, "s": 2}, "file")
    assert rule.brackets == (1, 2)
    assert [name for name, history in HISTORIES.items() if rule.stops(history, list(HISTORIES.values()))] == [
        "a",
        "b",
        "c",
    ]


def test_trials_are_not_compared_before_the_first_bracket() -> None:
    rule = Hyperband((2, 4), 2.0)
    assert not rule.stops([9, 9], [[1, 1, 1]] * 5 + [[9, 9]])
    assert rule.stops([9, 9, 9], [[1, 1, 1]] * 5 + [[9, 9, 9]])


def test_the_best_value_so_far_counts_rather_than_the_last() -> None:
    others = [[5, 5], [6, 6], [7, 7]]
    assert not Hyperband((1,), 2.0).stops([1, 9], [*others, [1, 9]])


def test_trials_that_did_not_reach_a_bracket_are_not_compared_in_it() -> None:
    assert not Hyperband((2,), 3.0).stops([9, 9, 9], [[0, 0]] * 8 + [[9, 9, 9]])


@pytest.mark.parametrize("eta", [2, 3, 4])
def test_one_of_eta_trials_continues(eta: int) -> None:
    histories = [[float(value)] * 2 for value in range(12)]
    going_on = [h for h in histories if not Hyperband((1,), eta).stops(h, histories)]
    # A trial that equals W&B's bound continues.
    assert len(going_on) == 12 // eta + 1


@pytest.mark.parametrize(
    ("content", "brackets"),
    [
        ({"min_iter": 3}, (3, 9, 27, 81)),
        ({"min_iter": 2, "eta": 1.5}, (2, 3, 4, 6)),
        ({"max_iter": 27, "s": 2}, (3, 9)),
        ({"max_iter": 27, "s": 9, "strict": False}, (1, 3, 9)),
    ],
)
def test_brackets(content: dict[str, Any], brackets: tuple[int, ...]) -> None:
    assert read_hyperband({"type": "hyperband", **content}, "file").brackets[:4] == brackets


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("hyperband", "'type: hyperband'"),
        ({"type": "envelope"}, "'type: hyperband'"),
        ({"type": "hyperband"}, "set one of 'min_iter' and 'max_iter', and only one"),
        ({"type": "hyperband", "min_iter": 1, "max_iter": 2}, "set one of"),
        ({"type": "hyperband", "min_iter": 1, "s": 2}, "'s' belongs to 'max_iter'"),
        ({"type": "hyperband", "max_iter": 9}, "'s' must be a number"),
        ({"type": "hyperband", "max_iter": 2, "s": 2}, "leaves no bracket"),
        ({"type": "hyperband", "min_iter": 0}, "above 0"),
        ({"type": "hyperband", "min_iter": 1.5}, "whole number"),
        ({"type": "hyperband", "min_iter": 1, "eta": 1}, "'eta' must be above 1"),
        ({"type": "hyperband", "min_iter": 1, "eta": 1.0000001}, "more than 1,000 brackets: 'eta' is too close to 1"),
        ({"type": "hyperband", "max_iter": 9, "s": 9**9, "eta": 1.0000001}, "more than 1,000 brackets"),
        ({"type": "hyperband", "max_iter": 9, "s": 10**400}, "'s' must be a number"),
        ({"type": "hyperband", "min_iter": 10**10}, "at most 1,000,000,000"),
        ({"type": "hyperband", "min_iter": 1, "eta": 1e300}, "at most 1,000,000,000"),
        ({"type": "hyperband", "min_iter": 1, "etta": 2}, "unknown key 'etta': choose from type, min_iter"),
        ({"type": "hyperband", "min_iter": 1, "strict": True}, "is not published"),
    ],
)
def test_invalid_sections_are_refused(content: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_hyperband(content, "my.yaml")
    assert str(error.value).startswith("my.yaml: 'early_terminate'")
    assert message in str(error.value)
